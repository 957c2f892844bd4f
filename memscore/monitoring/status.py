"""How a bank stands, from its files alone: what is there, what failed, how precise it is, and who works on it.

Nothing is written, no shard is hashed, and neither Ray nor torch is imported, so it may be asked of a store at any
time: being written, read-only, damaged, on an object store. It costs a listing of the shards, the records of arms and
failures, the footers of the scores, at most 500 trials, and, for the precision, two columns of each arm's first models.

Looking at a store that may be damaged, or written to meanwhile, without stumbling.

Where a user's stores lie, and which was worked on last.

How far unlearning has come on a bank, from names of files: oracles, trials, and those that diverged.
"""

import os
import re
import time
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from memscore.monitoring.heartbeat import HEARTBEAT_PATH, Driver, Heartbeat, find_driver, read_heartbeat
from memscore.store.filesystem import TEMPORARY_NAME, Folder
from memscore.store.json_records import read_record
from memscore.store.parquet import CorruptFile, decode_metadata, open_parquet
from memscore.store.remote import StoreUnavailable, retry
from memscore.store.shards import parse_model_index
from memscore.store.store import Store


def read_or_report(read: Any, problems: list[str]) -> Any:
    """What read gives; None, and a word among the problems, where the file is damaged, or gone since it was listed."""
    try:
        return read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problems.append(" ".join(str(error).split()))
        return None


def listed(folder: Folder, kind: str) -> list[Any]:
    """Finished files of one sub-folder with size and time, in one listing."""
    return [info for info in folder.entries(kind) if not TEMPORARY_NAME.fullmatch(info.base_name)]


def names_of(folder: Folder, kind: str) -> list[str]:
    """Names of records of one kind, without their ending, sorted."""
    return [name.removesuffix(".json") for name in folder.names(kind) if name.endswith(".json")]


def get_home_url() -> str:
    """The folder or URL of a user's stores: $MEMSCORE_HOME, else ~/memscore."""
    return os.environ.get("MEMSCORE_HOME") or os.path.expanduser("~/memscore")


def find_latest_store() -> str:
    """The store whose record or manifest is the youngest.

    Returns:
        Its path or URL.

    Raises:
        FileNotFoundError: there is none.
    """
    home = Folder.from_url(get_home_url())
    selector = fs.FileSelector(home.path(""), allow_not_found=True)
    found = retry(lambda: home.filesystem.get_file_info(selector), home.display_name, 0.0, read=True)
    names = [entry.base_name for entry in found if entry.type == fs.FileType.Directory]
    marks = [f"{name}/{mark}" for name in names for mark in ("manifest.json", HEARTBEAT_PATH)]
    paths = [home.path(mark) for mark in marks]
    infos = retry(lambda: home.filesystem.get_file_info(paths), home.display_name, 0.0, read=True) if paths else []
    times = {mark: info.mtime_ns or 0 for mark, info in zip(marks, infos, strict=True) if info.is_file}
    if not times:
        raise FileNotFoundError(
            f"no store in {home.display_name}; name one, or begin one with `python -m memscore.estimate`"
        )
    name = max(times, key=lambda mark: times[mark]).partition("/")[0]
    base, _, options = home.url.partition("?")
    return f"{base.rstrip('/')}/{name}" + (f"?{options}" if options else "")


TRIALS_READ = 500  # trials whose status is read; more are counted
THREADS = 8


@dataclass(frozen=True, kw_only=True)
class TrialsStatus:
    """What unlearning has left in a bank, or in a store within it, where a forget set changed the data.

    Attributes:
        place: of the store within; "" for the bank itself.
        originals: whose weights are on file.
        oracles: the same.
        trials: rows on file.
        read: how many of them were looked into.
        diverged: of these.
    """

    place: str
    originals: int
    oracles: int
    trials: int
    read: int
    diverged: int


def trials_of(store: Store, problems: list[str]) -> list[TrialsStatus]:
    """Look at a bank and at the stores within it.

    Args:
        store: open.
        problems: gets a line for each trial that cannot be read.

    Returns:
        The bank first.
    """
    return [one_of(store, place, problems) for place in ("", *store.scenarios())]


