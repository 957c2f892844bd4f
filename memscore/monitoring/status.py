"""Compute the status of a bank from its files: models, failures, precision, driver, trials.

Nothing is written, no shard is hashed, and neither Ray nor torch is imported, so it works on any store at any time: one
that is being written, is read-only or damaged, or is on an object store. It costs a listing of the shards, the records
of arms and failures, the footers of the scores, at most 500 trials and 64 receipts, and, for the precision, two columns
of each arm's first models. Files that are damaged, or deleted meanwhile, become problems in the status and never
errors.
"""

import re
import time
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from memscore.monitoring.bank_list import measure_folder
from memscore.monitoring.heartbeat import Driver, Heartbeat, find_driver, read_heartbeat
from memscore.pipeline.outlying_models import SUMMARY, read_outlying_models
from memscore.score_registry import get_estimator_version
from memscore.statistics.outlying_models import Deviation
from memscore.store.copy_counts import read_copy_counts
from memscore.store.damage_error import build_damage_error
from memscore.store.engine_counts import count_engines
from memscore.store.filesystem import TEMPORARY_NAME, Folder
from memscore.store.json_records import read_record
from memscore.store.parquet import CorruptFile, decode_metadata, open_parquet
from memscore.store.remote import StoreUnavailable
from memscore.store.score_files import has_other_version
from memscore.store.shards import parse_model_index
from memscore.store.store import Store
from memscore.store.table_schemas import find_footer_fault
from memscore.units import format_count

MAX_TRIALS_READ = 500  # trials whose status is read; others are only counted
THREADS = 8
RATE_SHARDS = 64  # shards whose times give the rate where no driver reports one
MAX_FAILURES_READ = 500  # failures that are read; others are only counted
MODELS_NAMED = 3  # models that a group of failures names

PrecisionCache = MutableMapping[tuple[str, int], Any]
"""Arm and number of its first models -> their OutcomeVariance and RMSE, which never change."""


def read_or_report(read: Any, problems: list[str]) -> Any:
    """Call a reader; return None for a deleted file, and for a damaged one, a problem."""
    try:
        return read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problems.append(" ".join(str(error).split()))
        return None


def list_files(folder: Folder, kind: str) -> list[Any]:
    """List the finished files of one sub-folder with size and time, in one request."""
    return [info for info in folder.entries(kind) if not TEMPORARY_NAME.fullmatch(info.base_name)]


def list_record_names(folder: Folder, kind: str) -> list[str]:
    """List the names of the records of one kind, sorted, without their ending."""
    return [name.removesuffix(".json") for name in folder.names(kind) if name.endswith(".json")]


@dataclass(frozen=True, kw_only=True)
class TrialsStatus:
    """Unlearning trials in a bank, or in a nested store, where a forget set changed the data.

    Attributes:
        place: path of the nested store; "" for the bank itself.
        originals: with stored weights.
        oracles: the same.
        trials: stored trials.
        read: how many of them were read.
        diverged: of these.
    """

    place: str
    originals: int
    oracles: int
    trials: int
    read: int
    diverged: int


def list_trials_statuses(store: Store, problems: list[str]) -> list[TrialsStatus]:
    """Compute the status of the trials of a bank, then of its nested stores."""
    return [compute_trials_status(store, place, problems) for place in ("", *store.scenarios())]


def compute_trials_status(store: Store, place: str, problems: list[str]) -> TrialsStatus:
    """Compute the status of one store's trials."""
    prefix = f"{place}/" if place else ""
    # The receipt of an oracle is named by the first 16 digits of the key of its weights.
    weights = {name[:16] for name in store.folder.names(f"{prefix}weights") if name.endswith(".safetensors")}
    receipts = store.folder.names(f"{prefix}receipts")
    oracles = {name[len("oracle-") :].removesuffix(".json") for name in receipts if name.startswith("oracle-")}
    # as trial_files.list_trials: predictions, costs and measures of many models are no rows
    names = [name for name in store.folder.names(f"{prefix}trials") if name.endswith(".parquet")]
    files = [name for name in names if not name.endswith(("-said.parquet", "-cost.parquet"))]

    def read_status(name: str) -> str:
        path = f"{prefix}trials/{name}"
        try:
            with store.folder.open(path) as stream:
                table = open_parquet(stream).read(columns=["status"])
            if table.num_rows != 1 or table.column_names != ["status"]:
                raise CorruptFile("it is no row of a trial")
            status = str(table["status"][0].as_py())
        except (FileNotFoundError, StoreUnavailable):
            raise
        except (OSError, ValueError) as error:
            raise build_damage_error(store.folder, path, error) from error
        return status

    with ThreadPoolExecutor(THREADS) as pool:
        statuses = list(
            pool.map(lambda name: read_or_report(lambda: read_status(name), problems), files[:MAX_TRIALS_READ])
        )
    return TrialsStatus(
        place=place,
        originals=len(weights - oracles),
        oracles=len(weights & oracles),
        trials=len(files),
        read=len(statuses) - statuses.count(None),
        diverged=statuses.count("diverged"),
    )


