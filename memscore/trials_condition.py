"""How far unlearning has come on a bank, from names of files: oracles, trials, and those that diverged."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from memscore.glance import readable
from memscore.store.parquet import Damaged, reader
from memscore.store.remote import Unreached
from memscore.store.store import Store

READ = 500  # trials whose status is read; more are counted
THREADS = 8


@dataclass(frozen=True, kw_only=True)
class TrialsCondition:
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


def trials_of(store: Store, problems: list[str]) -> list[TrialsCondition]:
    """Look at a bank and at the stores within it.

    Args:
        store: open.
        problems: gets a line for each trial that cannot be read.

    Returns:
        The bank first.
    """
    return [one_of(store, place, problems) for place in ("", *store.scenarios())]


def one_of(store: Store, place: str, problems: list[str]) -> TrialsCondition:
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
                said: str = reader(stream).read(columns=["status"])["status"][0].as_py()
        except (FileNotFoundError, Unreached):
            raise
        except (OSError, ValueError) as error:
            way_out = (
                f"`python -m memscore.bank verify {store.folder.shown} --set-aside`, and the next trial makes it again"
            )
            raise Damaged(f"{store.folder.shown_path(path)} is damaged: {error}; {way_out}") from error
        return said

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda name: readable(lambda: status(name), problems), files[:READ]))
    return TrialsCondition(
        place=place,
        originals=len(weights - oracles),
        oracles=len(weights & oracles),
        trials=len(files),
        read=len(found) - found.count(None),
        diverged=found.count("diverged"),
    )