def one_of(store: Store, place: str, problems: list[str]) -> TrialsStatus:
    """Of one store: an oracle's weights are those whose key begins as its receipt is called."""
    inside = f"{place}/" if place else ""
    weights = {name[:16] for name in store.folder.names(f"{inside}weights") if name.endswith(".safetensors")}
    receipts = store.folder.names(f"{inside}receipts")
    oracles = {name[len("oracle-") :].removesuffix(".json") for name in receipts if name.startswith("oracle-")}
    files = [name for name in store.folder.names(f"{inside}trials") if not name.endswith("-said.parquet")]

    def status(name: str) -> str:
        path = f"{inside}trials/{name}"
        try:
            with store.folder.open(path) as stream:
                said: str = open_parquet(stream).read(columns=["status"])["status"][0].as_py()
        except (FileNotFoundError, StoreUnavailable):
            raise
        except (OSError, ValueError) as error:
            command = f"`python -m memscore.bank verify {store.folder.display_name} --set-aside`"
            way_out = f"{command}, and the next trial makes it again"
            raise CorruptFile(f"{store.folder.display_path(path)} is damaged: {error}; {way_out}") from error
        return said

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda name: read_or_report(lambda: status(name), problems), files[:TRIALS_READ]))
    return TrialsStatus(
        place=place,
        originals=len(weights - oracles),
        oracles=len(weights & oracles),
        trials=len(files),
        read=len(found) - found.count(None),
        diverged=found.count("diverged"),
    )


LAST = 64  # shards whose times give the rate where no driver tells one
FAILURES_READ = 500  # failures that are read; more are counted
NAMED = 3  # models that a group of failures names

VarianceCache = MutableMapping[tuple[str, int], Any]
"""Arm and how many of its first models were read -> their Spread and RMSE; they never change, so it may be kept."""


@dataclass(frozen=True, kw_only=True)
class ArmStatus:
    """One arm.

    Attributes:
        name: of the arm.
        planned: models that the last command asked for; None if none did, or it asked for a precision.
        models: on file.
        block: models a block.
        whole_blocks: blocks all of whose models are on file.
        failed: models without a result, to be tried again.
        diverged: models that never will have one.
        rmse: root mean square error of memorization with so many models; None where nothing says.
        rmse_from: first models of the arm that it was computed from: all, as `estimate` does, or it is scaled to all.
    """

    name: str
    planned: int | None
    models: int
    block: int
    whole_blocks: int
    failed: int
    diverged: int
    rmse: float | None
    rmse_from: int


@dataclass(frozen=True, kw_only=True)
class FailureGroup:
    """Models that failed alike.

    Attributes:
        kind: what ended them; diverged is a tombstone, all others are tried again by the next command.
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
    """One score: fresh is made from as many models as there are, stale from fewer; None where it is of no arm."""

    name: str
    models: int | None
    fresh: bool | None


@dataclass(frozen=True, kw_only=True)
class BankStatus:
    """A bank at one moment.

    Attributes:
        store: where, without credentials.
        data: name of the data set.
        architecture: of its models.
        arms: on file.
        originals: whose weights are on file.
        bytes: of all shards.
        rate_per_s: models a second: of the driver where one works, else between the last shards; None of fewer than 3.
        eta_s: seconds until the driver has trained all; None without a driver.
        last_s: seconds since the last shard; None without any.
        driver: who works on it.
        beat: what the last run said of itself.
        failures: in groups, the largest first.
        unread: failures that were counted and not read.
        scores: on file.
        unlearning: what trials left in this bank, then in the stores within it.
        problems: what could not be read, or belongs nowhere; each says what to do.
    """

    store: str
    data: str
    architecture: str
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
    unlearning: list[TrialsStatus]
    problems: list[str]


def compute_bank_status(store: Store, spreads: VarianceCache | None = None) -> BankStatus:
    """Look at a bank.

    Args:
        store: open.
        spreads: what an earlier look kept, so that a second one reads no shard again.

    Returns:
        How it stands. What is damaged is named among the problems and left out of the rest.
    """
    problems: list[str] = []
    beat = read_or_report(lambda: read_heartbeat(store.folder), problems)
    files = {info.base_name.removesuffix(".parquet"): info for info in listed(store.folder, "shards")}
    records = {
        name: record
        for name in names_of(store.folder, "arms")
        if (record := read_or_report(lambda name=name: read_record(store.folder, f"arms/{name}.json"), problems))
    }
    failed = names_of(store.folder, "failures")
    why = failures_of(store, failed[:FAILURES_READ], problems)
    gone = {name for name, record in why.items() if record["kind"] == "diverged"}
    arms = [
        arm_condition(store, record, [*files], failed, gone, beat, spreads, problems) for record in records.values()
    ]
    homeless = len(files) - sum(arm.models for arm in arms)
    if homeless:
        problems.append(
            f"{homeless} shards of no arm on file; `python -m memscore.bank verify {store.folder.display_name}`"
        )
    times = sorted(info.mtime_ns / 1e9 for info in files.values() if info.mtime_ns)
    driver, now = find_driver(store.folder, beat), time.time()
    unlearning = trials_of(store, problems)
    at_work = beat is not None and driver.state == "running"
    return BankStatus(
        store=store.folder.display_name,
        data=store.manifest.data,
        architecture=store.manifest.architecture,
        arms=arms,
        originals=unlearning[0].originals,
        bytes=sum(info.size or 0 for info in files.values()),
        rate_per_s=beat.rate_per_s if beat and at_work else None if beat else compute_rate(times[-LAST:]),
        eta_s=beat.eta_s if beat and at_work else None,
        last_s=max(now - times[-1], 0) if times else None,
        driver=driver,
        beat=beat,
        failures=grouped(why),
        unread=max(len(failed) - FAILURES_READ, 0),
        scores=[*scores_of(store, {arm.name: arm.models for arm in arms}, problems)],
        unlearning=unlearning,
        problems=problems,
    )


def arm_condition(
    store: Store,
    record: dict[str, Any],
    shards: list[str],
    failed: list[str],
    gone: set[str],
    beat: Heartbeat | None,
    spreads: VarianceCache | None,
    problems: list[str],
) -> ArmStatus:
    """One arm, from its record and the names of shards and failures."""
    name, block = record["name"], record["block"]
    models = sorted(index for shard in shards if (index := parse_model_index(shard, name)) is not None)
    lost = [model for model in failed if parse_model_index(model, name) is not None]
    in_block: dict[int, int] = {}
    for index in models:
        in_block[index // block] = in_block.get(index // block, 0) + 1
    rmse, rmse_from = precision(store, record, models, {} if spreads is None else spreads, problems)
    return ArmStatus(
        name=name,
        planned=beat.planned.get(name) if beat else None,
        models=len(models),
        block=block,
        whole_blocks=sum(many == block for many in in_block.values()),
        failed=sum(model not in gone for model in lost),
        diverged=sum(model in gone for model in lost),
        rmse=rmse,
        rmse_from=rmse_from,
    )


def precision(
    store: Store, record: dict[str, Any], models: list[int], spreads: VarianceCache, problems: list[str]
) -> tuple[float | None, int]:
    """The error of memorization with so many models, and how many first ones said so."""
    if not models:
        return None, 0
    from memscore.pipeline.precision import (  # SciPy comes with it: half of the time of the whole command
        compute_outcome_variance,
        compute_rmse_from_counts,
        count_first_models,
        read_membership_counts,
    )
    from memscore.subsets.designs import parse_arm_record

    arm = parse_arm_record(record)
    first = [index for index in models if index < count_first_models(arm)]
    key = (arm.name, len(first))
    if first and key not in spreads:
        tally = read_or_report(lambda: read_membership_counts(store, arm, first), problems)
        if tally is None:
            return None, 0
        spreads[key] = compute_outcome_variance(*tally), compute_rmse_from_counts(tally)
    spread, measured = spreads.get(key, (None, float("nan")))
    if measured != measured:  # NaN: no example has two models on each side yet
        return None, 0
    return measured if first == models else spread.rmse(arm.keep, len(models)), len(first)


def failures_of(store: Store, names: list[str], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Each failure by its model, those left out that cannot be read."""

    def one(name: str) -> Any:
        return read_or_report(lambda: read_record(store.folder, f"failures/{name}.json"), problems)

    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(names, pool.map(one, names), strict=True))
    return {name: record for name, record in found.items() if record}


