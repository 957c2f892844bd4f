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
from memscore.data.splits import Splits, build_examples_table
from memscore.pipeline.attacks import check_attacks
from memscore.pipeline.config import BankConfig, build_designs, build_inversion_options, build_manifest, load_splits
from memscore.pipeline.jobs import SharedData
from memscore.pipeline.originals import (
    compute_proxy_seconds,
    compute_training_seconds,
    get_or_train_pilot,
    train_originals_and_proxies,
)
from memscore.pipeline.precision import ForecastCheck, PrecisionForecast, check_forecast, forecast_precision
from memscore.pipeline.scoring import ArmScores, score_arm, score_fractions
from memscore.pipeline.tables import compute_noise_detection, write_models_table, write_scores_table
from memscore.pipeline.train_bank import (
    ProgressCallback,
    TrainingSummary,
    build_shared_data,
    train_missing,
    train_until_precise,
)
from memscore.plots.bank import plot_memorization, plot_most_memorized, plot_roc_bands
from memscore.proxies.registry import PROXIES, require_validation_images, select_proxies
from memscore.proxies.scores import score_bank_events, score_originals, score_proxies
from memscore.proxies.storage import InversionOptions, read_stored_inversion
from memscore.statistics.intervals import Interval
from memscore.store.json_records import encode_record
from memscore.store.manifest import build_default_url
from memscore.store.shards import SHARD_COLUMNS, format_model_name
from memscore.store.store import Receipts, Store
from memscore.store.verify import restore_receipts
from memscore.subsets.clustering import (
    ORTHOGONAL,
    build_arm_record,
    find_clustering_source,
    get_or_create_clusters,
    require_compatible_clusters,
)
from memscore.subsets.designs import Arm


@dataclass(frozen=True, kw_only=True, eq=False)
class EstimateResult:
    """What a run leaves.

    Attributes:
        training: models trained, failed, diverged, of the arm and the originals.
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

    training: TrainingSummary
    arms: list[ArmScores]
    table: pa.Table
    noise: dict[str, Interval]
    store: str
    accuracy: dict[str, float]
    wall_s: float
    originals: int
    training_s: float
    proxy_s: dict[str, float]
    kept: list[ForecastCheck]
    wish: float | None = None
    imported: bool = False


def predictions_of(store: Store, keys: Sequence[str]) -> np.ndarray | None:
    """What the originals together take each example for, [N]; None without originals."""
    if not keys:
        return None
    logits = np.sum([store.read_outputs(key)[0] for key in keys], axis=0)
    return np.asarray(logits.argmax(1))


def write_reports(store: Store, splits: Splits | None, outcome: EstimateResult, keys: Sequence[str]) -> None:
    """Figures and numbers of the bank as a whole, under reports/."""
    predicted = predictions_of(store, keys)
    for arm in outcome.arms:
        name = f"memorization_{arm.suffix}"
        values, errors = (outcome.table[c].to_numpy().astype(np.float64) for c in (name, f"{name}_se"))
        title = f"{store.manifest.data}, {arm.models} models, {arm.suffix}"
        store.folder.replace(f"reports/{name}.png", plot_memorization(values, errors, title))
        if splits:
            train = splits.train
            gallery = plot_most_memorized(train.images, train.labels, train.labels_true, predicted, values)
            store.folder.replace(f"reports/most_memorized_{arm.suffix}.png", gallery)
        if arm.attacks:
            bands = {name: curve.band for name, curve in arm.attacks.items()}
            store.folder.replace(f"reports/roc_{arm.suffix}.png", plot_roc_bands(bands, title))
    store.folder.replace("reports/summary.json", encode_record(summary(outcome)))


def summary(outcome: EstimateResult) -> dict[str, object]:
    """The numbers of the bank as a whole; undefined is NaN."""
    return {
        "arms": [arm_summary(arm) for arm in outcome.arms],
        "accuracy": outcome.accuracy,
        "diverged": outcome.training.diverged,
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
        config: what the user asked for.
        splits: the data set.
        store: the bank's place.
        arms: the designs that are to be filled.
        count: how many models each is to have.
        host: the machine whose disk the store is on, where that may not be the user's; else empty.
    """

    config: BankConfig
    splits: Splits
    store: Store
    arms: list[Arm]
    count: int
    host: str = ""


def open_bank(plan: BankConfig) -> Bank:
    """As prepare_bank, and the store is begun unless the run is dry; for whoever has his workers already."""
    bank = prepare_bank(plan)
    if not plan.dry_run:
        bank.store.create_files(build_examples_table(bank.splits))
    return bank


def prepare_bank(plan: BankConfig, *, in_temporary_folder: bool = False) -> Bank:
    """Read the data, and open the store if it is there; nothing is written and nothing trained.

    Args:
        plan: what the user asks for.
        in_temporary_folder: the current folder will be deleted, so no store may lie in it.

    Returns:
        The bank.

    Raises:
        ValueError: something in the plan cannot be, the store is of another identity, or it would be deleted.
    """
    arms, count = build_designs(plan)
    splits = load_splits(plan)
    check_attacks(plan.attacks, SHARD_COLUMNS, len(splits.validation))
    require_validation_images(select_proxies(plan.proxies), len(splits.validation))
    manifest, recipe = build_manifest(plan, splits)
    url = build_default_url(plan.data, manifest.architecture, recipe, manifest) if plan.store is None else plan.store
    if in_temporary_folder:
        refuse_relative(url)
    store = Store.open_or_plan(url, manifest)
    if arms[0].design == ORTHOGONAL:
        require_compatible_clusters(store, arms, plan.clusters)
    host = socket.gethostname() if in_temporary_folder and store.folder.local else ""
    return Bank(config=plan, splits=splits, store=store, arms=arms, count=count, host=host)


