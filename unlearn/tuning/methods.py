"""Methods that a sweep compares: algorithms or plans, and how the forget set is partitioned and ordered."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np

from memscore.choices import validate_choice, validate_choice_or_function
from memscore.units import format_count
from unlearn.algorithms import ALGORITHMS, get_algorithm
from unlearn.meta.partition import Partition
from unlearn.meta.rsu import RsuSchedule
from unlearn.trials.config import ORIGINAL, Params, format_plan, get_paper_params, parse_params
from unlearn.tuning.added_parameters import check_added
from unlearn.tuning.config import SweepConfig, TuningMode
from unlearn.tuning.part_order import name_order, parse_order

LONG = "vanilla-long"
"""On the whole forget set with as many times the epochs as there are parts: what refinement costs, without it."""
VARIANTS = ("vanilla", LONG, "shuffle", "rum", "rum-reversed", "rsu", "rsu-reversed", "auto", "auto-reversed")
AUTOMATIC = "automatic"
CENTROID = "centroid"
"""In place of a score's name: the distance to the mean of theta_o's embeddings."""
MIN_CANDIDATES = 2


@dataclass(frozen=True, kw_only=True)
class Method:
    """Describe one method that is compared.

    Attributes:
        plan: an algorithm for each part, or one for all parts; if automatic, the candidates for each part.
        variant: name of the partition and the order in tables.
        partition: how the forget set is partitioned.
        rounds: the schedule of RSU.
        risk: score of the store by which RSU ranks; None for theta_o's loss.
        times: by which the epochs of the algorithm are multiplied.
        automatic: whether the sweep chooses an algorithm for each part among `plan`.
        tuning: "steps": the parameters of each part in turn, against the oracle of the parts forgotten so far; "joint":
            those of all parts at once, against the last oracle; "defaults": none.
        fixed: (algorithm, its parameters with fixed values).
    """

    plan: tuple[str, ...]
    variant: str
    partition: Partition = field(default_factory=Partition)
    rounds: RsuSchedule | None = None
    risk: str | None = None
    times: int = 1
    automatic: bool = False
    tuning: TuningMode = "steps"
    fixed: tuple[tuple[str, Params], ...] = ()

    @property
    def name(self) -> str:
        """Name in rows and tables: the algorithm, or the plan as --plans takes it."""
        return AUTOMATIC if self.automatic else format_plan(">".join(self.plan))

    @property
    def levels(self) -> int:
        """Number of consecutive searches."""
        return self.partition.k if self.tuning == "steps" else 1

    def list_candidates(self, number: int) -> tuple[str, ...]:
        """List the algorithms that may forget the part of that number, counted from 0."""
        if self.automatic:
            return self.plan
        return (self.plan[number if len(self.plan) > 1 else 0],)

    def fixed_params(self, name: str) -> Params:
        """Return the fixed parameters of an algorithm."""
        return dict(self.fixed).get(name, ())

    def build_schedule(self, rows: Sequence[int], read_score: Callable[[str], np.ndarray]) -> RsuSchedule | None:
        """Build the RSU schedule for these rows, with the risk of each if a score gives it; None without RSU.

        `read_score` gives float [n_train], oriented: higher is riskier. Raises ValueError if the score is undefined for
        a row.
        """
        if self.rounds is None or self.risk is None:
            return self.rounds
        risk = read_score(self.risk)[list(rows)]
        if undefined := int(np.isnan(risk).sum()):
            raise ValueError(
                f"--risk {self.risk} is undefined for {undefined} of the {len(rows)} examples to forget, so rsu cannot "
                "rank them; use a bank of more models, or a score that is defined for all, such as a proxy"
            )
        return replace(self.rounds, risk=tuple(risk.tolist()))

    @property
    def draws_labels(self) -> bool:
        """Whether an algorithm of the plan draws labels, and so needs more seeds."""
        return any(get_algorithm(name).random_labels for name in self.plan)


def build_methods(config: SweepConfig, architecture: str) -> list[Method]:
    """Build every combination of algorithms, variants, plans and scores, without repeats.

    An algorithm is a method in every variant; a plan, such as nothing>finetune>salun, names an algorithm for each part
    from the lowest score to the highest. It is unlearned in that order, and where rum-reversed is a variant, in the
    other too. --order gives algorithms and plans another one. Raises ValueError for an unknown variant or algorithm,
    none of them, refinement without a score, a plan of another length, an order that does not name each part once,
    parameters of an algorithm that no method has, or automatic RUM that is not tuned in steps.
    """
    algorithms, variants, plans, scores = config.algorithms, config.variants, config.plans, config.scores
    k, rule, tuning, risk = config.parts, config.rule, config.tuning, config.risk
    schedule = RsuSchedule(
        n=config.rounds, epochs=config.rsu_epochs, schedule=config.schedule, unit=config.unit, again=config.again
    )
    given = parse_fixed_params(config.set, architecture)
    fixed = given
    # The papers' numbers are fixed as those of --set are, which win; what is searched keeps its range.
    if config.steps == "paper":
        names = {step for plan in plans for step in parse_plan(plan, k)} | set(algorithms)
        papers = {name: get_paper_params(name, tuned=tuning != "defaults") for name in names}
        fixed = given | {name: params | given.get(name, {}) for name, params in papers.items() if params}
    for variant in variants:
        validate_choice("variant", variant, VARIANTS)
    for name in algorithms:
        get_algorithm(name)
    fixed_params = tuple((name, tuple(sorted(params.items()))) for name, params in sorted(fixed.items()))
    methods: list[Method] = []
    # 1. Whatever refines needs a score to refine by.
    order = parse_order(config.order, k) if config.order else ()
    refining = [variant for variant in variants if variant.startswith(("rum", "auto"))]
    refining += [f"--order {' '.join(config.order)}"] if order else []
    if (refining or plans) and not scores:
        raise ValueError(
            f"{', '.join((*refining, *plans))} refines the forget set by a score; name one with --scores, as "
            f"memorization_k0.500, or {CENTROID}"
        )
    # 2. Variants: each algorithm in each, once per score where the variant refines.
    make_method = partial(Method, tuning=tuning, fixed=fixed_params)
    ascending = tuple(range(k))
    for variant in variants:
        descending = variant.endswith("-reversed")
        parts_in_time = ascending[::-1] if descending else ascending
        partitions = [make_score_partition(score, k, rule, parts_in_time) for score in scores]
        kind = variant.removesuffix("-reversed")
        if kind == "auto":
            if tuning != "steps":
                raise ValueError(
                    f"--tuning {tuning}: {variant} takes the best algorithm part by part; use --tuning steps"
                )
            if len(algorithms) < MIN_CANDIDATES:
                raise ValueError(f"{variant} chooses among --algorithms, and there are {len(algorithms)}; name 5 or so")
            # Doing nothing is a candidate for each part, as in the best plan of RUM.
            candidates = tuple(dict.fromkeys((ORIGINAL, *algorithms)))
            methods += [
                make_method(
                    plan=candidates, variant=name_variant(variant, partition), partition=partition, automatic=True
                )
                for partition in partitions
            ]
            continue
        for name in algorithms:
            if kind == "vanilla":
                methods.append(make_method(plan=(name,), variant=variant))
            elif kind == LONG:
                # Without epochs there is nothing to multiply, and the method would be vanilla.
                if has_epochs(name):
                    methods.append(make_method(plan=(name,), variant=variant, times=k))
            elif kind == "shuffle":
                methods.append(make_method(plan=(name,), variant=variant, partition=Partition(kind="shuffle", k=k)))
            elif kind == "rum":
                methods += [
                    make_method(plan=(name,), variant=name_variant(variant, partition), partition=partition)
                    for partition in partitions
                ]
            else:
                rounds = replace(schedule, order="descending" if descending else "ascending")
                variant_name = name_ranked_variant(variant, risk)
                methods.append(make_method(plan=(name,), variant=variant_name, rounds=rounds, risk=risk))
    # 3. Algorithms in the user's order of the parts.
    for name, score in itertools.product(algorithms if order else (), scores):
        partition = make_score_partition(score, k, rule, order)
        methods.append(
            make_method(plan=(name,), variant=name_variant(name_order(order), partition), partition=partition)
        )
    # 4. Plans, once per score: in the order of the parts, with rum-reversed in the other, and in the user's.
    orders = [ascending, *([ascending[::-1]] if "rum-reversed" in variants else []), *([order] if order else [])]
    for plan, score, each in itertools.product(plans, scores, orders):
        steps = parse_plan(plan, k)
        partition = make_score_partition(score, k, rule, each)
        # Each algorithm keeps its part, the parts only swap places in time.
        plan_in_time = tuple(steps[part] for part in each)
        methods.append(
            make_method(plan=plan_in_time, variant=name_variant(name_order(each), partition), partition=partition)
        )
    without_epochs = [name for name in algorithms if LONG in variants and not has_epochs(name)]
    if not methods and without_epochs:
        raise ValueError(
            f"--variants {LONG} multiplies epochs, and {', '.join(without_epochs)} has none; name other --algorithms, "
            "or --variants vanilla"
        )
    if not methods:
        raise ValueError("nothing to compare; name at least one of --algorithms or --plans")
    # 5. Check what can be known only of all methods together.
    compared = {name for method in methods for name in method.plan}
    check_added(config.search, fixed, sorted(compared))
    for name in sorted(given.keys() - compared):
        raise ValueError(
            f"--set gives parameters of {name}, which is not compared; known: {', '.join(sorted(compared))}"
        )
    # What was requested twice is compared once.
    return list(dict.fromkeys(methods))


def has_epochs(algorithm: str) -> bool:
    """Report whether an algorithm passes over its data in epochs."""
    return any(option.name == "epochs" for option in fields(get_algorithm(algorithm).config))  # type: ignore[arg-type]


def parse_fixed_params(settings: Sequence[str], architecture: str) -> dict[str, dict[str, Any]]:
    """Parse parameters with fixed values, such as finetune.epochs=5: algorithm -> name -> value."""
    settings_by_algorithm: dict[str, list[str]] = {}
    for setting in settings:
        option, equals, value = setting.partition("=")
        # The last point: the module of a user's own function may have others.
        name, point, parameter = option.rpartition(".")
        if not point or not equals:
            raise ValueError(f"--set {setting!r} must be ALGORITHM.NAME=VALUE, as finetune.epochs=5")
        settings_by_algorithm.setdefault(name, []).append(f"{parameter}={value}")
    return {
        name: parse_params(name, algorithm_settings, architecture, f"{name}.")
        for name, algorithm_settings in settings_by_algorithm.items()
    }


def make_score_partition(score: str, k: int, rule: str, order: tuple[int, ...] = ()) -> Partition:
    """Make a partition by a score or by the distance to the centroid; the order is ascending where none is given."""
    ascending = tuple(range(k))
    # Equal methods are equal objects: these two orders have names.
    named = {ascending[::-1]: "descending", ascending: "ascending", (): "ascending"}
    partition = Partition(kind="centroid", k=k, rule=rule, order=named.get(order, order))
    return partition if score == CENTROID else replace(partition, kind="score", score=score)


def name_variant(variant: str, partition: Partition) -> str:
    """Name a variant with the score that it refines by."""
    return f"{variant} {partition.score or partition.kind}"


def name_ranked_variant(variant: str, risk: str | None) -> str:
    """Name a variant of rounds with the score that ranks it, if one does; other variants stay as they are."""
    return variant if risk is None or not variant.startswith("rsu") else f"{variant} {risk}"


def name_variant_by_score(variant: str, score: str) -> str:
    """Name a variant; one that refines gets the name of this score."""
    refines = variant.startswith(("rum", "auto"))
    return name_variant(variant, make_score_partition(score, 1, "equal")) if refines else variant


def parse_plan(plan: str, k: int) -> tuple[str, ...]:
    """Parse a plan such as nothing>finetune>salun; "nothing" is "original"."""
    names = tuple(ORIGINAL if part.strip() == "nothing" else part.strip() for part in plan.split(">"))
    for name in names:
        validate_choice_or_function(f"algorithm in the plan {plan!r}", name, ALGORITHMS)
    if len(names) != k:
        raise ValueError(
            f"the plan {plan!r} has {format_count(len(names), 'step')} for {format_count(k, 'part')}; name an "
            "algorithm for each part"
        )
    return names
