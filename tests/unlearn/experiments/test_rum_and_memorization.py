"""RUM's two main experiments: end to end on a bank of small models, and their verdicts on made rows."""

import re

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
    _, result, _ = tiny.run_experiment("memorization", store, size=10, algorithms=("finetune",))
    assert set(result.results) == {"low", "medium", "high"}
    assert all(result.results[level][0]["forget_set"].startswith(f"{tiny.SCORE}:{level}") for level in result.results)
    assert next(claim for claim in result.claims if "the oracle is right more often" in claim.claim).value.value > 0
    assert not result.incomplete
    classes = [
        [int(n) for n in re.findall(r"\d (\d+)", line)] for line in result.remarks if "examples per class: 0 " in line
    ]
    assert [(len(line), sum(line)) for line in classes] == [(10, 10)] * 3


def test_every_variant_and_plan_is_judged(store):
    prepared, result, path = tiny.run_experiment("rum", store, size=9, algorithms=("finetune", "salun"))
    judged = {(row["contender"], row["variant"]) for row in result.results["union"] if row["select"]}
    plain = {(name, variant) for name in ("finetune", "salun") for variant in ("vanilla", "shuffle")}
    refined = {
        (name, name_variant_by_score(variant, tiny.SCORE))
        for name, variant in (
            ("salun", "rum"),
            ("salun", "rum-reversed"),
            ("nothing>finetune>salun", "rum"),
            ("salun>finetune>nothing", "rum-reversed"),
            ("automatic", "auto"),
        )
    }
    assert plain | refined <= judged
    assert bytes(prepared.store.folder.read(f"{path}/figure.png"))[:4] == b"\x89PNG"


def make_level_rows(oracle, original, **tow):
    """Judged rows of one level."""
    groups = [(ORACLE, "", "", oracle), ("original", "", "", original)]
    groups += [(name, "vanilla", "oracle", value) for name, value in tow.items()]
    return [
        row
        for name, variant, select, value in groups
        for row in tiny.make_rows(
            name.replace("_", "-"), variant, select, tow_test=value, forget_accuracy=value, mia_test=1 - value
        )
    ]


def test_memorization_s_verdicts_follow_the_rows():
    results = {
        "low": make_level_rows(0.95, 0.9, finetune=0.9, neggrad_plus=0.5, salun=0.6),
        "high": make_level_rows(0.2, 0.3, finetune=0.4, neggrad_plus=0.9, salun=0.8),
    }
    claims = memorization.check_claims(results, tiny.make_config("finetune", "neggrad-plus", "salun"))
    assert tiny.list_verdicts(claims, "the oracle is right more often") == ["holds"]
    assert tiny.list_verdicts(claims, "the oracle's MIA is higher") == ["holds"]
    assert tiny.list_verdicts(claims, "to do nothing") == ["holds"]
    assert tiny.list_verdicts(claims, "finetune: ToW is higher on low") == ["holds"]
    assert tiny.list_verdicts(claims, "neggrad-plus: ToW is higher on low") == ["fails"]
    assert tiny.list_verdicts(claims, "salun: ToW is higher on high") == ["holds"]
    assert tiny.list_verdicts(claims, "salun: MIA on low memorization") == ["holds"]  # .4 above .05
    # a mean of the two that draw no labels, .7 above .65, and none of the one that does
    assert [claim.verdict for claim in claims if claim.claim.startswith("mean")] == ["holds"]
    level = make_level_rows(0.5, 0.5, finetune=0.5)
    even = memorization.check_claims({"low": level, "high": level}, tiny.make_config("finetune"))
    assert {claim.verdict for claim in even} == {"undecided"}


def select_blind(results):
    """The same rows, as if nobody had an oracle."""
    return {
        part: [row | {"select": "blind" if row["select"] else ""} for row in rows] for part, rows in results.items()
    }


def test_verdicts_rest_on_the_blind_choice_where_it_alone_was_asked_for():
    config = tiny.make_config("salun", select="blind")
    levels = {"low": make_level_rows(0.95, 0.9, salun=0.6), "high": make_level_rows(0.2, 0.3, salun=0.8)}
    claims = memorization.check_claims(select_blind(levels), config)
    assert tiny.list_verdicts(claims, "salun: ToW is higher on high") == ["holds"]
    claims = rum.check_claims(
        select_blind(make_union_rows(vanilla=0.7, shuffle=0.6, rum=0.9, rum_reversed=0.8)), config
    )
    assert tiny.list_verdicts(claims, "salun: RUM^F has a higher ToW than vanilla") == ["holds"]


