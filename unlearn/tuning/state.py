"""Progress of each method of a sweep, and results."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from unlearn.forget_sets import ForgetSet
from unlearn.trials.config import Params, Row
from unlearn.tuning.config import UNTUNED, Selection
from unlearn.tuning.methods import Method
from unlearn.tuning.search import ConfigResult


@dataclass(kw_only=True)
class MethodProgress:
    """Track the progress of one method under one selection rule.

    Attributes:
        method: the method.
        select: the selection rule.
        tuning: number of the tuning, UNTUNED where nothing is searched.
        steps: algorithm and parameters of each level that was chosen.
        chosen: the chosen result of each level.
        searches: the results it chose among: level from 0, algorithm, results.
        at_boundary: chosen values at an end of their search space, as step.algorithm.name.
        end_reason: why it ended early; "" if it did not.
    """

    method: Method
    select: Selection
    tuning: int = UNTUNED
    steps: list[tuple[str, Params]] = field(default_factory=list)
    chosen: list[ConfigResult] = field(default_factory=list)
    searches: list[tuple[int, str, list[ConfigResult]]] = field(default_factory=list)
    at_boundary: list[str] = field(default_factory=list)
    end_reason: str = ""

    @property
    def cost(self) -> dict[str, float]:
        """Evaluated configurations, runs of algorithms and their seconds, over all its searches."""
        results = [result for _, _, search_results in self.searches for result in search_results]
        return {
            "attempts": len(results),
            "runs": sum(len(result["trials"]) for result in results),
            "tuning_s": float(sum(result["wall_s"] for result in results)),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepResult:
    """Hold the results of a sweep.

    Attributes:
        states: the progress of each method under each selection rule.
        tuning_rows: rows of all tuning trials, with the method, level and configuration that each belongs to.
        judged_rows: rows of the judged trials: of every method, of the oracle and of the original.
        failed: a line for each trial without a row.
        tuning_sets: the forget sets that parameters were chosen on, one of each tuning.
        judged_set: the forget set that methods were judged on.
        notes: notes on the options for a reader of the results.
        populations: measures of many models of each method, with its columns contender, variant and select.
    """

    states: list[MethodProgress]
    tuning_rows: list[Row]
    judged_rows: list[Row]
    failed: list[str]
    tuning_sets: list[ForgetSet]
    judged_set: ForgetSet
    notes: tuple[str, ...] = ()
    populations: tuple[Row, ...] = ()


def explain_no_choice(step: int, searches: Sequence[Sequence[ConfigResult]]) -> str:
    """Explain in a line why no configuration of a step, counted from 1, could be chosen."""
    results = [result for search_results in searches for result in search_results]
    if not results:
        return f"every configuration at step {step} failed"
    n_diverged = sum(result["diverged"] == len(result["trials"]) for result in results)
    return f"no configuration at step {step} can be chosen: {n_diverged} of {len(results)} diverged on every original"


def identity_columns(method: Method, levels: int, select: str, level: int, attempt: int, tuning: int = UNTUNED) -> Row:
    """Return the columns that identify a row in a sweep.

    `levels` is the number of chosen steps of its sequence, 0 for the oracle and theta_o; `level` is the step of the
    row, counted from 1; `attempt` is the number of the configuration in its search; `tuning` is the number of the
    tuning, UNTUNED where no parameter is chosen.
    """
    return {
        "contender": method.name,
        "variant": method.variant,
        "select": select,
        "level": level,
        "levels": levels,
        "attempt": attempt,
        "tuning": tuning,
    }
