"""What a sweep compares: an algorithm or a plan of several, and the way in which the forget set is cut and ordered."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from memscore.choices import validate_choice
from unlearn.algorithms import ALGORITHMS, get_algorithm
from unlearn.meta.partition import Partition
from unlearn.meta.rsu import RsuSchedule
from unlearn.trials.config import Params

VARIANTS = ("vanilla", "shuffle", "rum", "rum-reversed", "rsu", "rsu-reversed", "auto", "auto-reversed")
ORIGINAL = "original"
AUTOMATIC = "automatic"
CENTROID = "centroid"
"""Stands where a score's name does, for the distance to the mean of theta_o's embeddings."""
MIN_CANDIDATES = 2

TuningMode = Literal["steps", "joint", "defaults"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One thing that is compared.

    Attributes:
        plan: an algorithm for each part, or one for all of them; of an automatic one, the candidates for each part.
        variant: what a table calls the cut and the order.
        cut: of the forget set.
        rounds: of RSU.
        risk: score of the store by which RSU ranks; None for theta_o's loss.
        automatic: whether the sweep chooses an algorithm for each part among `plan`.
        tuning: "steps": the parameters of each part in turn, against the oracle of what is forgotten so far; "joint":
            those of all parts at once, against the last oracle; "defaults": none.
        fixed: (algorithm, its parameters that are given).
    """

    plan: tuple[str, ...]
    variant: str
    cut: Partition = field(default_factory=Partition)
    rounds: RsuSchedule | None = None
    risk: str | None = None
    automatic: bool = False
    tuning: TuningMode = "steps"
    fixed: tuple[tuple[str, Params], ...] = ()

    @property
    def name(self) -> str:
        """For tables: the algorithm, or the plan."""
        return AUTOMATIC if self.automatic else ">".join(self.plan)

    @property
    def levels(self) -> int:
        """How many searches follow on each other."""
        return self.cut.k if self.tuning == "steps" else 1

    def candidates(self, number: int) -> tuple[str, ...]:
        """The algorithms that may forget the part of that number, counted from 0."""
        if self.automatic:
            return self.plan
        return (self.plan[number if len(self.plan) > 1 else 0],)

    def params(self, name: str) -> Params:
        """The given parameters of an algorithm."""
        return dict(self.fixed).get(name, ())

    def rounds_over(self, rows: Sequence[int], scored: Callable[[str], np.ndarray]) -> RsuSchedule | None:
        """The rounds over these examples, with the risk of each where a score says it.

        Args:
            rows: of the training set, what is forgotten in rounds.
            scored: a score's name -> float [n_train], oriented: higher is riskier.

        Returns:
            Of RSU; None for others.

        Raises:
            ValueError: the score is undefined for one of them.
        """
        if self.rounds is None or self.risk is None:
            return self.rounds
        risk = scored(self.risk)[list(rows)]
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


