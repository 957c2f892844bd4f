"""One run of `estimate`, step by step: open the bank, fill it, score it."""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from memscore.attacks import refuse_attacks
from memscore.costs import seconds_of_proxies, training_seconds
from memscore.data import Splits
from memscore.files import Folder
from memscore.filling import Filled, Pool, Progress, clusters_for, fill, shared_of
from memscore.intervals import Interval
from memscore.originals import fill_from_originals
from memscore.plan import Plan, arms_of, inversion_of, manifest_of, splits_of
from memscore.proxies.kept import Inversion, inversion_on_file
from memscore.proxies.scores import score_bank_events, score_originals, score_proxies
from memscore.proxies.table import PROXIES, chosen, refuse_without_validation
from memscore.records import sealed
from memscore.report.figures import most_memorized, spread
from memscore.report.roc_figure import roc_bands
from memscore.scoring import ArmScores, score_arm, score_fractions
from memscore.splits import examples_table
from memscore.store import SHARD_COLUMNS, Store, default_url, model_name
from memscore.subsets import Arm
from memscore.wide import noise_detection, write_models_table, write_wide_table


@dataclass(frozen=True, kw_only=True, eq=False)
class Bank:
    """A store opened for one plan.

    Attributes:
        plan: what the user asked for.
        splits: the data set.
        store: the bank's place.
        arms: the designs that are to be filled.
        count: how many models each is to have.
    """

    plan: Plan
    splits: Splits
    store: Store
    arms: list[Arm]
    count: int


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


def open_bank(plan: Plan, *, passing_folder: bool = False) -> Bank:
    """Read the data and open the store, or begin it unless the run is dry; nothing is trained.

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
    folder = Folder.at(url)
    fresh = plan.dry_run and not folder.exists("manifest.json")
    store = Store(folder, manifest) if fresh else Store.create(url, manifest, examples_table(splits))
    return Bank(plan=plan, splits=splits, store=store, arms=arms, count=count)


def refuse_relative(url: str) -> None:
    """For a process whose folder is deleted after it, such as a submitted job."""
    if "://" not in url and not Path(url).expanduser().is_absolute():
        raise ValueError(
            f"the store {url} is a relative path, and a submitted job runs in a temporary folder; "
            "give --store an absolute path that every node shares, or s3://"
        )


def estimate(bank: Bank, pool: Pool, progress: Progress, *, device: str = "cpu") -> Outcome:
    """Fill the bank and score it; the caller holds the store's lock.

    Args:
        bank: from open_bank.
        pool: where models are trained.
        progress: told how far the arm is.
        device: "cpu" or "cuda".

    Returns:
        What the run leaves; everything in it is in the store too.

    Raises:
        ValueError: no model of the arm could be trained, so there is nothing to score.
    """
    plan, store = bank.plan, bank.store
    store.folder.remove_scratch()
    clusters = None
    for arm in bank.arms:
        own = clusters_for(store, arm, bank.splits)
        hash_ = None if own is None else hashlib.sha256(own.astype("<i4").tobytes()).hexdigest()
        record = {"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": hash_}
        store.add_arm(record | queries_on(store, arm.name, plan.queries))
        clusters = own if clusters is None else clusters
    shared = shared_of(bank.splits, clusters)
    started = time.perf_counter()
    filled = fill(store, bank.arms, bank.count, shared, pool, events=plan.bank_events, device=device, progress=progress)
    wall_s = time.perf_counter() - started
    keys = fill_from_originals(plan, store, bank.splits, filled, shared, pool, device)
    for name, shards in filled.shards.items():
        if not shards:
            write_models_table(store)
            why = next(iter(filled.failed.values()), "every model diverged; try a smaller --lr")
            raise ValueError(f"no model of {name} could be trained, so there is nothing to score: {why}")
    return finish(
        *(store, bank.splits, filled),
        attacks=plan.attacks,
        keys=keys,
        inversion=inversion_of(plan, store.manifest.input_shape) if "inversion" in chosen(plan.proxies) else None,
        wall_s=wall_s,
    )


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
    keys: Sequence[str] = (),
    inversion: Inversion | None = None,
    wall_s: float = 0.0,
) -> Outcome:
    """Every score that a filled bank can give, the wide table, figures and a summary.

    Args:
        store: the bank; the caller holds its lock.
        splits: its data, for the pictures; None if nobody knows it.
        filled: what came of filling it.
        attacks: names of membership attacks.
        keys: of the originals.
        inversion: settings of the inversion that was asked for; None is that of the score on file.
        wall_s: seconds that filling took.

    Returns:
        What the run leaves.
    """
    write_models_table(store)
    arms, names = [], []
    for name in sorted(store.arms()):
        shards = filled.shards[name] if name in filled.shards else store.finished(name, verify=False)
        if shards:
            arms.append(score_arm(store, name, shards, attacks))
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
        accuracy=accuracies(store, filled.shards),
        wall_s=wall_s,
        originals=len(keys),
        training_s=training_seconds(store),
        proxy_s={
            name: s for name, s in seconds_of_proxies(store, inversion).items() if PROXIES[name].scores[0] in proxies
        },
    )
    write_reports(store, splits, outcome, keys)
    return outcome


def accuracies(store: Store, shards: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """Median accuracy over the models of some arms; a group without examples is left out."""
    receipts, names = store.receipts(), [model_name(arm, m) for arm, models in shards.items() for m in models]
    each = [receipts[name]["accuracy"] for name in names if name in receipts]
    groups = [group for group in ("members", "left_out", "test") if each and each[0][group] is not None]
    return {group: float(np.median([accuracy[group] for accuracy in each])) for group in groups}


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
