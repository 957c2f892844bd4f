"""One run of `estimate`: open the bank, train missing models, score it, write reports."""

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from cluster.pool import Pool
from memscore.data.duplicates import Copies, count_copies, find_copies
from memscore.data.splits import Splits, build_examples_table
from memscore.pipeline.attacks import check_attacks
from memscore.pipeline.bank_reports import EstimateResult, draw_rebuilt_images, write_reports
from memscore.pipeline.changed_data import note_changed_data, require_same_left_out, require_unchanged_data
from memscore.pipeline.config import (
    BankConfig,
    build_designs,
    build_inversion_options,
    build_manifest,
    describe_fitted_batch,
    describe_rounding,
    list_recipe_changes,
    load_splits,
    resolve_proxies,
)
from memscore.pipeline.default_architecture import describe_costly_default
from memscore.pipeline.jobs import SharedData, build_model, read_recipe
from memscore.pipeline.locate_store import locate_store
from memscore.pipeline.originals import (
    build_missing_originals,
    compute_event_seconds,
    compute_proxies,
    compute_proxy_seconds,
    compute_training_seconds,
    get_or_train_pilot,
)
from memscore.pipeline.output_check import find_network_output_kind
from memscore.pipeline.precision import PrecisionForecast, check_forecast, forecast_precision
from memscore.pipeline.scoring import score_arm, score_fractions
from memscore.pipeline.stacked_scores import check_stacked
from memscore.pipeline.start_weights import (
    describe_network,
    describe_start_weights,
    require_same_network,
    store_start_weights,
)
from memscore.pipeline.stored_options import complete_options
from memscore.pipeline.tables import (
    compute_noise_detection,
    write_copies_table,
    write_models_table,
    write_scores_table,
)
from memscore.pipeline.train_bank import (
    ProgressCallback,
    TrainingSummary,
    build_shared_data,
    check_smallest_subset,
    train_missing,
    train_until_precise,
)
from memscore.proxies.inversion_summary import summarize_inversions
from memscore.proxies.registry import PROXIES, require_validation_images, select_proxies
from memscore.proxies.scores import score_bank_events, score_originals, score_proxies
from memscore.proxies.storage import (
    INVERSIONS,
    InversionOptions,
    read_stored_inversions,
)
from memscore.store.class_names import name_labels
from memscore.store.engine_counts import count_engines
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
from memscore.training.engines import name_cpu_engine


@dataclass(frozen=True, kw_only=True, eq=False)
class Bank:
    """A store opened with the options of one bank.

    Attributes:
        config: the user's options, completed from the stored bank.
        splits: the data set.
        store: the bank's store.
        arms: the designs whose models are to be trained.
        count: how many models each is to have.
        host: the machine whose disk the store is on, where that may not be the user's; else empty.
        notes: lines on what was decided for the user, by the stored bank or by defaults.
        output_kind: what the network returns instead of logits; empty for logits.
        recipe_name: of the recipe that the options change.
    """

    config: BankConfig
    splits: Splits
    store: Store
    arms: list[Arm]
    count: int
    host: str = ""
    notes: tuple[str, ...] = ()
    output_kind: str = ""
    recipe_name: str = ""

    @cached_property
    def copies(self) -> Copies:
        """The exact copies among the images, found once."""
        return find_copies(self.splits)