@dataclass(frozen=True, kw_only=True)
class ArmPrecision:
    """Error of memorization of an arm: of which score, estimated how, and from which first models."""

    rmse: float | None
    score: str
    estimate: str
    first_models: int


UNKNOWN_PRECISION = ArmPrecision(rmse=None, score="", estimate="", first_models=0)


@dataclass(frozen=True, kw_only=True)
class ArmStatus:
    """Status of one arm.

    Attributes:
        name: of the arm.
        planned: models that the last command requested; None without a command, or if it requested an error.
        models: stored models.
        queries: augmentations of an image, itself included, on which each is evaluated.
        block: models per block.
        whole_blocks: blocks whose models are all stored.
        failed: models without a result, to be tried again.
        diverged: models that are never trained again.
        rmse: root mean square error of memorization with so many models; None where it is undefined.
        rmse_of: the score whose error that is, the blend where it is defined; empty where none is.
        rmse_estimate: how it was estimated, as precision.BETWEEN_BLOCKS; empty where none is.
        rmse_from: first models of the arm from which it was computed: all, as `estimate` does, or it is scaled to all.
    """

    name: str
    planned: int | None
    models: int
    queries: int = 1
    block: int
    whole_blocks: int
    failed: int
    diverged: int
    rmse: float | None
    rmse_of: str
    rmse_estimate: str
    rmse_from: int


@dataclass(frozen=True, kw_only=True)
class FailureGroup:
    """Models that failed in the same way.

    Attributes:
        kind: what ended them; diverged models are never trained again, all others are tried again by the next command.
        error: of the first; the others may differ in numbers.
        count: how many.
        models: the first few.
    """

    kind: str
    error: str
    count: int
    models: list[str]


@dataclass(frozen=True, kw_only=True)
class ScoreStatus:
    """One score: fresh if made from as many models as there are now, by today's estimator; None without an arm."""

    name: str
    models: int | None
    fresh: bool | None


@dataclass(frozen=True, kw_only=True)
class BankStatus:
    """Status of a bank at one moment.

    Attributes:
        store: its path or URL, without credentials.
        data: name of the data set.
        architecture: of its models.
        precision: of its models; empty if they were imported.
        arms: stored arms.
        originals: with stored weights.
        bytes: of all shards.
        rate_per_s: models per second, of the running driver, else between the last shards; None for fewer than 3.
        eta_s: seconds until the driver has trained all; None without a driver.
        last_s: seconds since the last shard; None without any.
        driver: the process that works on it.
        beat: heartbeat of the last run.
        failures: in groups, the largest first.
        unread: failures that were counted and not read.
        scores: stored scores.
        copies: counts of exact copies among the images, as count_copies gives them; None where they are unknown.
        unlearning: trials of this bank, then of its nested stores.
        problems: what could not be read, or belongs to nothing; each with what to do.
        total_bytes: of all files of the store.
        outlying_models: names of models far from the others when the bank was last scored -> in which measures.
        outputs_are: what the network returned instead of logits when the bank was last scored; None for logits.
        engines: what trained the models -> how many of those whose receipts were read.
    """

    store: str
    data: str
    architecture: str
    precision: str
    arms: list[ArmStatus]
    originals: int
    bytes: int
    rate_per_s: float | None
    eta_s: float | None
    last_s: float | None
    driver: Driver
    beat: Heartbeat | None
    failures: list[FailureGroup]
    unread: int
    scores: list[ScoreStatus]
    copies: dict[str, Any] | None
    unlearning: list[TrialsStatus]
    problems: list[str]
    outlying_models: dict[str, tuple[Deviation, ...]] = field(default_factory=dict)
    total_bytes: int = 0
    outputs_are: str | None = None
    engines: dict[str, int] = field(default_factory=dict)


