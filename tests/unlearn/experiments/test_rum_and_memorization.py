"""RUM's two main experiments: end to end on a bank of small models, and their verdicts on made rows."""

import re
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.experiments import TRENDS
from tests.fixtures import tiny
from unlearn.experiments import memorization, rum
from unlearn.experiments.base import describe_class_counts
from unlearn.trials.config import ORACLE
from unlearn.tuning.methods import name_variant_by_score


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny.make_bank(tmp_path_factory.mktemp("rum"))


def test_every_level_of_memorization_is_judged(store):
    _, found, _ = tiny.run_experiment("memorization", store, size=10, algorithms=("finetune",))
    assert set(found.results) == {"low", "medium", "high"}
    assert all(found.results[level][0]["forget_set"].startswith(f"{tiny.SCORE}:{level}") for level in found.results)
    assert next(one for one in found.findings if "the oracle is right more often" in one.claim).value.value > 0
    assert not found.incomplete
    classes = [[int(n) for n in re.findall(r"\d+", line)] for line in found.remarks if ": of each class" in line]
    assert [(len(line), sum(line)) for line in classes] == [(10, 10)] * 3


def test_every_variant_and_plan_is_judged(store):
    ready, found, path = tiny.run_experiment("rum", store, size=9, algorithms=("finetune", "salun"))
    judged = {(row["contender"], row["variant"]) for row in found.results["union"] if row["select"]}
    plain = {(name, variant) for name in ("finetune", "salun") for variant in ("vanilla", "shuffle")}
    refined = {
        (name, name_variant_by_score(variant, tiny.SCORE))
        for name, variant in (
            ("salun", "rum"),
            ("salun", "rum-reversed"),
            ("original>finetune>salun", "rum"),
            ("salun>finetune>original", "rum-reversed"),
            ("automatic", "auto"),
        )
    }
    assert plain | refined <= judged
    assert bytes(ready.store.folder.read(f"{path}/figure.png"))[:4] == b"\x89PNG"


def of_level(oracle, original, **tow):
    """Judged rows of one level."""
    whose = [(ORACLE, "", "", oracle), ("original", "", "", original)]
    whose += [(name, "vanilla", "oracle", value) for name, value in tow.items()]
    return [
        row
        for name, variant, select, value in whose
        for row in tiny.make_rows(
            name.replace("_", "-"), variant, select, tow_test=value, forget_accuracy=value, mia_test=1 - value
        )
    ]


def test_memorization_s_verdicts_follow_the_rows():
    results = {
        "low": of_level(0.95, 0.9, finetune=0.9, neggrad_plus=0.5, salun=0.6),
        "high": of_level(0.2, 0.3, finetune=0.4, neggrad_plus=0.9, salun=0.8),
    }
    found = memorization.check_claims(results, tiny.make_context("finetune", "neggrad-plus", "salun"))
    assert tiny.list_verdicts(found, "the oracle is right more often") == ["holds"]
    assert tiny.list_verdicts(found, "the oracle's MIA is higher") == ["holds"]
    assert tiny.list_verdicts(found, "to do nothing") == ["holds"]
    assert tiny.list_verdicts(found, "finetune: ToW is higher on low") == ["holds"]
    assert tiny.list_verdicts(found, "neggrad-plus: ToW is higher on low") == ["fails"]
    assert tiny.list_verdicts(found, "salun: ToW is higher on high") == ["holds"]
    assert tiny.list_verdicts(found, "salun: MIA on low memorization") == ["holds"]  # .4 above .05
    level = of_level(0.5, 0.5, finetune=0.5)
    even = memorization.check_claims({"low": level, "high": level}, tiny.make_context("finetune"))
    assert {one.verdict for one in even} == {"undecided"}


def blindly(results):
    """The same rows, as if nobody had an oracle."""
    return {
        part: [row | {"select": "blind" if row["select"] else ""} for row in rows] for part, rows in results.items()
    }


def test_verdicts_rest_on_the_blind_choice_where_it_alone_was_asked_for():
    asked = replace(tiny.make_context("salun"), select="blind")
    levels = {"low": of_level(0.95, 0.9, salun=0.6), "high": of_level(0.2, 0.3, salun=0.8)}
    found = memorization.check_claims(blindly(levels), asked)
    assert tiny.list_verdicts(found, "salun: ToW is higher on high") == ["holds"]
    found = rum.check_claims(blindly(of_union(vanilla=0.7, shuffle=0.6, rum=0.9, rum_reversed=0.8)), asked)
    assert tiny.list_verdicts(found, "salun: RUM^F has a higher ToW than vanilla") == ["holds"]


