"""Every file of a store against the hashes that stand in it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from memscore.absence import absent, outdated
from memscore.parquet import Damaged, check_content
from memscore.patience import Unreached
from memscore.records import parse
from memscore.shards import model_index
from memscore.store import Store
from memscore.weight_files import check_weights

KINDS = (
    *("", "arms", "shards", "events", "receipts", "failures", "weights", "outputs", "scores", "influence", "trials"),
    "reports",
)
DEEP = ("attempts", "experiments", "sweeps")
"""Folders of folders."""
THREADS = 4
NO_ARM = "a shard of no arm on file; it stays, and the estimate that made it puts its arm back"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of reading every file.

    Attributes:
        verified: how many files hold what was written.
        damaged: path of a file that does not -> what is wrong, and where.
        missing: path of a file that is not there, though others say it should be -> what to do.
        old: path of a table made from other files than are there now -> what to do.
        stays: those of the damaged that are whole, shards of no arm on file, and so are not to be moved.
    """

    verified: int
    damaged: dict[str, str]
    missing: dict[str, str]
    old: dict[str, str]
    stays: frozenset[str]


def verify(store: Store) -> Verdict:
    """Read every byte of the store and compare each file with its hashes.

    Parquet: the seal over the file, the checksum of each page, the hash over the values, and for shards the arm and
    model that they say they are of. Weights: the hash over the tensors. JSON: its own hash. Pictures are not read.

    Args:
        store: open; nothing in it is changed.

    Returns:
        The count of good files, and by path the bad ones, those that are missing and those of an earlier time.
    """
    checks = dict(_checks(store))
    with ThreadPoolExecutor(THREADS) as pool:
        reasons = dict(zip(checks, pool.map(_reason, checks.values()), strict=True))
    damaged = {path: reason for path, reason in reasons.items() if reason}
    elsewhere, homeless = _strangers(store, set(damaged))
    homeless -= set(damaged)
    damaged |= {path: reason for path, reason in elsewhere.items() if path not in damaged}
    damaged |= dict.fromkeys(sorted(homeless), NO_ARM)
    own = Verdict(
        verified=len(checks) - len(damaged),
        damaged=damaged,
        missing=absent(store, damaged),
        old=outdated(store, damaged),
        stays=frozenset(homeless),
    )
    return with_all(own, {path: verify(Store.open(f"{store.url}/{path}")) for path in store.scenarios()})


def with_all(own: Verdict, inner: dict[str, Verdict]) -> Verdict:
    """The verdict on a store and on the stores within it, whose files are called by their path in the outer one."""
    return Verdict(
        verified=own.verified + sum(verdict.verified for verdict in inner.values()),
        damaged=own.damaged | {f"{at}/{path}": why for at, v in inner.items() for path, why in v.damaged.items()},
        missing=own.missing | {f"{at}/{path}": why for at, v in inner.items() for path, why in v.missing.items()},
        old=own.old | {f"{at}/{path}": why for at, v in inner.items() for path, why in v.old.items()},
        stays=own.stays | {f"{at}/{path}" for at, v in inner.items() for path in v.stays},
    )


def move_aside(store: Store, verdict: Verdict) -> dict[str, str]:
    """Move damaged files to the folder damaged/, so that the command that wrote them makes them again.

    Args:
        store: open; the caller holds its lock.
        verdict: of verify.

    Returns:
        Where each was -> where it is; whole shards whose arm is not on file stay.
    """
    return {path: store.set_aside(path) for path in verdict.damaged if path not in verdict.stays}


def _checks(store: Store) -> Iterator[tuple[str, Callable[[], None]]]:
    """Path of each file, and the call that raises Damaged if it is."""
    by_ending = {".parquet": check_content, ".safetensors": check_weights, ".json": _check_json}
    deep = [f"{kind}/{inner}" for kind in DEEP for inner in store.folder.folders(kind)]
    for kind in (*KINDS, *deep):
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
    except Unreached:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        return str(error)
    return ""


def _strangers(store: Store, damaged: set[str]) -> tuple[dict[str, str], set[str]]:
    """Shards that are of another run, with the reason, and those of no arm on file; a damaged arm's are neither."""
    arms = [name.removesuffix(".json") for name in store.folder.names("arms")]
    others: dict[str, str] = {}
    for arm in arms:
        if f"arms/{arm}.json" not in damaged:
            others |= store.check(arm, verify=False).damaged
    models = {f"shards/{name}": name.removesuffix(".parquet") for name in store.folder.names("shards")}
    return others, {path for path, m in models.items() if all(model_index(m, arm) is None for arm in arms)}
