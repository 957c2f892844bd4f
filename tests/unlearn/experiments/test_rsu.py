"""RSU's experiment: end to end on a bank of 8 small models, and its verdicts on made rows."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.fixtures import tiny
from tests.fixtures.problems import make_tiny_problem, run_algorithm
from tests.fixtures.spies import classify_batches, record_batches_read
from unlearn.algorithms import ALGORITHMS
from unlearn.experiments import rsu
from unlearn.experiments.rsu import (
    DISJOINT,
    VARIANTS,
    choose_epochs,
    compute_disjoint_epochs,
    describe_costs,
    make_sweeps,
)
from unlearn.tuning.results import select_rows


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny.make_bank(tmp_path_factory.mktemp("rsu"), models=8)


def test_a_class_and_a_tenth_at_random_are_judged_in_all_orders(store):
    prepared, result, path = tiny.run_experiment(
        "rsu", store, algorithms=("gradient-ascent", "bad-teacher"), seeds=1, seed=3
    )
    assert set(result.results) == {"class", "random", DISJOINT}
    assert {row["forget_set"] for row in result.results["class"]} == {"class:3"}
    tenth = prepared.store.manifest.split_sizes[0] // 10
    assert {row["n_forget"] for row in result.results["random"]} == {tenth}
    for part, variants in (("class", VARIANTS), ("random", VARIANTS), (DISJOINT, ("rsu",))):
        assert {row["variant"] for row in result.results[part] if row["select"]} == set(variants)
    [schedule] = {row["rounds"] for row in result.results[DISJOINT] if row["variant"] == "rsu"}
    assert json.loads(schedule)["schedule"] == "partition"
    read = {
        (part, name): select_rows(result.results[part], variant="rsu", contender=name, select="oracle")[0]["examples"]
        for part in ("class", DISJOINT)
        for name in ("gradient-ascent", "bad-teacher")
    }
    n, n_train = result.results["class"][0]["n_forget"], prepared.store.manifest.split_sizes[0]
    # ranking, and five rounds of two epochs; disjoint ones have six
    assert read["class", "gradient-ascent"] == n + 2 * sum(n * turn // 5 for turn in range(1, 6))
    assert read[DISJOINT, "gradient-ascent"] == n + 6 * n
    assert read[DISJOINT, "bad-teacher"] == n + n + 5 * int(0.3 * (n_train - n))
    cost_lines = [line for line in result.remarks if "examples read" in line]
    assert [line.split(":")[0] for line in cost_lines] == ["gradient-ascent", "bad-teacher"]
    assert f"{7 / 6:.2f} rsu ({DISJOINT})" in cost_lines[0]
    assert not result.incomplete
    assert bytes(prepared.store.folder.read(f"{path}/figure.png"))[:4] == b"\x89PNG"


def test_a_size_that_is_given_is_that_of_the_random_set(store):
    sweeps = make_sweeps(replace(tiny.make_config("gradient-ascent"), store=store))
    assert sweeps["random"].size == 12
    assert all(config.rounds == 5 for config in sweeps.values())


def test_a_tenth_of_the_classes_is_forgotten_and_at_least_one(monkeypatch):
    def class_spec(n_classes, seed):
        manifest = SimpleNamespace(n_classes=n_classes, split_sizes=(1000, 0, 0), architecture="mlp-8")
        monkeypatch.setattr(rsu, "Store", SimpleNamespace(open=lambda url: SimpleNamespace(manifest=manifest)))
        result = make_sweeps(tiny.make_config("gradient-ascent", seed=seed))
        assert result["class"].forget == result[DISJOINT].forget
        return result["class"].forget

    assert [class_spec(10, seed) for seed in (0, 3, 12)] == ["class:0", "class:3", "class:2"]
    assert class_spec(4, 1) == "class:1"
    assert class_spec(35, 2) == "class:6,7,8"
    assert class_spec(35, 11) == "class:33,34,0"


def test_algorithms_that_read_only_what_goes_are_known(monkeypatch):
    problem, only = make_tiny_problem(), set()
    for name in ALGORITHMS:
        batches = record_batches_read(monkeypatch, lambda name=name: run_algorithm(name, problem))
        if batches and set(classify_batches(batches, problem.forget)) == {"F"}:
            only.add(name)
    known = {name for name, entry in ALGORITHMS.items() if getattr(entry.config, "FORGET_ONLY", False)}
    assert only == known - {"ssd"}  # which takes no step, and makes its batches otherwise


def test_a_disjoint_round_has_the_epochs_of_a_nested_one_or_of_what_nested_ones_read():
    names = ("gradient-ascent", "random-label", "bad-teacher", "original")
    assert [choose_epochs(name) for name in names] == [6, 10, 5, 0]
    assert [compute_disjoint_epochs(name, choose_epochs(name)) for name in names[:3]] == [6, 2, 1]


def test_costs_are_multiples_of_one_go_on_the_originals_that_both_have():
    def arm(variant, rrt, status="ok"):
        return [row | {"status": status} for row in tiny.make_rows("gradient-ascent", variant, rrt_examples=rrt)]

    costly = [row | {"rrt_examples": 9.0, "index": 7} for row in arm("rsu", 9.0)]
    results = {
        "class": [*arm("vanilla", 0.5), *arm("rsu", 0.4), *costly, *arm("rsu-reversed", 0.1, "diverged")],
        "random": [*arm("vanilla", 0.1), *arm("rsu", 0.2), *arm("rsu-reversed", 0.3)],
        DISJOINT: arm("rsu", 0.45),
    }
    assert describe_costs(results, tiny.make_config("gradient-ascent")) == [
        "gradient-ascent: examples read, as a multiple of one go's: 0.80 rsu (class), nan rsu-reversed (class), "
        "0.90 rsu (class, disjoint), 2.00 rsu (random), 3.00 rsu-reversed (random)"
    ]


def make_results(of_class, at_random, apart):
    """ToW of gradient ascent under (vanilla, rsu, rsu-reversed) on a class and at random, and of RSU in parts."""
    claim = "gradient-ascent"
    results = {
        part: [
            row
            for variant, value in zip(VARIANTS, tow, strict=True)
            for row in tiny.make_rows(claim, variant, tow_test=value, mia_test_gap=1 - value)
        ]
        for part, tow in (("class", of_class), ("random", at_random))
    }
    return results | {DISJOINT: tiny.make_rows(claim, "rsu", tow_test=apart)}


def test_verdicts():
    claims = rsu.check_claims(make_results((0.7, 0.9, 0.8), (0.7, 0.75, 0.7), 0.9), tiny.make_config("gradient-ascent"))
    assert tiny.list_verdicts(claims, "gradient-ascent: RSU is above one go") == ["holds", "holds"]
    assert tiny.list_verdicts(claims, "RSU gains more on a class") == ["holds", "holds"]
    assert tiny.list_verdicts(claims, "nearer to the oracle's") == ["holds"]
    assert tiny.list_verdicts(claims, "ascending risk is above descending") == ["holds", "holds"]
    assert tiny.list_verdicts(claims, "one go is above descending") == ["fails"]
    assert tiny.list_verdicts(claims, "disjoint") == ["undecided"]


def test_by_another_risk_the_sweeps_rank_by_it_and_their_rows_are_judged_alike(store):
    config = replace(tiny.make_config("gradient-ascent"), store=store, risk="soft_attack_success_k0.500")
    assert {sweep.risk for sweep in make_sweeps(config).values()} == {"soft_attack_success_k0.500"}
    results = make_results((0.7, 0.9, 0.8), (0.7, 0.75, 0.7), 0.9)
    by_risk = {
        part: [row | {"variant": row["variant"] + f" {config.risk}" * (row["variant"] != "vanilla")} for row in rows]
        for part, rows in results.items()
    }
    assert rsu.check_claims(by_risk, config) == rsu.check_claims(results, replace(config, risk=None))


def test_verdicts_the_other_way():
    claims = rsu.check_claims(make_results((0.7, 0.7, 0.8), (0.7, 0.9, 0.7), 0.5), tiny.make_config("gradient-ascent"))
    assert tiny.list_verdicts(claims, "gradient-ascent: RSU is above one go") == ["undecided", "holds"]
    assert tiny.list_verdicts(claims, "RSU gains more on a class") == ["fails", "fails"]
    assert tiny.list_verdicts(claims, "ascending risk is above descending") == ["fails", "fails"]
    assert tiny.list_verdicts(claims, "disjoint") == ["holds"]


def test_the_mean_of_all_weighs_algorithms_alike():
    ours = make_results((0.7, 0.9, 0.8), (0.7, 0.75, 0.7), 0.9)
    for part, rows in ours.items():
        twin = [row | {"contender": "bad-teacher", "tow_test": 0.5} for row in rows]
        ours[part] = [*rows, *twin]
    claims = rsu.check_claims(ours, tiny.make_config("gradient-ascent", "bad-teacher"))
    mean = [claim.value.value for claim in claims if claim.claim.startswith("mean of all: RSU")]
    alone = [claim.value.value for claim in claims if claim.claim.startswith("gradient-ascent: RSU is above")]
    assert mean == pytest.approx([alone[0] / 2, alone[1] / 2, (alone[0] - alone[1]) / 2])