def of_union(contender="salun", rrt=0.5, **tow):
    """Judged rows of a contender under (variant: ToW)."""
    named = {variant.replace("_", "-"): value for variant, value in tow.items()}
    return {
        "union": [
            row
            for variant, value in named.items()
            for row in tiny.make_rows(
                contender,
                name_variant_by_score(variant, tiny.SCORE),
                tow_test=value,
                mia_test_gap=1 - value,
                rrt_examples=rrt + value / 1000,
            )
        ]
    }


def test_rum_s_verdicts_follow_the_rows():
    found = rum.check_claims(of_union(vanilla=0.7, shuffle=0.6, rum=0.9, rum_reversed=0.8), tiny.make_context("salun"))
    assert [one.verdict for one in found if one.claim.startswith("salun")] == ["holds"] * 4
    assert tiny.list_verdicts(found, "a smaller MIA gap ascending") == ["holds"]
    assert tiny.list_verdicts(found, "ascending has a smaller MIA gap") == ["holds"]
    found = rum.check_claims(of_union(vanilla=0.9, shuffle=0.95, rum=0.7, rum_reversed=0.8), tiny.make_context("salun"))
    assert {one.verdict for one in found} == {"fails"}


def test_printed_numbers_stand_beside_what_they_are_printed_for():
    made = of_union(vanilla=0.7, shuffle=0.6, rum=0.9, rum_reversed=0.8)
    made["union"] += of_union("random-label", vanilla=0.7, shuffle=0.6, rum=0.9, rum_reversed=0.8)["union"]
    found = rum.check_claims(made, tiny.make_context("salun", "random-label"))
    said = {one.claim: one.paper for one in found}
    assert said["salun: RUM^F has a smaller MIA gap ascending than descending"] == "CIFAR-10 .031 against .221"
    assert said["random-label: RUM^F has a smaller MIA gap ascending than descending"] == "not printed"
    mean = "mean of the paper's algorithms"
    assert said[f"RUM^F: ascending has a smaller MIA gap than descending, {mean}"] == "no mean printed"
    assert said[f"RUM^F has a higher ToW than vanilla, {mean}"] == "0.887 against 0.731"  # SalUn's: it is alone here
    level = of_level(0.5, 0.5, salun=0.5, random_label=0.5)
    found = memorization.check_claims({"low": level, "high": level}, tiny.make_context("salun", "random-label"))
    mia = [one.paper for one in found if "MIA on low memorization" in one.claim]
    assert mia == ["CIFAR-10 .960 against .010", "CIFAR-10 .611 against .010"]


def of_plans(swapped, costs):
    """SalUn and fine-tuning under RUM^F in both orders, and the paper's three plans; what SalUn's plan costs."""
    made = [
        of_union("salun", rum=0.9, rum_reversed=0.85),
        of_union("finetune", rum=0.9, rum_reversed=swapped),
        of_union("original>finetune>salun", rum=0.95),
        of_union("salun>finetune>original", rum_reversed=0.9),
        of_union("original>salun>finetune", rum=swapped),
        of_union("original>salun>salun", costs, rum=0.92),
    ]
    return {"union": [row for one in made for row in one["union"]]}


@pytest.mark.parametrize(
    ("swapped", "costs", "expected"), [(0.9, 0.3, ("holds", "holds", "holds")), (0.99, 0.7, ("fails",) * 3)]
)
def test_plans_are_compared_by_order_and_by_cost(swapped, costs, expected):
    found = rum.check_claims(of_plans(swapped, costs), tiny.make_context("salun", "finetune"))
    said = ("than nothing, SalUn, fine-tuning", "finetune: RUM^F has a similar ToW", "SalUn reads no more examples")
    assert tuple(tiny.list_verdicts(found, words) for words in said) == tuple([one] for one in expected)


@pytest.mark.parametrize("trend", [trend for trend in TRENDS if any(name == "rum" for name, _ in trend.claims)])
def test_every_trend_of_rum_finds_its_claims(trend):
    made = of_plans(0.9, 0.3)
    made["union"] += of_union(vanilla=0.7, shuffle=0.6)["union"]
    claims = [one.claim for one in rum.check_claims(made, tiny.make_context("salun", "finetune"))]
    assert any(re.search(words, claim) for name, words in trend.claims if name == "rum" for claim in claims)


def test_classes_are_counted_in_their_order():
    labels = np.array([0, 1, 1, 3, 3, 3])
    assert describe_class_counts("low", labels, (1, 2, 4)) == "low: of each class in turn 0, 2, 0, 1 examples go"