def compute_bank_status(store: Store, precisions: PrecisionCache | None = None) -> BankStatus:
    """Compute the status of a bank; damaged files are among its problems. `precisions` caches what shards give."""
    problems: list[str] = []
    heartbeat = read_or_report(lambda: read_heartbeat(store.folder), problems)
    files = {info.base_name.removesuffix(".parquet"): info for info in list_files(store.folder, "shards")}
    records = {
        name: record
        for name in list_record_names(store.folder, "arms")
        if (record := read_or_report(lambda name=name: read_record(store.folder, f"arms/{name}.json"), problems))
    }
    failed_models = list_record_names(store.folder, "failures")
    failures = read_failures(store, failed_models[:MAX_FAILURES_READ], problems)
    diverged = {name for name, record in failures.items() if record["kind"] == "diverged"}
    arms = [
        compute_arm_status(store, record, [*files], failed_models, diverged, heartbeat, precisions, problems)
        for record in records.values()
    ]
    # Each shard belongs to one arm at most, so what no arm has counted is of none.
    n_unknown = len(files) - sum(arm.models for arm in arms)
    if n_unknown:
        problems.append(
            f"{format_count(n_unknown, 'shard')} of unknown arms; `python -m memscore.bank verify "
            f"{store.folder.display_name}`"
        )
    times = sorted(info.mtime_ns / 1e9 for info in files.values() if info.mtime_ns)
    # A driver with a heartbeat knows its rate; where none ever wrote one, the times of the last shards give it.
    driver, now = find_driver(store.folder, heartbeat), time.time()
    trials = list_trials_statuses(store, problems)
    is_running = heartbeat is not None and driver.state == "running"
    driver_rate_per_s = heartbeat.rate_per_s if heartbeat and is_running else None
    return BankStatus(
        store=store.folder.display_name,
        data=store.manifest.data,
        architecture=store.manifest.architecture,
        precision="" if store.manifest.imported else store.manifest.precision,
        arms=arms,
        originals=trials[0].originals,
        bytes=sum(info.size or 0 for info in files.values()),
        rate_per_s=driver_rate_per_s if heartbeat else compute_rate(times[-RATE_SHARDS:]),
        eta_s=heartbeat.eta_s if heartbeat and is_running else None,
        last_s=max(now - times[-1], 0) if times else None,
        driver=driver,
        beat=heartbeat,
        failures=group_failures(failures),
        unread=max(len(failed_models) - MAX_FAILURES_READ, 0),
        scores=[*compute_score_statuses(store, {arm.name: arm.models for arm in arms}, problems)],
        copies=read_or_report(lambda: read_copy_counts(store), problems),
        unlearning=trials,
        problems=problems,
        total_bytes=measure_folder(store.folder).bytes,
        outlying_models=read_or_report(lambda: read_outlying_models(store.folder), problems) or {},
        engines=read_or_report(lambda: count_engines(store.folder), problems) or {},
        outputs_are=read_or_report(lambda: read_record(store.folder, SUMMARY).get("outputs_are"), []),
    )