def prepare_bank(config: BankConfig, *, in_temporary_folder: bool = False, device: str = "cpu") -> Bank:
    """Read the data, and open the store if it exists; write nothing and train nothing.

    The device is that of the workers, "cpu" or "cuda". With `in_temporary_folder` the current folder will be deleted,
    so no store may be in it. ValueError if an option is impossible, the store is another bank's or would be
    deleted, or a new one's models cannot be trained on the device.
    """
    # everything that can be wrong is found here, before workers are started and files are written
    config, completed = complete_options(config)
    arms, count = build_designs(config)
    rounding = describe_rounding(config, arms, count)
    splits = load_splits(config)
    config, left_out = resolve_proxies(config, len(splits.validation))
    check_attacks(config.attacks, SHARD_COLUMNS, len(splits.validation))
    if config.stacked:
        check_stacked(len(splits.train), count)
    require_validation_images(select_proxies(config.proxies), len(splits.validation))
    manifest, recipe = build_manifest(config, splits, arms)
    location = locate_store(config, manifest, recipe, device)
    if in_temporary_folder:
        check_absolute_path(location.url)
    require_same_left_out(location.url, location.manifest, splits)
    require_unchanged_data(location.url, location.manifest, splits)
    changed = note_changed_data(location.url, location.manifest, splits) if config.store is None else ()
    store = Store.open_or_plan(location.url, location.manifest)
    require_same_network(store)
    if arms[0].design == ORTHOGONAL:
        require_compatible_clusters(store, arms, config.clusters)
    # of orthogonal arms it is known once there are clusters, and a stored bank has passed
    elif not store.is_created:
        for arm in arms:
            check_smallest_subset(store, arm, range(count), None)
    # a submitted job runs on another machine, and only its name tells the user whose disk a local path is on
    host = socket.gethostname() if in_temporary_folder and store.folder.local else ""
    return Bank(
        config=config,
        splits=splits,
        store=store,
        arms=arms,
        count=count,
        host=host,
        notes=(
            *completed,
            *changed,
            *rounding,
            *left_out,
            *describe_fitted_batch(config, location.manifest, recipe),
            *location.notes,
            *describe_start_weights(location.manifest.architecture),
            *describe_costly_default(config, store, device),
            *describe_other_engines(store, device, count * len(arms)),
        ),
        output_kind=find_network_output_kind(location.manifest, splits),
        recipe_name=recipe,
    )


def describe_other_engines(store: Store, device: str, planned: int) -> list[str]:
    """Describe that a CPU will continue a bank whose models another engine trained; empty where nothing changes."""
    # which engine a GPU gets is known in the worker only
    if not store.is_created or device != "cpu" or len(store.folder.names("shards")) >= planned:
        return []
    here = name_cpu_engine(build_model(store, "engine", 0, torch.device("cpu")), read_recipe(store))
    others = sorted(count_engines(store.folder).keys() - {here})
    if not others:
        return []
    return [
        f"new models are trained by another engine ({here}) than stored ones ({'; '.join(others)}): the same steps, "
        "and numbers that differ by rounding, as on another kind of CPU"
    ]


def prepare_store(bank: Bank, stack: ExitStack, *, locked: bool) -> None:
    """Create the store's files where there are none yet, and take its lock unless that is done.

    `stack` gets the lock. `locked` is true for a store that existed, whose lock was taken before workers were started.
    """
    manifest, origin = bank.store.manifest, dict(bank.splits.origin)
    if bank.config.pretrained:
        origin["pretrained"] = str(Path(bank.config.pretrained).absolute())
    if ":" in manifest.architecture:
        origin["network"] = describe_network(manifest)
    # a stored bank keeps the name of its recipe unless another one is given for the same values
    if bank.config.recipe or not bank.store.is_created:
        origin |= {"recipe": bank.recipe_name, "recipe_options": list_recipe_changes(bank.config)}
    bank.store.create_files(build_examples_table(bank.splits), origin)
    store_start_weights(bank.store)
    if not locked:
        stack.enter_context(bank.store.lock())


def check_absolute_path(url: str) -> None:
    """Raise for a relative path in a process whose folder is deleted, as of a submitted job."""
    if "://" not in url and not Path(url).expanduser().is_absolute():
        raise ValueError(
            f"the store {url} is a relative path, and a submitted job runs in a temporary folder; "
            "give --store an absolute path that every node shares, or s3://"
        )


