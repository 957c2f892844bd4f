"""What a user asks of a sweep, in words, and the sweep that it makes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import tyro

from cluster.pool import Pool
from memscore.cli.options import Maybe, Several
from memscore.store.json_records import hash_record
from unlearn.forget_sets import find_score_name
from unlearn.meta.rsu import RsuSchedule
from unlearn.trials.config import parse_params
from unlearn.trials.measure import select_population_measures
from unlearn.trials.setup import ShowProgress, TrialOptions, UnlearningContext, no_progress, open_context
from unlearn.tuning.methods import CENTROID, Method, TuningMode, build_methods
from unlearn.tuning.results import claim_sweep_folder, resolve_sweep_folder, write_sweep
from unlearn.tuning.runner import Sweep
from unlearn.tuning.search import SELECTIONS, SearchBackend
from unlearn.tuning.state import SweepResult, SweepSettings

RSU_OPTIONS = ("rounds", "rsu_epochs", "schedule", "unit", "risk", "again")
DEFAULT_ALGORITHMS = ("finetune", "l1-sparse", "neggrad-plus", "salun", "random-label")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """One sweep.

    Attributes:
        store: path or URL of a bank of `python -m memscore.estimate`.
        forget: what is to be forgotten, and judged: random, SCORE:union, SCORE:high, class:3, class:0,1, ids:FILE, ...
        size: examples to forget, where the words do not say it.
        algorithms: what is compared, in every variant; together the candidates of auto.
        variants: vanilla, shuffle, rum, rum-reversed, rsu, rsu-reversed, auto, auto-reversed.
        plans: an algorithm for each part, from the lowest score to the highest, as "nothing>finetune>salun".
        scores: what rum, auto and plans refine by: scores of the store, or centroid.
        scores_of: another bank of the same data, whose scores are read in place of the store's.
        parts: how many they make.
        rule: equal: as many examples in each part; spaced: equal ranges of the score.
        rounds: of rsu.
        rsu_epochs: split: an algorithm's epochs are divided among the rounds, up to whole ones; whole: each has all.
        schedule: nested: a round of rsu forgets all that is admitted so far; partition: what is new alone.
        unit: what rsu admits: single examples or whole classes.
        risk: score of the store by which rsu ranks, higher is riskier (default: the loss of theta_o).
        again: rsu reads the loss before each round, not once.
        tuning: steps: each part's parameters in turn, as RUM does; joint: all at once; defaults: none.
        set: parameters that are given and not tuned, as finetune.epochs=5.
        budget: attempts at each place of a plan.
        sampler: random, grid, or tpe, which learns from its attempts and so needs one set for each selection.
        select: who chooses: the oracle (an upper bound), blind (what a user can do), or both.
        tune_forget: forget set that parameters are chosen on (default: another of the same kind; same: the reported).
        tune_seeds: originals that they are chosen on.
        seeds: originals that are reported; twice as many for algorithms that draw labels.
        dynamics: measure judged sequences after each of their steps.
        measures: beyond the core ones, of judged trials.
        seed: of all that is drawn.
        name: of the sweep's folder in the store (default: made of what is asked).
        data: the bank's data by name or path, where its manifest does not say enough to find it.
        folder: where it lies.
    """

    store: tyro.conf.Positional[str]
    forget: str = "random"
    size: int = 100
    algorithms: Several = DEFAULT_ALGORITHMS
    variants: Several = ("vanilla",)
    plans: Several = ()
    scores: Several = ()
    scores_of: Maybe[str] = None
    parts: int = 3
    rule: Literal["equal", "spaced"] = "equal"
    rounds: int = 5
    rsu_epochs: Literal["split", "whole"] = "split"
    schedule: Literal["nested", "partition"] = "nested"
    unit: Literal["example", "class"] = "example"
    risk: Maybe[str] = None
    again: bool = False
    tuning: TuningMode = "steps"
    set: Several = ()
    budget: int = 10
    sampler: Literal["random", "grid", "tpe"] = "random"
    select: Literal["both", "oracle", "blind"] = "both"
    tune_forget: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    tune_seeds: int = 2
    seeds: int = 3
    dynamics: bool = False
    measures: Several = ()
    seed: int = 0
    name: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    data: Maybe[str] = None
    folder: Maybe[str] = None

    @property
    def words(self) -> dict[str, Any]:
        """All that decides what comes out: the sweep's identity."""
        later = {name for name in ("scores_of", "risk") if getattr(self, name) is None}  # names were made without them
        apart = {"store", "name", "data", "folder"} | later
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in apart}

    @property
    def title(self) -> str:
        """The name of its folder."""
        return self.name or f"sweep-{hash_record(self.words)[:8]}"

    def terms(self) -> SweepSettings:
        """How it is done."""
        return SweepSettings(
            budget=self.budget,
            tune_forget=self.tune_forget,
            tune=self.tune_seeds,
            seeds=self.seeds,
            sampler=self.sampler,
            select=SELECTIONS if self.select == "both" else (self.select,),
            measures=self.measures,
            seed=self.seed,
            dynamics=self.dynamics,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedSweep:
    """A plan that holds, as far as can be told before anything is trained.

    Attributes:
        plan: in the user's words.
        asked: the store and its data.
        contenders: what is compared.
        path: its folder in the store.
    """

    plan: SweepConfig
    asked: UnlearningContext
    contenders: list[Method]
    path: str

    def run(self, pool: Pool, search: SearchBackend, device: str, phase: ShowProgress = no_progress) -> SweepResult:
        """Carry it out, and put on file what came of it."""
        claim_sweep_folder(self.asked.store, self.plan.title, self.plan.words)
        swept = Sweep(self.asked, self.contenders, self.plan.terms(), device, phase).run(pool, search)
        write_sweep(self.asked.store, self.path, swept)
        return swept


def prepare_sweep(plan: SweepConfig) -> PreparedSweep:
    """Open the store and check all words that need no model.

    Args:
        plan: what the user asked for.

    Returns:
        The request; nothing is written yet.

    Raises:
        ValueError: a word that nothing is named, a score that the store lacks, parts larger than the forget set, a
            budget of none, the folder of another sweep.
    """
    terms = plan.terms()
    check_options_used(plan)
    wish = (plan.store, plan.forget, plan.size, "original", (), plan.seeds, plan.measures, plan.seed, plan.data)
    for name in select_population_measures(plan.measures):
        raise ValueError(f"--measures {name} compares many models of one trial; take it with python -m unlearn.trial")
    asked = open_context(TrialOptions(*wish, plan.folder, plan.scores_of))
    rounds = RsuSchedule(
        n=plan.rounds, epochs=plan.rsu_epochs, schedule=plan.schedule, unit=plan.unit, again=plan.again
    )
    made = build_methods(
        plan.algorithms,
        plan.variants,
        plan.plans,
        plan.scores,
        plan.parts,
        plan.rule,
        rounds,
        plan.tuning,
        parse_fixed_params(plan.set, asked.store.manifest.architecture),
        plan.risk,
    )
    Sweep(asked, made, terms, "cpu").check()
    return PreparedSweep(
        plan=plan, asked=asked, contenders=made, path=resolve_sweep_folder(asked.store, plan.title, plan.words)
    )


def check_options_used(plan: SweepConfig) -> None:
    """Stop where words would change the sweep's name and nothing of what is done.

    Args:
        plan: what the user asked for.

    Raises:
        ValueError: words of cuts where nothing is cut, of rounds where there are none, of a search where nothing is
            sought, another bank's scores where none is read; rounds below 1; or a loss that is to be read again where a
            score takes its place.
    """
    if plan.rounds < 1:
        raise ValueError(f"--rounds {plan.rounds}: rsu has 1 or more; 1 is the algorithm itself")
    if plan.risk is not None and plan.again:
        raise ValueError(f"--again reads the loss anew, and --risk {plan.risk} takes its place; leave one of them out")
    kinds = {variant.removesuffix("-reversed") for variant in plan.variants}
    refines = bool(kinds & {"rum", "auto"} or plan.plans)
    cuts, sought = refines or "shuffle" in kinds, plan.tuning != "defaults"
    named = find_score_name(plan.forget) or find_score_name(plan.tune_forget)
    read = named or plan.risk is not None or (refines and set(plan.scores) != {CENTROID})
    scored, cut = (
        "refines the forget set by a score; add --variants rum or --plans",
        "cuts the forget set; add --variants ",
    )
    uses = (
        (("scores", "rule"), refines, f"no contender {scored}"),
        (("parts", "dynamics"), cuts, f"no contender {cut}rum or shuffle, or --plans"),
        (("tuning",), cuts or not sought, f"no contender {cut}rum or shuffle, or --plans"),
        (RSU_OPTIONS, "rsu" in kinds, "no contender has rounds; add --variants rsu"),
        (("sampler",), sought, "no parameter is sought; use another --tuning"),
        (("budget",), sought or plan.budget == 1, "no parameter is sought; use another --tuning"),
        (("scores_of",), read, "no score is read; name one in --forget, --scores or --risk"),
    )
    usual = {one.name: one.default for one in fields(plan)}
    for names, used, what in uses:
        for name in names:
            value = getattr(plan, name)
            if not used and value != usual[name]:
                flag = f"--{name.replace('_', '-')}"
                said = "" if value is True else f" {' '.join(value) if isinstance(value, tuple) else value}"
                raise ValueError(f"{flag}{said} does nothing here: {what}, or leave {flag} out")


def parse_fixed_params(words: Sequence[str], architecture: str) -> dict[str, dict[str, Any]]:
    """Parameters that are given, as finetune.epochs=5.

    Args:
        words: one a parameter.
        architecture: of the bank.

    Returns:
        Algorithm -> name -> value.

    Raises:
        ValueError: a word of another form, or one that parse_params refuses.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        name, dot, rest = word.partition(".")
        if not dot or "=" not in rest or "=" in name:
            raise ValueError(f"--set {word!r} must be ALGORITHM.NAME=VALUE, as finetune.epochs=5")
        found.setdefault(name, []).append(rest)
    return {name: parse_params(name, own, architecture, f"{name}.") for name, own in found.items()}