def compute_arm_status(
    store: Store,
    record: dict[str, Any],
    shards: list[str],
    failed_models: list[str],
    diverged: set[str],
    heartbeat: Heartbeat | None,
    precisions: PrecisionCache | None,
    problems: list[str],
) -> ArmStatus:
    """Compute the status of one arm from its record and the names of shards and failures."""
    name, block = record["name"], record["block"]
    models = sorted(index for shard in shards if (index := parse_model_index(shard, name)) is not None)
    failed_of_arm = [model for model in failed_models if parse_model_index(model, name) is not None]
    models_in_block: dict[int, int] = {}
    for index in models:
        models_in_block[index // block] = models_in_block.get(index // block, 0) + 1
    precision = compute_precision(store, record, models, {} if precisions is None else precisions, problems)
    return ArmStatus(
        name=name,
        planned=heartbeat.planned.get(name) if heartbeat else None,
        models=len(models),
        queries=record.get("queries", 1),
        block=block,
        whole_blocks=sum(n_models == block for n_models in models_in_block.values()),
        failed=sum(model not in diverged for model in failed_of_arm),
        diverged=sum(model in diverged for model in failed_of_arm),
        rmse=precision.rmse,
        rmse_of=precision.score,
        rmse_estimate=precision.estimate,
        rmse_from=precision.first_models,
    )


def compute_precision(
    store: Store, record: dict[str, Any], models: list[int], precisions: PrecisionCache, problems: list[str]
) -> ArmPrecision:
    """Compute the error of memorization from the first models of an arm; undefined where no example has two a side."""
    if not models:
        return UNKNOWN_PRECISION
    from memscore.pipeline.map_reduce import MIN_PARALLEL_CELLS
    from memscore.pipeline.precision import (  # imports SciPy: half of the time of the whole command
        count_first_models,
        measure_precision,
    )
    from memscore.subsets.designs import parse_arm_record

    arm = parse_arm_record(record)
    # The error of a whole bank would take all its shards: a few first models give the variance, which is scaled.
    first_models = [index for index in models if index < count_first_models(arm)]
    key = (arm.name, len(first_models))
    if first_models and key not in precisions:
        # the blend of very many examples would take a minute
        with_blend = len(first_models) * store.manifest.split_sizes[0] < MIN_PARALLEL_CELLS
        measured = read_or_report(lambda: measure_precision(store, arm, first_models, with_blend=with_blend), problems)
        if measured is None:
            return UNKNOWN_PRECISION
        precisions[key] = measured
    measured = precisions.get(key)
    if measured is None or measured.rmse != measured.rmse:  # NaN: no example has two models on each side yet
        return UNKNOWN_PRECISION
    return ArmPrecision(
        rmse=measured.predict_rmse(arm.keep, len(models)),
        score=measured.score,
        estimate=measured.estimate,
        first_models=len(first_models),
    )


def read_failures(store: Store, names: list[str], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Read the failure record of each model; records that cannot be read are left out."""

    def read(name: str) -> Any:
        return read_or_report(lambda: read_record(store.folder, f"failures/{name}.json"), problems)

    with ThreadPoolExecutor(THREADS) as pool:
        records = dict(zip(names, pool.map(read, names), strict=True))
    return {name: record for name, record in records.items() if record}


def group_failures(failures: dict[str, dict[str, Any]]) -> list[FailureGroup]:
    """Group failures by kind and message without numbers, the largest group first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, record in failures.items():
        groups.setdefault((record["kind"], re.sub(r"\d+", "#", record["error"])), []).append(name)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [
        FailureGroup(kind=kind, error=failures[names[0]]["error"], count=len(names), models=names[:MODELS_NAMED])
        for (kind, _), names in ordered
    ]


def compute_rate(times: list[float]) -> float | None:
    """Compute files per second from ascending times; None for fewer than three."""
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 2 and times[-1] > times[0] else None


def compute_score_statuses(store: Store, models: dict[str, int], problems: list[str]) -> Iterator[ScoreStatus]:
    """Compare the models in each score's footer with the models that its arm has now."""

    def read_footer(name: str) -> Any:
        path = f"scores/{name}"
        try:
            with store.folder.open(path) as stream:
                file = open_parquet(stream)
                schema, n_rows = file.schema_arrow, file.metadata.num_rows
            if fault := find_footer_fault(path, schema, n_rows, store.manifest):
                raise CorruptFile(fault)
            return decode_metadata(schema)
        except (FileNotFoundError, StoreUnavailable):
            raise
        except (OSError, ValueError) as error:
            raise build_damage_error(store.folder, path, error) from error

    names = [name for name in store.folder.names("scores") if name.endswith(".parquet")]
    with ThreadPoolExecutor(THREADS) as pool:
        footers = list(pool.map(lambda name: read_or_report(lambda: read_footer(name), problems), names))
    stored_scores = {
        name.removesuffix(".parquet"): facts for name, facts in zip(names, footers, strict=True) if facts is not None
    }
    n_models = {name: int(facts["models"]) for name, facts in stored_scores.items() if "models" in facts}
    fresh: dict[str, bool | None] = {
        name: n_models[name] == models.get(facts["arm"]) and not has_other_version(facts, get_estimator_version(name))
        for name, facts in stored_scores.items()
        if "arm" in facts and name in n_models
    }
    parts = [is_fresh for name, is_fresh in fresh.items() if name.startswith("cscore_")]
    # The grid's score has no arm of its own: it is as fresh as the scores of the fractions that it was summed from.
    if "cscore" in stored_scores:
        fresh["cscore"] = all(parts)
    for name in stored_scores:
        yield ScoreStatus(name=name, models=n_models.get(name), fresh=fresh.get(name))
