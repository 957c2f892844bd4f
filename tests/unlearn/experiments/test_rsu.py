"""RSU's experiment: end to end on a bank of 8 small models, and its verdicts on made rows."""

from dataclasses import replace

import pytest

from tests.unlearn.experiments import tiny
from unlearn.experiments import rsu
from unlearn.experiments.rsu import APART, VARIANTS, plans


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny.bank(tmp_path_factory.mktemp("rsu"), models=8)


def test_a_class_and_a_tenth_at_random_are_judged_in_all_orders(store):
    ready, found, path = tiny.carried("rsu", store, algorithms=("gradient-ascent", "bad-teacher"), seeds=1, seed=3)
    assert set(found.results) == {"class", "random", APART}
    assert {row["forget_set"] for row in found.results["class"]} == {"class:3"}
    tenth = ready.store.manifest.split_sizes[0] // 10
    assert {row["n_forget"] for row in found.results["random"]} == {tenth}
    for part, variants in (("class", VARIANTS), ("random", VARIANTS), (APART, ("rsu",))):
        assert {row["variant"] for row in found.results[part] if row["select"]} == set(variants)
    schedules = {row["rounds"] for row in found.results[APART] if row["variant"] == "rsu"}
    assert len(schedules) == 1
    assert '"partition"' in schedules.pop()
    assert not found.incomplete
    assert bytes(ready.store.folder.read(f"{path}/figure.png"))[:4] == b"\x89PNG"


def test_a_size_that_is_given_is_that_of_the_random_set(store):
    sweeps = plans(replace(tiny.asked("gradient-ascent"), store=store))
    assert sweeps["random"].size == 12
    assert all(plan.rounds == 5 for plan in sweeps.values())


def made(of_class, at_random, apart):
    """ToW of gradient ascent under (vanilla, rsu, rsu-reversed) on a class and at random, and of RSU in parts."""
    one = "gradient-ascent"
    results = {
        part: [
            row
            for variant, value in zip(VARIANTS, tow, strict=True)
            for row in tiny.rows(one, variant, tow_test=value, mia_test_gap=1 - value)
        ]
        for part, tow in (("class", of_class), ("random", at_random))
    }
    return results | {APART: tiny.rows(one, "rsu", tow_test=apart)}


def test_verdicts():
    said = rsu.findings(made((0.7, 0.9, 0.8), (0.7, 0.75, 0.7), 0.9), tiny.asked("gradient-ascent"))
    assert tiny.verdicts(said, "gradient-ascent: RSU is above one go") == ["holds", "holds"]
    assert tiny.verdicts(said, "RSU gains more on a class") == ["holds", "holds"]
    assert tiny.verdicts(said, "nearer to the oracle's") == ["holds"]
    assert tiny.verdicts(said, "ascending risk is above descending") == ["holds"]
    assert tiny.verdicts(said, "one go is above descending") == ["fails"]
    assert tiny.verdicts(said, "disjoint") == ["undecided"]


def test_verdicts_the_other_way():
    said = rsu.findings(made((0.7, 0.7, 0.8), (0.7, 0.9, 0.7), 0.5), tiny.asked("gradient-ascent"))
    assert tiny.verdicts(said, "gradient-ascent: RSU is above one go") == ["undecided", "holds"]
    assert tiny.verdicts(said, "RSU gains more on a class") == ["fails", "fails"]
    assert tiny.verdicts(said, "ascending risk is above descending") == ["fails"]
    assert tiny.verdicts(said, "disjoint") == ["holds"]


def test_the_mean_of_all_weighs_algorithms_alike():
    ours = made((0.7, 0.9, 0.8), (0.7, 0.75, 0.7), 0.9)
    for part, rows in ours.items():
        twin = [row | {"contender": "bad-teacher", "tow_test": 0.5} for row in rows]
        ours[part] = [*rows, *twin]
    said = rsu.findings(ours, tiny.asked("gradient-ascent", "bad-teacher"))
    mean = [one.value.value for one in said if one.claim.startswith("mean of all: RSU")]
    alone = [one.value.value for one in said if one.claim.startswith("gradient-ascent: RSU is above")]
    assert mean == pytest.approx([alone[0] / 2, alone[1] / 2, (alone[0] - alone[1]) / 2])
