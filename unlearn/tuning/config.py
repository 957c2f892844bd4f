"""Configuration of a sweep as a user writes it. Imports no torch, so that --help answers at once."""

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import tyro

from memscore.cli.options import Maybe, Several
from memscore.store.json_records import hash_record
from memscore.user_functions import hash_user_sources
from unlearn.trials.default_scores import DEFAULT_SIZE

DEFAULT_ALGORITHMS = ("finetune", "l1-sparse", "neggrad-plus", "salun", "random-label")
DEFAULT_VARIANTS = ("vanilla", "rum", "rsu")
TuningMode = Literal["steps", "joint", "defaults"]
Sampler = Literal["refine", "random", "grid", "tpe"]
Selection = Literal["oracle", "blind"]
UNTUNED = -1
"""Number of the tuning of methods without parameters that are chosen."""
SELECTIONS: tuple[Selection, ...] = ("oracle", "blind")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Configure a sweep.

    Attributes:
        store: path or URL of a bank of `python -m memscore.estimate`.
        forget: the forget set to judge methods on: random, SCORE:union, SCORE:high, class:3, class:0,1, ids:FILE, ...;
            `unlearn list forget-sets` lists all (default: memorization_k0.500:union, the least, half and most
            memorized).
        size: number of examples to forget, where --forget does not give it (default: 100; without --forget the
            largest of which the bank has two without a common example).
        with_copies: forget the exact copies of these examples in the training set too.
        algorithms: the algorithms to compare, in every variant, or module:function; together the candidates of auto;
            `unlearn list algorithms` lists all.
        variants: vanilla, vanilla-long, shuffle, rum, rum-reversed, rsu, rsu-reversed, auto, auto-reversed.
        plans: an algorithm for each part, from the lowest score to the highest, as "nothing>finetune>salun".
        scores: what rum, auto and plans refine by: scores of the store, or centroid (default: memorization_k0.700, else
            memorization_k0.500, else the only memorization_k*).
        scores_of: another bank of the same data, whose scores are read in place of the store's.
        parts: number of parts they make.
        order: rum and plans in this order of the parts too: low, medium and high in any order, as "medium low high";
            numbers where --parts is not 3, 1 for the lowest scores.
        rule: equal: as many examples in each part; spaced: equal ranges of the score.
        rounds: of rsu.
        rsu_epochs: split: an algorithm's epochs are divided among the rounds, rounded up; whole: each round has all.
        schedule: nested: a round of rsu forgets all examples admitted so far; partition: only the new ones.
        unit: what rsu admits: single examples or whole classes.
        risk: score of the store by which rsu ranks, higher is riskier: attack_success, soft_attack_success, ...
            (default: the loss of theta_o).
        again: rsu reads the loss before each round, not once.
        tuning: steps: each part's parameters in turn, as RUM does; joint: all at once; defaults: none.
        set: parameters with fixed values, which are not tuned, as finetune.epochs=5.
        steps: scaled: epochs and batches that are left out take as many steps as in the paper's setting, for these
            data; paper: the paper's numbers as they are.
        space: the ranges that are searched: wide, or the papers'.
        search: parameters that are searched besides, epochs or batch, as finetune.epochs: half to three times the
            epochs, a quarter to four times the batch.
        tunings: how often all parameters are chosen anew, with other draws and originals and another draw of the
            forget set, each judged on originals of its own; intervals are over tunings, and of one tuning there is no
            verdict.
        budget: configurations evaluated at each step of a plan, in each tuning.
        sampler: refine: a design of the whole space, then configurations near the best; random; grid; or tpe. refine
            and tpe learn from results and so need a search for each selection.
        select: which selection: oracle (for evaluation alone), blind (oracle-free, possible for a user), or both.
        tune_forget: forget set for tuning (default: another of the same kind; same: the judged one).
        tune_seeds: number of originals of each tuning.
        seeds: number of originals that methods are judged on, of all tunings together; twice as many for algorithms
            that draw labels.
        dynamics: measure judged sequences after each of their steps.
        measures: measures of judged trials beyond the core ones, or module:function; `unlearn list measures` lists all.
        seed: of all random draws.
        name: of the sweep's folder in the store (default: a hash of the options).
        data: where the bank's data are now, by name or path, or module:function (default: where they were read).
        folder: folder of the data set.
    """

    store: tyro.conf.Positional[str]
    forget: Maybe[str] = None
    size: Maybe[int] = None
    with_copies: bool = False
    algorithms: Several = DEFAULT_ALGORITHMS
    variants: Several = DEFAULT_VARIANTS
    plans: Several = ()
    scores: Annotated[Several, tyro.conf.arg(help_behavior_hint="")] = ()
    scores_of: Maybe[str] = None
    parts: int = 3
    order: Annotated[Several, tyro.conf.arg(help_behavior_hint="")] = ()
    rule: Literal["equal", "spaced"] = "equal"
    rounds: int = 5
    rsu_epochs: Literal["split", "whole"] = "split"
    schedule: Literal["nested", "partition"] = "nested"
    unit: Literal["example", "class"] = "example"
    risk: Maybe[str] = None
    again: bool = False
    tuning: TuningMode = "steps"
    set: Several = ()
    steps: Literal["scaled", "paper"] = "scaled"
    space: Literal["wide", "paper"] = "wide"
    search: Several = ()
    tunings: int = 3
    budget: int = 6
    sampler: Literal["refine", "random", "grid", "tpe"] = "refine"
    select: Literal["both", "oracle", "blind"] = "both"
    tune_forget: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    tune_seeds: int = 2
    seeds: int = 6
    dynamics: bool = False
    measures: Several = ()
    seed: int = 0
    name: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    data: Maybe[str] = None
    folder: Maybe[str] = None

    @property
    def identity(self) -> dict[str, Any]:
        """All options that decide the results: the identity of the sweep."""
        # Options that were added later: names of folders are hashed without them unless they are set.
        unset = {name for name in ("scores_of", "risk", "order") if not getattr(self, name)}
        excluded = {"store", "name", "data", "folder"} | unset | (set() if self.with_copies else {"with_copies"})
        record = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in excluded}
        record["size"] = self.n_forget
        # An edited function of the user's own gives another sweep.
        steps = [step.strip() for plan in self.plans for step in plan.split(">")]
        sources = hash_user_sources([*self.algorithms, *steps, *self.measures])
        return record | ({"sources": sources} if sources else {})

    @property
    def n_forget(self) -> int:
        """The size of a forget set that has none of its own."""
        return DEFAULT_SIZE if self.size is None else self.size

    @property
    def selections(self) -> tuple[Selection, ...]:
        """The selection rules that are compared."""
        return SELECTIONS if self.select == "both" else (self.select,)

    @property
    def learns(self) -> bool:
        """Whether the sampler learns from an objective, so that each selection has a search of its own."""
        return self.sampler in {"refine", "tpe"}

    @property
    def tuning_originals(self) -> range:
        """The originals of all tunings."""
        return range(self.tunings * self.tune_seeds)

    def get_tuning_originals(self, tuning: int) -> range:
        """The originals that one tuning chooses on."""
        return range(tuning * self.tune_seeds, (tuning + 1) * self.tune_seeds)

    def get_judged_originals(self, *, draws_labels: bool) -> range:
        """The originals that a method is judged on: none of a tuning, twice as many where it draws labels."""
        start = self.tuning_originals.stop
        return range(start, start + self.seeds * (2 if draws_labels else 1))

    def get_originals_of_tuning(self, tuning: int, *, draws_labels: bool) -> range:
        """The judged originals that judge the choice of one tuning, which take turns; all of them for UNTUNED."""
        judged = self.get_judged_originals(draws_labels=draws_labels)
        return judged if tuning == UNTUNED else judged[tuning :: self.tunings]

    @property
    def folder_name(self) -> str:
        """Name of the sweep's folder."""
        return self.name or f"sweep-{hash_record(self.identity)[:8]}"