def estimate(
    bank: Bank,
    pool: Pool,
    progress: ProgressCallback = lambda done, total, line: None,
    on_forecast: Callable[[PrecisionForecast, float | None], None] = lambda forecast, target_rmse: None,
    *,
    device: str = "cpu",
) -> EstimateResult:
    """Train the bank's missing models and score it; the caller holds the store's lock.

    Everything in the result is in the store too. `on_forecast` is called with the forecast from an arm's first models,
    and the requested error if there is one. ValueError if no model of an arm could be trained, so that there is nothing
    to score.
    """
    # 1. Prepare what jobs read.
    config, store = bank.config, bank.store
    write_copies_table(store, bank.copies)
    shared = prepare_arms(bank, pool, device)
    started = time.perf_counter()
    forecasts: list[PrecisionForecast] = []

    def on_first_models(arm: Arm) -> None:
        if forecast := forecast_precision(store, arm, pool.workers):
            forecasts.append(forecast)
            on_forecast(forecast, config.until_rmse)

    # 2. Train the arms, to a number of models or until the error is small enough, and the originals beside them.
    target_rmse = config.until_rmse
    train_arms = (
        partial(train_missing, store, bank.arms)
        if target_rmse is None
        else partial(train_until_precise, store, bank.arms[0], target_rmse)
    )
    training = train_arms(
        bank.count,
        shared,
        pool,
        originals=build_missing_originals(config, store, config.originals, device),
        events=config.bank_events,
        device=device,
        progress=progress,
        on_first_models=on_first_models,
    )
    wall_s = time.perf_counter() - started
    # 3. Proxies. They are stored even if an arm has no model, which is an error only after them.
    keys = compute_proxies(config, store, bank.splits, training, shared, pool, device)
    for name, shards in training.shards.items():
        if not shards:
            write_models_table(store)
            reason = next(iter(training.failed.values()), "every model diverged; try a smaller --lr")
            raise ValueError(f"no model of {name} could be trained, so there is nothing to score: {reason}")
    # 4. Score. For an inversion that was not requested score_bank takes the settings of the stored score.
    return score_bank(
        *(store, bank.splits, training),
        pool=pool,
        attacks=config.attacks,
        stacked=config.stacked,
        keys=keys,
        inversions=dict.fromkeys(
            (name for name in select_proxies(config.proxies) if name in INVERSIONS),
            build_inversion_options(config, store.manifest.input_shape),
        ),
        wall_s=wall_s,
        forecasts=forecasts,
        target_rmse=config.until_rmse,
        copies=bank.copies,
        output_kind=bank.output_kind,
    )


def prepare_arms(bank: Bank, pool: Pool, device: str = "cpu") -> SharedData:
    """Create clusters where needed, store the records of the arms, and return the jobs' data.

    Trains a pilot if clusters are made from one and it is missing.
    """
    # the pilot is trained on everything, so its job reads no clusters
    config, store, shared = bank.config, bank.store, build_shared_data(bank.splits, None)
    if bank.arms[0].design == ORTHOGONAL:
        train_pilot = partial(get_or_train_pilot, config, store, shared, pool, device)
        shared = replace(
            shared, clusters=get_or_create_clusters(store, bank.arms, bank.splits, config.clusters, train_pilot)
        )
    for arm in bank.arms:
        record = build_arm_record(arm, shared.clusters, find_clustering_source(store, config.clusters))
        queries = count_queries(config, store, arm)
        # An arm's record is part of the hash in its shards, so it is stored before the first model. It has no field for
        # one query, so that records from before there were queries stay equal.
        store.add_arm(record | ({"queries": queries} if queries > 1 else {}))
    return shared


def count_queries(config: BankConfig, store: Store, arm: Arm) -> int:
    """Count the queries of an image: those that the user names, else as stored, else the image alone."""
    stored = store.arms() if store.is_created else {}
    return int(stored.get(arm.name, {}).get("queries", 1)) if config.queries is None else config.queries