def grouped(failures: dict[str, dict[str, Any]]) -> list[FailureGroup]:
    """Failures whose kind and message are the same but for numbers, the largest group first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, record in failures.items():
        groups.setdefault((record["kind"], re.sub(r"\d+", "#", record["error"])), []).append(name)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [
        FailureGroup(kind=kind, error=failures[names[0]]["error"], count=len(names), models=names[:NAMED])
        for (kind, _), names in ordered
    ]


def compute_rate(times: list[float]) -> float | None:
    """Files a second between the first and the last of rising times; None of fewer than three."""
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 2 and times[-1] > times[0] else None


def scores_of(store: Store, models: dict[str, int], problems: list[str]) -> Iterator[ScoreStatus]:
    """Each score, and whether it was made from as many models as its arm has now; its footer says from how many."""

    def footer(name: str) -> Any:
        with store.folder.open(f"scores/{name}") as stream:
            return decode_metadata(open_parquet(stream).schema_arrow)

    names = [name for name in store.folder.names("scores") if name.endswith(".parquet")]
    with ThreadPoolExecutor(THREADS) as pool:
        said = list(pool.map(lambda name: read_or_report(lambda: footer(name), problems), names))
    known = {name.removesuffix(".parquet"): facts for name, facts in zip(names, said, strict=True) if facts is not None}
    many = {name: int(facts["models"]) for name, facts in known.items() if "models" in facts}
    fresh: dict[str, bool | None] = {
        name: many[name] == models.get(facts["arm"]) for name, facts in known.items() if "arm" in facts and name in many
    }
    parts = [new for name, new in fresh.items() if name.startswith("cscore_")]
    if "cscore" in known:  # over the fractions of several arms
        fresh["cscore"] = all(parts)
    for name in known:
        yield ScoreStatus(name=name, models=many.get(name), fresh=fresh.get(name))