def build_methods(
    algorithms: Sequence[str],
    variants: Sequence[str] = ("vanilla",),
    plans: Sequence[str] = (),
    scores: Sequence[str] = (),
    k: int = 3,
    rule: str = "equal",
    rounds: RsuSchedule | None = None,
    tuning: TuningMode = "steps",
    fixed: Mapping[str, Mapping[str, Any]] | None = None,
    risk: str | None = None,
) -> list[Method]:
    """Every combination that was asked for.

    Args:
        algorithms: each is a contender in every variant; together the candidates of automatic RUM.
        variants: of VARIANTS.
        plans: algorithms with ">" between them, one a part from the lowest score to the highest, as
            original>finetune>salun; unlearned in that order, and where rum-reversed is a variant, in the other too.
        scores: by which RUM refines: of the store, or "centroid".
        k: parts.
        rule: of refinement.
        rounds: of RSU.
        tuning: see Contender.
        fixed: of algorithms, the parameters that are given.
        risk: score by which RSU ranks; None for the loss.

    Returns:
        The contenders, none twice.

    Raises:
        ValueError: an unknown variant or algorithm, none of them, refinement without a score, a plan of another length,
            parameters of an algorithm that is in none, automatic RUM that is not tuned in steps.
    """
    for variant in variants:
        validate_choice("variant", variant, VARIANTS)
    for name in algorithms:
        get_algorithm(name)
    given = tuple((name, tuple(sorted(own.items()))) for name, own in sorted((fixed or {}).items()))
    made: list[Method] = []
    refined = [variant for variant in variants if variant.startswith(("rum", "auto"))]
    if (refined or plans) and not scores:
        raise ValueError(
            f"{', '.join((*refined, *plans))} refines the forget set by a score; name one with --scores, as "
            f"memorization_k0.500, or {CENTROID}"
        )
    make = partial(Method, tuning=tuning, fixed=given)
    for variant in variants:
        down = variant.endswith("-reversed")
        cuts = [make_score_partition(score, k, rule, down=down) for score in scores]
        kind = variant.removesuffix("-reversed")
        if kind == "auto":
            if tuning != "steps":
                raise ValueError(
                    f"--tuning {tuning}: {variant} takes the best algorithm part by part; use --tuning steps"
                )
            if len(algorithms) < MIN_CANDIDATES:
                raise ValueError(f"{variant} chooses among --algorithms, and there are {len(algorithms)}; name 5 or so")
            candidates = tuple(dict.fromkeys((ORIGINAL, *algorithms)))
            made += [make(plan=candidates, variant=name_variant(variant, cut), cut=cut, automatic=True) for cut in cuts]
            continue
        for name in algorithms:
            if kind == "vanilla":
                made.append(make(plan=(name,), variant=variant))
            elif kind == "shuffle":
                made.append(make(plan=(name,), variant=variant, cut=Partition(kind="shuffle", k=k)))
            elif kind == "rum":
                made += [make(plan=(name,), variant=name_variant(variant, cut), cut=cut) for cut in cuts]
            else:
                turns = replace(rounds or RsuSchedule(), order="descending" if down else "ascending")
                ranked = variant if risk is None else f"{variant} {risk}"
                made.append(make(plan=(name,), variant=ranked, rounds=turns, risk=risk))
    for plan, score in itertools.product(plans, scores):
        steps = parse_plan(plan, k)
        cut = make_score_partition(score, k, rule)
        made.append(make(plan=steps, variant=name_variant("rum", cut), cut=cut))
        if "rum-reversed" in variants:
            cut = make_score_partition(score, k, rule, down=True)
            made.append(make(plan=steps[::-1], variant=name_variant("rum-reversed", cut), cut=cut))
    if not made:
        raise ValueError("nothing to compare; name at least one of --algorithms or --plans")
    compared = {name for contender in made for name in contender.plan}
    for name in sorted((fixed or {}).keys() - compared):
        raise ValueError(
            f"--set gives parameters of {name}, which is not compared; known: {', '.join(sorted(compared))}"
        )
    return list(dict.fromkeys(made))


def make_score_partition(score: str, k: int, rule: str, *, down: bool = False) -> Partition:
    """A cut by a score, or by the distance to the centroid; from the highest down, or up."""
    order = "descending" if down else "ascending"
    if score == CENTROID:
        return Partition(kind="centroid", k=k, rule=rule, order=order)
    return Partition(kind="score", score=score, k=k, rule=rule, order=order)


def name_variant(variant: str, cut: Partition) -> str:
    """A variant with the score that it refines by."""
    return f"{variant} {cut.score or cut.kind}"


def name_variant_by_score(variant: str, score: str) -> str:
    """The variant's name where one that refines does it by this score."""
    refines = variant.startswith(("rum", "auto"))
    return name_variant(variant, make_score_partition(score, 1, "equal")) if refines else variant


def parse_plan(plan: str, k: int) -> tuple[str, ...]:
    """A plan in words; "nothing" is "original"."""
    names = tuple(ORIGINAL if part.strip() == "nothing" else part.strip() for part in plan.split(">"))
    for name in names:
        validate_choice(f"algorithm in the plan {plan!r}", name, ALGORITHMS)
    if len(names) != k:
        raise ValueError(f"the plan {plan!r} has {len(names)} steps for {k} parts; name an algorithm for each part")
    return names