def score_bank(
    store: Store,
    splits: Splits | None,
    training: TrainingSummary,
    *,
    attacks: Sequence[str],
    stacked: bool = False,
    pool: Pool | None = None,
    keys: Sequence[str] = (),
    inversions: Mapping[str, InversionOptions] = MappingProxyType({}),
    wall_s: float = 0.0,
    forecasts: Sequence[PrecisionForecast] = (),
    target_rmse: float | None = None,
    copies: Copies | None = None,
    output_kind: str = "",
) -> EstimateResult:
    """Compute every score of a trained bank; write the table of all scores and the reports.

    The caller holds the store's lock. `splits` are for the figures, which need images; `keys` are those of the
    originals; a large bank is reduced on `pool`, if there is one; `stacked` asks for memorization by regression;
    `inversions` are the settings of inversions where they are not those of the stored scores; `copies` are found in the
    splits if they were not yet.
    """
    # 1. Receipts, read once, since each is a file of its own.
    training.restored_receipts = restore_receipts(store, training.shards)
    receipts = store.receipts()
    write_models_table(store, receipts)
    # 2. Scores of all stored arms, also of those that this run did not train, and of what all arms share.
    arms, names = [], []
    for name in sorted(store.arms()):
        shards = training.shards[name] if name in training.shards else store.find_valid_shards(name, verify=False)
        if shards:
            arms.append(score_arm(store, name, shards, attacks, pool, stacked=stacked))
            names += arms[-1].names + score_bank_events(store, name, sorted(shards))
    inversions = read_stored_inversions(store) | dict(inversions)
    proxies = score_proxies(store, keys, inversions)
    names += score_fractions(store, arms) + score_originals(store, keys) + proxies
    # 3. The table of all scores, and the result. An imported bank may lack the examples of a split.
    if splits is not None and copies is None:
        copies = find_copies(splits, store.manifest.split_sizes)
        write_copies_table(store, copies)
    table = write_scores_table(store, names, copies)
    accuracies = collect_accuracies(receipts, training.shards)
    noise = compute_noise_detection(store, names)
    result = EstimateResult(
        training=training,
        arms=arms,
        table=name_labels(table, store.class_names),
        noise=noise,
        store=store.url,
        accuracy={group: float(np.median([*values.values()])) for group, values in accuracies.items()},
        lowest_accuracy={group: find_lowest(values) for group, values in accuracies.items()},
        wall_s=wall_s,
        originals=len(keys),
        training_s=compute_training_seconds(store, receipts),
        proxy_s={
            name: seconds
            for name, seconds in compute_proxy_seconds(store, inversions, receipts).items()
            if PROXIES[name].scores[0] in proxies
        },
        event_s=compute_event_seconds(store, receipts),
        inversion=summarize_inversions(table),
        forecast_checks=[
            check_forecast(
                forecast,
                arm.suffix,
                arm.precision,
                target_rmse,
            )
            for arm in arms
            for forecast in forecasts
            if forecast.arm == arm.arm
        ],
        target_rmse=target_rmse,
        imported=store.manifest.imported,
        copies=None if copies is None else count_copies(copies),
        output_kind=output_kind,
    )
    write_reports(store, splits, result)
    if splits:
        draw_rebuilt_images(store, splits, keys, inversions)
    return result


def collect_accuracies(receipts: Receipts, shards: Mapping[str, Iterable[int]]) -> dict[str, dict[str, float]]:
    """Collect the accuracies of models of some arms by group, then by model; empty groups are left out."""
    names = [format_model_name(arm, m) for arm, models in shards.items() for m in models]
    accuracies = {name: receipts[name]["accuracy"] for name in names if name in receipts}
    groups = {
        group: {name: values[group] for name, values in accuracies.items() if values.get(group) is not None}
        for group in ("members", "left_out", "test")
    }
    return {group: values for group, values in groups.items() if values}


def find_lowest(values: Mapping[str, float]) -> tuple[float, str]:
    """Find the lowest value and its name; of equal ones the first."""
    name = min(values, key=lambda each: values[each])
    return values[name], name
