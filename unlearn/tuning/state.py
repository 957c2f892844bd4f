"""How a sweep is done, how far each contender has come, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from unlearn.forget_sets import ForgetSet
from unlearn.trials.config import Params, Row
from unlearn.trials.setup import MAX_COUNT
from unlearn.tuning.methods import Method
from unlearn.tuning.search import SELECTIONS, ConfigResult, Sampler, Selection


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """How a sweep is done.

    Attributes:
        budget: attempts at each place of a plan; the defaults are the first.
        tune_forget: the forget set that parameters are tuned on, in words; "" for another one of the same kind.
        tune: originals that parameters are tuned on, 0 to tune - 1 ...
        seeds: ... and judged on, those that follow; twice as many where labels are drawn at random.
        sampler: see hunting.
        select: the selections that are made.
        measures: beyond the core ones, of the judged trials.
        seed: of forget sets, shuffles, samplers and the algorithms' chance.
        dynamics: whether the judged sequences are measured after each of their steps.
    """

    budget: int = 10
    tune_forget: str = ""
    tune: int = 2
    seeds: int = 3
    sampler: Sampler = "random"
    select: tuple[Selection, ...] = SELECTIONS
    measures: tuple[str, ...] = ()
    seed: int = 0
    dynamics: bool = False

    def __post_init__(self) -> None:
        rules = (("--budget", self.budget), ("--tune-seeds", self.tune), ("--seeds", self.seeds))
        for flag, value in rules:
            if value < 1:
                raise ValueError(f"{flag} {value}: a sweep needs 1 or more")
            if value > MAX_COUNT:
                raise ValueError(
                    f"{flag} {value}: a sweep takes {MAX_COUNT} or fewer; a larger number is rather mistyped than meant"
                )


@dataclass(kw_only=True)
class MethodProgress:
    """How far a contender has come under one selection.

    Attributes:
        contender: whose.
        select: by which selection.
        steps: algorithm and parameters of each level that is chosen.
        found: the chosen attempt of each level.
        hunts: the attempts that it chose among: level from 0, algorithm, attempts.
        boundary: chosen values that lie at an end of their space, as step.algorithm.name.
        over: why it ended early; "" where it did not.
    """

    contender: Method
    select: Selection
    steps: list[tuple[str, Params]] = field(default_factory=list)
    found: list[ConfigResult] = field(default_factory=list)
    hunts: list[tuple[int, str, list[ConfigResult]]] = field(default_factory=list)
    boundary: list[str] = field(default_factory=list)
    over: str = ""

    @property
    def spent(self) -> dict[str, float]:
        """Attempts, runs of algorithms, and their seconds, of all hunts that it took part in."""
        every = [one for _, _, found in self.hunts for one in found]
        return {
            "attempts": len(every),
            "runs": sum(len(one["trials"]) for one in every),
            "tuning_s": float(sum(one["wall_s"] for one in every)),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepResult:
    """What came of a sweep.

    Attributes:
        paths: a path for each contender and selection.
        tried: rows of all tuning trials, with the contender, level and attempt that each belongs to.
        judged: rows of the judged trials: of every path, of the oracle and of the original, with whose each is.
        failed: a line for each trial without a row.
        tuned_on: the forget set that parameters were chosen on.
        judged_on: the one that is reported.
        notes: what a reader must know of the words that it was asked for in.
    """

    paths: list[MethodProgress]
    tried: list[Row]
    judged: list[Row]
    failed: list[str]
    tuned_on: ForgetSet
    judged_on: ForgetSet
    notes: tuple[str, ...] = ()


def explain_no_choice(step: int, hunts: Sequence[Sequence[ConfigResult]]) -> str:
    """Why nothing could be chosen.

    Args:
        step: of the sequence, counted from 1.
        hunts: the attempts of each algorithm that might have taken it.

    Returns:
        A line.
    """
    every = [one for found in hunts for one in found]
    if not every:
        return f"every attempt at step {step} failed"
    gone = sum(one["diverged"] == len(one["trials"]) for one in every)
    return f"no attempt at step {step} can be chosen: {gone} of {len(every)} diverged on every original"


def identity_columns(contender: Method, levels: int, select: str, level: int, attempt: int) -> Row:
    """The columns that say what a row is of in a sweep.

    Args:
        contender: whose.
        levels: steps of its sequence that are chosen; 0 of the oracle and of theta_o.
        select: by which selection.
        level: the step that the row is of, counted from 1.
        attempt: its number there.

    Returns:
        The columns.
    """
    return {
        "contender": contender.name,
        "variant": contender.variant,
        "select": select,
        "level": level,
        "levels": levels,
        "attempt": attempt,
    }
