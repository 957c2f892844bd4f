"""Methods: what each variant and each plan turns into, and options that are rejected."""

import numpy as np
import pytest

from unlearn.meta.rsu import RsuSchedule
from unlearn.trials.config import ORIGINAL
from unlearn.tuning import methods
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.methods import CENTROID

SCORES = ("memorization_k0.500", CENTROID)


def build_methods(*algorithms, **more):
    """Build the methods of a sweep of these algorithms."""
    return methods.build_methods(
        SweepConfig(store="", algorithms=algorithms, **{"variants": ("vanilla",)} | more), "mlp-8"
    )


def split_parts(method, values):
    """Which algorithm forgets which rows, in order."""
    parts = method.partition.split(tuple(range(len(values))), lambda name: values, lambda: values[:, None], seed=0)
    return [(method.list_candidates(number), part) for number, part in enumerate(parts)]


def test_each_variant_is_a_cut_and_an_order():
    built = build_methods(
        *("finetune", "salun"),
        variants=("vanilla", "shuffle", "rum", "rum-reversed", "rsu", "rsu-reversed", "auto", "auto-reversed"),
        scores=SCORES,
        parts=4,
        rounds=3,
    )
    by_name = {(method.name, method.variant): method for method in built}
    assert len(by_name) == len(built) == 2 * (1 + 1 + 2 + 2 + 1 + 1) + 2 + 2
    for name in ("finetune", "salun"):
        partitions = {variant: method.partition for (owner, variant), method in by_name.items() if owner == name}
        assert (partitions["vanilla"].kind, partitions["vanilla"].k) == ("whole", 1)
        assert (partitions["shuffle"].kind, partitions["shuffle"].k) == ("shuffle", 4)
        rum, down = (partitions[f"{variant} {SCORES[0]}"] for variant in ("rum", "rum-reversed"))
        assert (rum.kind, rum.score, rum.k, rum.order) == ("score", SCORES[0], 4, "ascending")
        assert down.order == "descending"
        assert partitions[f"rum {CENTROID}"].kind == "centroid"
        assert by_name[name, "rsu"].rounds == RsuSchedule(n=3)
        assert by_name[name, "rsu-reversed"].rounds == RsuSchedule(n=3, order="descending")
        assert by_name[name, "rsu"].partition.k == 1
    assert all(by_name[name, "vanilla"].rounds is None for name in ("finetune", "salun"))


def test_rsu_ranks_by_a_score_in_the_order_of_the_rows_and_names_it():
    plain, up, down = (
        *build_methods("finetune", variants=("rsu",), rounds=2),
        *build_methods("finetune", variants=("rsu", "rsu-reversed"), rounds=2, risk="attack_success"),
    )
    assert [method.variant for method in (plain, up, down)] == [
        "rsu",
        "rsu attack_success",
        "rsu-reversed attack_success",
    ]
    read_score = {"attack_success": np.array([0.5, 0.9, np.nan, 0.1])}.__getitem__
    assert plain.build_schedule((0, 1, 3), read_score) == RsuSchedule(n=2)
    assert up.build_schedule((0, 1, 3), read_score) == RsuSchedule(n=2, risk=(0.5, 0.9, 0.1))
    assert down.build_schedule((3, 1), read_score) == RsuSchedule(n=2, order="descending", risk=(0.1, 0.9))
    with pytest.raises(ValueError, match="--risk attack_success is undefined for 1 of the 2 examples to forget"):
        up.build_schedule((2, 3), read_score)


def test_automatic_rum_chooses_among_all_algorithms_and_nothing():
    [auto] = build_methods("finetune", "scrub", variants=("auto",), scores=SCORES[:1], parts=3)
    assert auto.automatic
    assert auto.name == "automatic"
    assert auto.levels == 3
    assert all(auto.list_candidates(number) == (ORIGINAL, "finetune", "scrub") for number in range(3))


def test_a_reversed_plan_keeps_each_algorithm_with_its_part():
    values = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.4])
    up, down = build_methods(
        variants=("rum", "rum-reversed"), plans=("nothing>finetune>salun",), scores=SCORES[:1], parts=3
    )
    assert (up.name, down.name) == ("nothing>finetune>salun", "salun>finetune>nothing")
    assert split_parts(up, values) == [((ORIGINAL,), (1, 3)), (("finetune",), (2, 5)), (("salun",), (0, 4))]
    assert split_parts(down, values) == split_parts(up, values)[::-1]


def test_an_order_of_the_parts_is_a_variant_of_its_own_and_plans_keep_their_parts():
    values = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.4])
    plain, ordered, up, planned = build_methods(
        *("scrub",),
        variants=("rum",),
        order=("medium", "low", "high"),
        plans=("nothing>finetune>salun",),
        scores=SCORES[:1],
    )
    assert [method.variant for method in (plain, up)] == [f"rum {SCORES[0]}"] * 2
    assert [method.variant for method in (ordered, planned)] == [f"rum-medium-low-high {SCORES[0]}"] * 2
    low, medium, high = (1, 3), (2, 5), (0, 4)
    assert [part for _, part in split_parts(ordered, values)] == [medium, low, high]
    assert planned.name == "finetune>nothing>salun"
    assert split_parts(planned, values) == [(("finetune",), medium), ((ORIGINAL,), low), (("salun",), high)]
    [by_centroid] = build_methods("scrub", variants=(), order=("3", "1", "2"), scores=(CENTROID,))
    assert (by_centroid.variant, by_centroid.partition.kind) == ("rum-high-low-medium centroid", "centroid")


