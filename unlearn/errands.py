"""Hunts in the hands of a search: which attempts are missing, and what comes of them.

`random` and `grid` learn nothing from what they find, so that what they will try is known before anything is tried. A
hunt is then of exactly those values, whatever else lies on file: a sweep gives what it gives after any other, and its
contenders all choose among equally many. `tpe` learns, and goes on from all that is on file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from memscore.pipeline.train_bank import Progress
from memscore.store.json_records import sha256_of
from memscore.store.store import Store
from unlearn.hunting import OBJECTIVE, Found, Hunt, Values, attempt, distinct, on_file
from unlearn.oracles import Bench
from unlearn.search_space import Choice, Log, Space, Whole

Sampler = Literal["tpe", "random", "grid"]


class Search(Protocol):
    """What looks for parameters; see cluster/search.py."""

    def search(
        self,
        fn: Callable[[Any, Values, Any], Found],
        arms: Sequence[Any],
        shared: Any,
        told: Callable[[Any, Values, Any], None],
        *,
        sampler: Sampler,
        seed: int,
    ) -> None:
        """Call fn(arm.job, values, shared) for values of each arm's space, and tell of each result."""

    def draws(self, arm: Any, *, sampler: Literal["random", "grid"], seed: int) -> list[Values]:
        """All values that will be tried, of a sampler that does not learn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Errand:
    """One hunt as a search is told of it.

    Attributes:
        name: for its lines.
        key: the hunt's name.
        space: name -> domain in words.
        budget: attempts in all, with those that are known.
        job: the hunt.
        first: values that are tried before any is drawn.
        known: values and objective of attempts on file.
    """

    name: str
    key: str
    space: dict[str, tuple[Any, ...]]
    budget: int
    job: Hunt
    first: Sequence[Values]
    known: Sequence[tuple[Values, float]]


def hunted(
    store: Store,
    hunts: Mapping[str, Hunt],
    budget: int,
    search: Search,
    bench: Bench,
    sampler: Sampler,
    seed: int,
    progress: Progress,
) -> tuple[dict[str, list[Found]], list[str]]:
    """The attempts of each hunt, those on file and those that are made now.

    Args:
        store: open.
        hunts: by their name.
        budget: attempts at each, those on file included; one where nothing is sought, fewer where a space has fewer.
        search: makes them.
        bench: the data.
        sampler: how values are drawn.
        seed: of the draws.
        progress: told of each.

    Returns:
        Hunt's name -> attempts, in the order of their draws, or in one that does not depend on when each was made; and
        a line for each attempt that failed.
    """
    trials = set(store.trials())
    found = {name: distinct(on_file(store, hunt, trials)) for name, hunt in hunts.items()}
    errands = [errand(hunt, name, budget, found[name]) for name, hunt in hunts.items()]
    drawn: dict[str, Sequence[Values]] = {}
    if sampler != "tpe":
        errands = [foreseen(one, search.draws(one, sampler=sampler, seed=seed)) for one in errands]
        known = {one.key: {sha256_of(values) for values, _ in one.known} for one in errands}
        found = {name: [one for one in own if sha256_of(one["values"]) in known[name]] for name, own in found.items()}
        drawn = {one.key: one.first for one in errands}
        sampler = "random"  # a grid's points are all in `first`
    errands = [one for one in errands if len(one.known) < one.budget]
    total, done, failed = sum(one.budget - len(one.known) for one in errands), 0, []

    def told(one: Errand, values: Values, result: Any) -> None:
        nonlocal done
        done += 1
        if isinstance(result, dict):
            found[one.key].append({"values": values, **result})
            said = f"tow {result['tow']:.3f}" + f", {result['diverged']} diverged" * bool(result["diverged"])
        else:
            said = f"failed: {result.error}"
            failed.append(f"{one.name} {in_a_line(values)} failed: {result.error}")
        progress(done, total, f"{one.name} {in_a_line(values)}: {said}")

    if errands:
        search.search(attempt, errands, bench, told, sampler=sampler, seed=seed)
    return {name: distinct(attempts, drawn.get(name, ())) for name, attempts in found.items()}, failed


def errand(hunt: Hunt, key: str, budget: int, known: Sequence[Found]) -> Errand:
    """A hunt as a search is told of it."""
    first, space = hunt.trials[0], hunt.space
    return Errand(
        name=f"{'>'.join(step.algorithm for step in first.steps)} {key[:6]}",  # draws depend on it
        key=key,
        space=domains(space),
        budget=budget if space else 1,
        job=hunt,
        first=[hunt.defaults],
        known=[(one["values"], one[OBJECTIVE[hunt.guide]]) for one in known],
    )


def foreseen(one: Errand, values: Sequence[Values]) -> Errand:
    """The same with nothing left to draw.

    Args:
        one: the errand.
        values: all that is to be tried.

    Returns:
        It, with these first, as many as its budget, and only those of them known that are on file.
    """
    wanted = {sha256_of(own) for own in values}
    known = [(own, objective) for own, objective in one.known if sha256_of(own) in wanted]
    return replace(one, first=values, known=known, budget=len(values))


def domains(space: dict[str, Space]) -> dict[str, tuple[Any, ...]]:
    """A space in words that a search library's wrapper reads."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, one in space.items():
        if isinstance(one, Choice):
            found[name] = ("choice", one.values)
        else:
            kind = "log" if isinstance(one, Log) else "whole" if isinstance(one, Whole) else "uniform"
            found[name] = (kind, one.low, one.high)
    return found


def in_a_line(values: Values) -> str:
    """Values in a line."""
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )
