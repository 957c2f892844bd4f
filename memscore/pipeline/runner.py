"""One run of `estimate`, step by step: open the bank, fill it, score it.

What a run leaves: its numbers as a whole, and the figures and summary.json made of them.
"""

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from cluster.pool import Pool
from memscore.data.splits import Splits, examples_table
from memscore.pipeline.attacks import refuse_attacks
from memscore.pipeline.config import Plan, arms_of, inversion_of, manifest_of, splits_of
from memscore.pipeline.jobs import Shared
from memscore.pipeline.originals import fill_from_originals, pilot, seconds_of_proxies, training_seconds
from memscore.pipeline.precision import Kept, Outlook, kept_of, outlook
from memscore.pipeline.scoring import ArmScores, score_arm, score_fractions
from memscore.pipeline.tables import noise_detection, write_models_table, write_wide_table
from memscore.pipeline.train_bank import Filled, Progress, fill, fill_until, shared_of
from memscore.plots.bank import most_memorized, roc_bands, spread
from memscore.proxies.registry import PROXIES, chosen, refuse_without_validation
from memscore.proxies.scores import score_bank_events, score_originals, score_proxies
from memscore.proxies.storage import Inversion, inversion_on_file
from memscore.statistics.intervals import Interval
from memscore.store.json_records import sealed
from memscore.store.manifest import default_url
from memscore.store.shards import SHARD_COLUMNS, model_name
from memscore.store.store import Receipts, Store
from memscore.store.verify import restore_receipts
from memscore.subsets.clustering import ORTHOGONAL, arm_record, clusters_for, kind_of, refuse_other_clusters
from memscore.subsets.designs import Arm


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a run leaves.

    Attributes:
        filled: models trained, failed, diverged, of the arm and the originals.
        arms: what each arm of the bank says.
        table: scores.parquet.
        noise: AUROC of each score for changed labels; empty without any.
        store: path or URL.
        accuracy: median over the arm's models on their members, on what they left out, and on the test set.
        wall_s: seconds that filling the arm took.
        originals: how many are there.
        training_s: median seconds of one worker for training one of them; NaN without any.
        proxy_s: name -> median seconds that each proxy on file adds to one of them.
        kept: for each arm that was planned, the plan beside what came of it.
        wish: the error of memorization that was wanted, if any.
        imported: somebody else trained the models.
    """

    filled: Filled
    arms: list[ArmScores]
    table: pa.Table
    noise: dict[str, Interval]
    store: str
    accuracy: dict[str, float]
    wall_s: float
    originals: int
    training_s: float
    proxy_s: dict[str, float]
    kept: list[Kept]
    wish: float | None = None
    imported: bool = False


def predictions_of(store: Store, keys: Sequence[str]) -> np.ndarray | None:
    """What the originals together take each example for, [N]; None without originals."""
    if not keys:
        return None
    logits = np.sum([store.read_outputs(key)[0] for key in keys], axis=0)
    return np.asarray(logits.argmax(1))


def write_reports(store: Store, splits: Splits | None, outcome: Outcome, keys: Sequence[str]) -> None:
    """Figures and numbers of the bank as a whole, under reports/."""
    predicted = predictions_of(store, keys)
    for arm in outcome.arms:
        name = f"memorization_{arm.suffix}"
        values, errors = (outcome.table[c].to_numpy().astype(np.float64) for c in (name, f"{name}_se"))
        title = f"{store.manifest.data}, {arm.models} models, {arm.suffix}"
        store.folder.replace(f"reports/{name}.png", spread(values, errors, title))
        if splits:
            train = splits.train
            gallery = most_memorized(train.images, train.labels, train.labels_true, predicted, values)
            store.folder.replace(f"reports/most_memorized_{arm.suffix}.png", gallery)
        if arm.attacks:
            bands = {name: curve.band for name, curve in arm.attacks.items()}
            store.folder.replace(f"reports/roc_{arm.suffix}.png", roc_bands(bands, title))
    store.folder.replace("reports/summary.json", sealed(summary(outcome)))


def summary(outcome: Outcome) -> dict[str, object]:
    """The numbers of the bank as a whole; undefined is NaN."""
    return {
        "arms": [arm_summary(arm) for arm in outcome.arms],
        "accuracy": outcome.accuracy,
        "diverged": outcome.filled.diverged,
        "planned": [asdict(kept) for kept in outcome.kept],
        "originals": outcome.originals,
        "seconds_an_original": outcome.training_s,
        "proxy_seconds_an_original": outcome.proxy_s,
        "auroc_for_changed_labels": {k: [v.value, v.lo, v.hi] for k, v in outcome.noise.items()},
    }


def arm_summary(arm: ArmScores) -> dict[str, object]:
    """The numbers of one arm as a whole; undefined is NaN."""
    return {
        "suffix": arm.suffix,
        "models": arm.models,
        "memorization_rmse": arm.rmse,
        "memorization_rmse_between_blocks": arm.rmse_block,
        "models_in_unfinished_blocks": arm.unfinished,
        "undefined": arm.undefined,
        "reliability": {stem: asdict(found) for stem, found in arm.reliability.items()},
        "attacks": {
            name: {
                "targets": curve.targets,
                **{key: [m.value, m.lo, m.hi] for key, m in curve.measures.items()},
            }
            for name, curve in arm.attacks.items()
        },
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Bank:
    """A store opened for one plan.

    Attributes:
        plan: what the user asked for.
        splits: the data set.
        store: the bank's place.
        arms: the designs that are to be filled.
        count: how many models each is to have.
        host: the machine whose disk the store is on, where that may not be the user's; else empty.
    """

    plan: Plan
    splits: Splits
    store: Store
    arms: list[Arm]
    count: int
    host: str = ""


def open_bank(plan: Plan) -> Bank:
    """As bank_of, and the store is begun unless the run is dry; for whoever has his workers already."""
    bank = bank_of(plan)
    if not plan.dry_run:
        bank.store.begin(examples_table(bank.splits))
    return bank


def bank_of(plan: Plan, *, passing_folder: bool = False) -> Bank:
    """Read the data, and open the store if it is there; nothing is written and nothing trained.

    Args:
        plan: what the user asks for.
        passing_folder: the current folder will be deleted, so no store may lie in it.

    Returns:
        The bank.

    Raises:
        ValueError: something in the plan cannot be, the store is of another identity, or it would be deleted.
    """
    arms, count = arms_of(plan)
    splits = splits_of(plan)
    refuse_attacks(plan.attacks, SHARD_COLUMNS, len(splits.validation))
    refuse_without_validation(chosen(plan.proxies), len(splits.validation))
    manifest, recipe = manifest_of(plan, splits)
    url = default_url(plan.data, manifest.architecture, recipe, manifest) if plan.store is None else plan.store
    if passing_folder:
        refuse_relative(url)
    store = Store.planned(url, manifest)
    if arms[0].design == ORTHOGONAL:
        refuse_other_clusters(store, arms, plan.clusters)
    host = socket.gethostname() if passing_folder and store.folder.local else ""
    return Bank(plan=plan, splits=splits, store=store, arms=arms, count=count, host=host)


def prepare_store(bank: Bank, stack: ExitStack, *, locked: bool) -> None:
    """Create the store's files where there are none yet, and take its lock unless that is done.

    Args:
        bank: from bank_of.
        stack: gets the lock.
        locked: whether the caller holds the lock; of a store that existed it was taken before workers were started.
    """
    bank.store.begin(examples_table(bank.splits))
    if not locked:
        stack.enter_context(bank.store.lock())


def refuse_relative(url: str) -> None:
    """For a process whose folder is deleted after it, such as a submitted job."""
    if "://" not in url and not Path(url).expanduser().is_absolute():
        raise ValueError(
            f"the store {url} is a relative path, and a submitted job runs in a temporary folder; "
            "give --store an absolute path that every node shares, or s3://"
        )


def estimate(
    bank: Bank,
    pool: Pool,
    progress: Progress = lambda done, total, line: None,
    told: Callable[[Outlook, float | None], None] = lambda outlook, wish: None,
    *,
    device: str = "cpu",
) -> Outcome:
    """Fill the bank and score it; the caller holds the store's lock.

    Args:
        bank: from open_bank.
        pool: where models are trained.
        progress: told how far the arm is.
        told: what an arm's first models say of all that are to come, and the wanted error if there is one.
        device: "cpu" or "cuda".

    Returns:
        What the run leaves; everything in it is in the store too.

    Raises:
        ValueError: no model of the arm could be trained, so there is nothing to score.
    """
    plan, store = bank.plan, bank.store
    store.folder.remove_scratch()
    shared = begin(bank, pool, device)
    started = time.perf_counter()
    outlooks: list[Outlook] = []

    def first(arm: Arm) -> None:
        if found := outlook(store, arm, pool.workers):
            outlooks.append(found)
            told(found, plan.until_rmse)

    wish = plan.until_rmse
    filling = partial(fill, store, bank.arms) if wish is None else partial(fill_until, store, bank.arms[0], wish)
    filled = filling(bank.count, shared, pool, events=plan.bank_events, device=device, progress=progress, first=first)
    wall_s = time.perf_counter() - started
    keys = fill_from_originals(plan, store, bank.splits, filled, shared, pool, device)
    for name, shards in filled.shards.items():
        if not shards:
            write_models_table(store)
            why = next(iter(filled.failed.values()), "every model diverged; try a smaller --lr")
            raise ValueError(f"no model of {name} could be trained, so there is nothing to score: {why}")
    return finish(
        *(store, bank.splits, filled),
        pool=pool,
        attacks=plan.attacks,
        keys=keys,
        inversion=inversion_of(plan, store.manifest.input_shape) if "inversion" in chosen(plan.proxies) else None,
        wall_s=wall_s,
        outlooks=outlooks,
        wish=plan.until_rmse,
    )


def begin(bank: Bank, pool: Pool, device: str = "cpu") -> Shared:
    """Make the clusters that the arms need, and put the arms on record.

    Args:
        bank: from open_bank.
        pool: where a pilot is trained, if clusters are made from one and it is not there.
        device: "cpu" or "cuda".

    Returns:
        The data as the jobs read them.
    """
    plan, store, shared = bank.plan, bank.store, shared_of(bank.splits, None)
    if bank.arms[0].design == ORTHOGONAL:
        found = partial(pilot, plan, store, shared, pool, device)
        shared = replace(shared, clusters=clusters_for(store, bank.arms, bank.splits, plan.clusters, found))
    for arm in bank.arms:
        record = arm_record(arm, shared.clusters, kind_of(store, plan.clusters))
        store.add_arm(record | queries_on(store, arm.name, plan.queries))
    return shared


def queries_on(store: Store, arm: str, wish: int | None) -> dict[str, int]:
    """What an arm's record says of queries: the user's wish, or what is on file; a single query is not on record."""
    count = store.arms().get(arm, {}).get("queries", 1) if wish is None else wish
    return {"queries": count} if count > 1 else {}


def finish(
    store: Store,
    splits: Splits | None,
    filled: Filled,
    *,
    attacks: Sequence[str],
    pool: Pool | None = None,
    keys: Sequence[str] = (),
    inversion: Inversion | None = None,
    wall_s: float = 0.0,
    outlooks: Sequence[Outlook] = (),
    wish: float | None = None,
) -> Outcome:
    """Every score that a filled bank can give, the wide table, figures and a summary.

    Args:
        store: the bank; the caller holds its lock.
        splits: its data, for the pictures; None if nobody knows it.
        filled: what came of filling it.
        attacks: names of membership attacks.
        pool: where a large bank is reduced; None for here.
        keys: of the originals.
        inversion: settings of the inversion that was asked for; None is that of the score on file.
        wall_s: seconds that filling took.
        outlooks: what the first models of arms said.
        wish: the error of memorization that was wanted.

    Returns:
        What the run leaves.
    """
    filled.restored = restore_receipts(store, filled.shards)
    receipts = store.receipts()
    write_models_table(store, receipts)
    arms, names = [], []
    for name in sorted(store.arms()):
        shards = filled.shards[name] if name in filled.shards else store.finished(name, verify=False)
        if shards:
            arms.append(score_arm(store, name, shards, attacks, pool))
            names += arms[-1].names + score_bank_events(store, name, sorted(shards))
    inversion = inversion or inversion_on_file(store)
    proxies = score_proxies(store, keys, inversion)
    names += score_fractions(store, arms) + score_originals(store, keys) + proxies
    table = write_wide_table(store, names)
    noise = noise_detection(store, names)
    outcome = Outcome(
        filled=filled,
        arms=arms,
        table=table,
        noise=noise,
        store=store.url,
        accuracy=accuracies(receipts, filled.shards),
        wall_s=wall_s,
        originals=len(keys),
        training_s=training_seconds(store, receipts),
        proxy_s={
            name: seconds
            for name, seconds in seconds_of_proxies(store, inversion, receipts).items()
            if PROXIES[name].scores[0] in proxies
        },
        kept=[
            kept_of(found, arm.suffix, arm.models, arm.rmse, wish)
            for arm in arms
            for found in outlooks
            if found.arm == arm.arm
        ],
        wish=wish,
        imported=store.manifest.imported,
    )
    write_reports(store, splits, outcome, keys)
    return outcome


def accuracies(receipts: Receipts, shards: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """Median accuracy over the models of some arms; a group without examples is left out."""
    names = [model_name(arm, m) for arm, models in shards.items() for m in models]
    each = [receipts[name]["accuracy"] for name in names if name in receipts]
    groups = [group for group in ("members", "left_out", "test") if each and each[0][group] is not None]
    return {group: float(np.median([accuracy[group] for accuracy in each])) for group in groups}