def test_an_order_of_other_than_three_parts_is_of_numbers():
    values = np.array([0.4, 0.1, 0.3, 0.2])
    [method] = build_methods("scrub", variants=(), order=("4", "1", "3", "2"), scores=SCORES[:1], parts=4)
    assert method.variant == f"rum-4-1-3-2 {SCORES[0]}"
    assert [part for _, part in split_parts(method, values)] == [(0,), (1,), (2,), (3,)]


@pytest.mark.parametrize(("order", "same"), [(("low", "medium", "high"), "rum"), (("3", "2", "1"), "rum-reversed")])
def test_an_order_that_has_a_name_is_that_variant(order, same):
    plans = {"plans": ("nothing>finetune>salun",), "scores": SCORES[:1]}
    assert build_methods("scrub", variants=(), order=order, scores=SCORES[:1]) == build_methods(
        "scrub", variants=(same,), scores=SCORES[:1]
    )
    both = build_methods("scrub", variants=("rum", same), order=order, **plans)
    assert set(both) == set(build_methods("scrub", variants=("rum", same), **plans))


@pytest.mark.parametrize(
    ("order", "parts", "rule"),
    [
        (("medium", "low"), 3, "low medium high, or 1 2 3, in any order"),
        (("low", "low", "high"), 3, "each of the 3 parts once"),
        (("low", "2", "high"), 3, "each of the 3 parts once"),
        (("low", "high"), 2, "the numbers 1 to 2, in any order"),
        (("0", "1", "2", "3"), 4, "the numbers 1 to 4, in any order"),
    ],
)
def test_an_order_names_each_part_once(order, parts, rule):
    with pytest.raises(ValueError, match=f"--order {' '.join(order)} must .*{rule}"):
        build_methods("scrub", order=order, parts=parts, scores=SCORES[:1])


def test_one_algorithm_takes_every_part():
    [rum] = build_methods("finetune", variants=("rum",), scores=SCORES[:1], parts=3)
    assert [rum.list_candidates(number) for number in range(3)] == [("finetune",)] * 3
    assert rum.levels == 3


def test_joint_tuning_is_one_search():
    built = build_methods("finetune", variants=("vanilla", "rum"), scores=SCORES[:1], tuning="joint")
    assert [method.levels for method in built] == [1, 1]


def test_what_is_asked_for_twice_is_compared_once():
    assert len(build_methods("finetune", "finetune", variants=("vanilla", "vanilla"))) == 1


def test_given_parameters_belong_to_their_algorithm():
    [method, _] = build_methods("finetune", "scrub", set=("finetune.lr=0.1", "finetune.epochs=2"))
    assert method.fixed_params("finetune") == (("epochs", 2), ("lr", 0.1))
    assert method.fixed_params("scrub") == ()


def test_algorithms_that_draw_labels_are_known():
    built = build_methods("finetune", "salun", plans=("finetune>random-label>nothing",), scores=SCORES[:1])
    assert {method.name: method.draws_labels for method in built} == {
        "finetune": False,
        "salun": True,
        "finetune>random-label>nothing": True,
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"algorithms": ("finetun",)}, "unknown algorithm 'finetun'; did you mean 'finetune'"),
        ({"variants": ("rumm",)}, "unknown variant 'rumm'; did you mean 'rum'"),
        ({"variants": ("rum",)}, "rum refines the forget set by a score; name one with --scores"),
        ({"order": ("2", "1", "3")}, "--order 2 1 3 refines the forget set by a score; name one with --scores"),
        ({"plans": ("finetune>salun>scrub",)}, "finetune>salun>scrub refines the forget set by a score"),
        (
            {"plans": ("finetune>salum>scrub",), "scores": SCORES},
            "unknown algorithm in the plan .* 'salum'; did you mean",
        ),
        ({"plans": ("finetune>salun",), "scores": SCORES}, "has 2 steps for 3 parts; name an algorithm for each"),
        ({"variants": ("auto",), "scores": SCORES, "algorithms": ("finetune",)}, "auto chooses among --algorithms"),
        ({"algorithms": ()}, "nothing to compare"),
        ({"set": ("scrub.lr=1.0",)}, "--set gives parameters of scrub, which is not compared; known: finetune"),
    ],
)
def test_words_that_cannot_hold_are_refused(more, message):
    config = {"algorithms": ("finetune", "salun")} | more
    with pytest.raises(ValueError, match=message):
        build_methods(*config.pop("algorithms"), **config)