def prepare_store(bank: Bank, stack: ExitStack, *, locked: bool) -> None:
    """Create the store's files where there are none yet, and take its lock unless that is done.

    Args:
        bank: from prepare_bank.
        stack: gets the lock.
        locked: whether the caller holds the lock; of a store that existed it was taken before workers were started.
    """
    bank.store.create_files(build_examples_table(bank.splits))
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
    progress: ProgressCallback = lambda done, total, line: None,
    on_forecast: Callable[[PrecisionForecast, float | None], None] = lambda outlook, wish: None,
    *,
    device: str = "cpu",
) -> EstimateResult:
    """Fill the bank and score it; the caller holds the store's lock.

    Args:
        bank: from open_bank.
        pool: where models are trained.
        progress: told how far the arm is.
        on_forecast: what an arm's first models say of all that are to come, and the wanted error if there is one.
        device: "cpu" or "cuda".

    Returns:
        What the run leaves; everything in it is in the store too.

    Raises:
        ValueError: no model of the arm could be trained, so there is nothing to score.
    """
    plan, store = bank.config, bank.store
    store.folder.remove_temporary_files()
    shared = prepare_arms(bank, pool, device)
    started = time.perf_counter()
    outlooks: list[PrecisionForecast] = []

    def first(arm: Arm) -> None:
        if found := forecast_precision(store, arm, pool.workers):
            outlooks.append(found)
            on_forecast(found, plan.until_rmse)

    wish = plan.until_rmse
    filling = (
        partial(train_missing, store, bank.arms)
        if wish is None
        else partial(train_until_precise, store, bank.arms[0], wish)
    )
    filled = filling(bank.count, shared, pool, events=plan.bank_events, device=device, progress=progress, first=first)
    wall_s = time.perf_counter() - started
    keys = train_originals_and_proxies(plan, store, bank.splits, filled, shared, pool, device)
    for name, shards in filled.shards.items():
        if not shards:
            write_models_table(store)
            why = next(iter(filled.failed.values()), "every model diverged; try a smaller --lr")
            raise ValueError(f"no model of {name} could be trained, so there is nothing to score: {why}")
    return score_bank(
        *(store, bank.splits, filled),
        pool=pool,
        attacks=plan.attacks,
        keys=keys,
        inversion=build_inversion_options(plan, store.manifest.input_shape)
        if "inversion" in select_proxies(plan.proxies)
        else None,
        wall_s=wall_s,
        outlooks=outlooks,
        wish=plan.until_rmse,
    )


def prepare_arms(bank: Bank, pool: Pool, device: str = "cpu") -> SharedData:
    """Make the clusters that the arms need, and put the arms on record.

    Args:
        bank: from open_bank.
        pool: where a pilot is trained, if clusters are made from one and it is not there.
        device: "cpu" or "cuda".

    Returns:
        The data as the jobs read them.
    """
    plan, store, shared = bank.config, bank.store, build_shared_data(bank.splits, None)
    if bank.arms[0].design == ORTHOGONAL:
        found = partial(get_or_train_pilot, plan, store, shared, pool, device)
        shared = replace(shared, clusters=get_or_create_clusters(store, bank.arms, bank.splits, plan.clusters, found))
    for arm in bank.arms:
        record = build_arm_record(arm, shared.clusters, find_clustering_source(store, plan.clusters))
        store.add_arm(record | queries_on(store, arm.name, plan.queries))
    return shared


def queries_on(store: Store, arm: str, wish: int | None) -> dict[str, int]:
    """What an arm's record says of queries: the user's wish, or what is on file; a single query is not on record."""
    count = store.arms().get(arm, {}).get("queries", 1) if wish is None else wish
    return {"queries": count} if count > 1 else {}


def score_bank(
    store: Store,
    splits: Splits | None,
    filled: TrainingSummary,
    *,
    attacks: Sequence[str],
    pool: Pool | None = None,
    keys: Sequence[str] = (),
    inversion: InversionOptions | None = None,
    wall_s: float = 0.0,
    outlooks: Sequence[PrecisionForecast] = (),
    wish: float | None = None,
) -> EstimateResult:
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
        shards = filled.shards[name] if name in filled.shards else store.find_valid_shards(name, verify=False)
        if shards:
            arms.append(score_arm(store, name, shards, attacks, pool))
            names += arms[-1].names + score_bank_events(store, name, sorted(shards))
    inversion = inversion or read_stored_inversion(store)
    proxies = score_proxies(store, keys, inversion)
    names += score_fractions(store, arms) + score_originals(store, keys) + proxies
    table = write_scores_table(store, names)
    noise = compute_noise_detection(store, names)
    outcome = EstimateResult(
        training=filled,
        arms=arms,
        table=table,
        noise=noise,
        store=store.url,
        accuracy=accuracies(receipts, filled.shards),
        wall_s=wall_s,
        originals=len(keys),
        training_s=compute_training_seconds(store, receipts),
        proxy_s={
            name: seconds
            for name, seconds in compute_proxy_seconds(store, inversion, receipts).items()
            if PROXIES[name].scores[0] in proxies
        },
        kept=[
            check_forecast(found, arm.suffix, arm.models, arm.rmse, wish)
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
    names = [format_model_name(arm, m) for arm, models in shards.items() for m in models]
    each = [receipts[name]["accuracy"] for name in names if name in receipts]
    groups = [group for group in ("members", "left_out", "test") if each and each[0][group] is not None]
    return {group: float(np.median([accuracy[group] for accuracy in each])) for group in groups}