def make_union_rows(contender="salun", rrt=0.5, **tow):
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
    claims = rum.check_claims(
        make_union_rows(vanilla=0.7, shuffle=0.6, rum=0.9, rum_reversed=0.8), tiny.make_config("salun")
    )
    assert [claim.verdict for claim in claims if claim.claim.startswith("salun")] == ["holds"] * 4
    assert tiny.list_verdicts(claims, "a smaller MIA gap ascending") == ["holds"]
    assert tiny.list_verdicts(claims, "ascending has a smaller MIA gap") == ["holds"]
    claims = rum.check_claims(
        make_union_rows(vanilla=0.9, shuffle=0.95, rum=0.7, rum_reversed=0.8), tiny.make_config("salun")
    )
    assert {claim.verdict for claim in claims} == {"fails"}


def test_printed_numbers_stand_beside_what_they_are_printed_for():
    results = make_union_rows(vanilla=0.7, shuffle=0.6, rum=0.9, rum_reversed=0.8)
    results["union"] += make_union_rows("random-label", vanilla=0.7, shuffle=0.6, rum=0.9, rum_reversed=0.8)["union"]
    claims = rum.check_claims(results, tiny.make_config("salun", "random-label"))
    paper_by_claim = {claim.claim: claim.paper for claim in claims}
    assert (
        paper_by_claim["salun: RUM^F has a smaller MIA gap ascending than descending"] == "CIFAR-10 .031 against .221"
    )
    assert paper_by_claim["random-label: RUM^F has a smaller MIA gap ascending than descending"] == "not printed"
    mean = "mean of the paper's algorithms"
    assert paper_by_claim[f"RUM^F: ascending has a smaller MIA gap than descending, {mean}"] == "no mean printed"
    assert (
        paper_by_claim[f"RUM^F has a higher ToW than vanilla, {mean}"] == "0.887 against 0.731"
    )  # SalUn's: it is alone here
    level = make_level_rows(0.5, 0.5, salun=0.5, random_label=0.5)
    claims = memorization.check_claims({"low": level, "high": level}, tiny.make_config("salun", "random-label"))
    mia = [claim.paper for claim in claims if "MIA on low memorization" in claim.claim]
    assert mia == ["CIFAR-10 .960 against .010", "CIFAR-10 .611 against .010"]


def make_plan_rows(swapped, costs):
    """SalUn and fine-tuning under RUM^F in both orders, and the paper's three plans; what SalUn's plan costs."""
    results = [
        make_union_rows("salun", rum=0.9, rum_reversed=0.85),
        make_union_rows("finetune", rum=0.9, rum_reversed=swapped),
        make_union_rows("nothing>finetune>salun", rum=0.95),
        make_union_rows("salun>finetune>nothing", rum_reversed=0.9),
        make_union_rows("nothing>salun>finetune", rum=swapped),
        make_union_rows("nothing>salun>salun", costs, rum=0.92),
    ]
    return {"union": [row for claim in results for row in claim["union"]]}


@pytest.mark.parametrize(
    ("swapped", "costs", "expected"), [(0.9, 0.3, ("holds", "holds", "holds")), (0.99, 0.7, ("fails",) * 3)]
)
def test_plans_are_compared_by_order_and_by_cost(swapped, costs, expected):
    claims = rum.check_claims(make_plan_rows(swapped, costs), tiny.make_config("salun", "finetune"))
    paper_by_claim = (
        "than nothing>salun>finetune",
        "finetune: RUM^F has a similar ToW",
        "nothing>salun>salun reads no more examples",
    )
    assert tuple(tiny.list_verdicts(claims, words) for words in paper_by_claim) == tuple([claim] for claim in expected)


@pytest.mark.parametrize("trend", [trend for trend in TRENDS if any(name == "rum" for name, _ in trend.claims)])
def test_every_trend_of_rum_finds_its_claims(trend):
    results = make_plan_rows(0.9, 0.3)
    results["union"] += make_union_rows(vanilla=0.7, shuffle=0.6)["union"]
    claims = [claim.claim for claim in rum.check_claims(results, tiny.make_config("salun", "finetune"))]
    assert any(re.search(words, claim) for name, words in trend.claims if name == "rum" for claim in claims)


def test_classes_are_counted_in_their_order():
    labels = np.array([0, 1, 1, 3, 3, 3])
    line = "forget set low, examples per class:"
    assert describe_class_counts("low", labels, (1, 2, 4)) == f"{line} 0 0, 1 2, 2 0, 3 1"
    names = ("shirt", "shoe", "bag", "coat")
    assert describe_class_counts("low", labels, (1, 2, 4), names) == f"{line} shirt 0, shoe 2, bag 0, coat 1"


def test_of_many_classes_the_largest_counts_are_shown():
    rows = (*range(40, 60), *range(100, 120), *range(30, 40))
    listed = describe_class_counts("all", np.arange(120) % 60, rows).partition(": ")[2].split(", ")
    assert listed == [*(f"{number} 2" for number in range(40, 60)), "40 other classes 10 together"]
