"""Every file of a store against the hashes that stand in it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from memscore.parquet import Damaged, check_content
from memscore.records import parse
from memscore.shards import model_index
from memscore.store import Store
from memscore.weight_files import check_weights

KINDS = ("", "arms", "shards", "events", "receipts", "failures", "weights", "outputs", "scores", "influence", "trials")
THREADS = 4
NO_ARM = "a shard of no arm on file; it stays, and the estimate that made it puts its arm back"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of reading every file.

    Attributes:
        verified: how many files hold what was written.
        damaged: path of a file that does not -> what is wrong, and where.
    """

    verified: int
    damaged: dict[str, str]


def verify(store: Store) -> Verdict:
    """Read every byte of the store and compare each file with its hashes.

    Parquet: the seal over the file, the checksum of each page, the hash over the values, and for shards the arm and
    model that they say they are of. Weights: the hash over the tensors. JSON: its own hash, or that it can be read.

    Args:
        store: open; nothing in it is changed.

    Returns:
        The count of good files, and the bad ones by path.
    """
    checks = dict(_checks(store))
    with ThreadPoolExecutor(THREADS) as pool:
        reasons = dict(zip(checks, pool.map(_reason, checks.values()), strict=True))
    damaged = {path: reason for path, reason in reasons.items() if reason}
    damaged |= {path: reason for path, reason in _strangers(store, set(damaged)).items() if path not in damaged}
    return Verdict(verified=len(checks) - len(damaged), damaged=damaged)


def move_aside(store: Store, verdict: Verdict) -> dict[str, str]:
    """Move damaged files to the folder damaged/, so that the command that wrote them makes them again.

    Args:
        store: open; the caller holds its lock.
        verdict: of verify.

    Returns:
        Where each was -> where it is; shards whose arm is not on file stay.
    """
    return {path: store.set_aside(path) for path, reason in verdict.damaged.items() if reason != NO_ARM}


def _checks(store: Store) -> Iterator[tuple[str, Callable[[], None]]]:
    """Path of each file, and the call that raises Damaged if it is."""
    by_ending = {".parquet": check_content, ".safetensors": check_weights, ".json": _check_json}
    for kind in KINDS:
        for name in store.folder.names(kind):
            path = f"{kind}/{name}".lstrip("/")
            check = by_ending.get("." + name.rpartition(".")[2])
            if check:
                yield path, partial(_read_and_check, store, path, check)


def _read_and_check(store: Store, path: str, check: Callable[[bytes], None]) -> None:
    """One file, one check."""
    check(store.folder.read(path))


def _check_json(content: bytes) -> None:
    """A record must be a JSON object, and give the hash that stands in it."""
    try:
        parse(content, must_be_sealed=True)
    except ValueError as error:
        raise Damaged(str(error)) from None


def _reason(check: Callable[[], None]) -> str:
    """What a check found; empty if nothing."""
    try:
        check()
    except FileNotFoundError:  # a driver at work cleared it
        return ""
    except (OSError, ValueError, pa.ArrowException) as error:
        return str(error)
    return ""


def _strangers(store: Store, damaged: set[str]) -> dict[str, str]:
    """Whole shards that are of no arm on file, or of another run; those of a damaged arm are given the benefit."""
    arms = [name.removesuffix(".json") for name in store.folder.names("arms")]
    strangers: dict[str, str] = {}
    for arm in arms:
        if f"arms/{arm}.json" not in damaged:
            strangers |= store.check(arm, verify=False).damaged
    for name in store.folder.names("shards"):
        if all(model_index(name.removesuffix(".parquet"), arm) is None for arm in arms):
            strangers[f"shards/{name}"] = NO_ARM
    return strangers
