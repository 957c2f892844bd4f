"""Forget sets by every rule, on data whose scores are their row numbers."""

from dataclasses import replace

import numpy as np
import pytest

from memscore.data.datasets import load_dataset
from memscore.score_registry import resolve_alias
from unlearn.forget_sets import (
    FORGET_SETS,
    changes_data,
    find_kind,
    inject_forget_set,
    resolve_score_alias,
    select_forget_set,
)
from unlearn.measures.entanglement import entanglement_score


@pytest.fixture(scope="module")
def splits():
    return load_dataset("digits", train_limit=300)


def scores_of(splits, values):
    return lambda name: (splits.train.ids, np.asarray(values, dtype=np.float64))


def rows_of(spec, size, splits, values=None, embeddings=None, seed=0):
    values = np.arange(300) / 299 if values is None else values
    return list(select_forget_set(spec, size, splits, scores_of(splits, values), lambda: embeddings, seed).rows)


def test_levels_of_a_score(splits):
    assert rows_of("memorization_k0.500:low", 3, splits) == [0, 1, 2]
    assert rows_of("memorization_k0.500:high", 3, splits) == [297, 298, 299]
    assert rows_of("memorization_k0.500:riskiest", 2, splits) == [298, 299]
    assert rows_of("memorization_k0.500:medium", 2, splits) == [149, 150]
    assert rows_of("memorization_k0.500:union", 6, splits) == [0, 1, 149, 150, 298, 299]


def test_medium_is_nearest_a_half_for_memorization_and_nearest_the_median_for_others(splits):
    values = np.concatenate([np.zeros(200), np.linspace(0.01, 1, 100)])
    assert rows_of("memorization_k0.500:medium", 1, splits, values) == [249]
    assert rows_of("entropy:medium", 1, splits, values) == [0]


def test_what_has_no_score_is_never_chosen_by_it(splits):
    values = np.where(np.arange(300) < 290, np.nan, np.arange(300))
    assert rows_of("entropy:low", 3, splits, values) == [290, 291, 292]
    with pytest.raises(ValueError, match="--size 11, but there are 10 training examples whose entropy is defined"):
        rows_of("entropy:low", 11, splits, values)


def test_a_twin_has_none_of_the_riskiest(splits):
    twin = rows_of("entropy:twin", 100, splits)
    assert len(twin) == 100
    assert max(twin) < 200
    assert twin != rows_of("entropy:twin", 100, splits, seed=1)


def test_a_random_set_is_drawn_by_its_seed(splits):
    assert rows_of("random", 30, splits) == rows_of("random", 30, splits)
    assert rows_of("random", 30, splits) != rows_of("random", 30, splits, seed=1)


def test_a_class_by_its_name(splits):
    names = ("zero", "one", "two, three", "3", "4", "5", "6", "7", "8", "0")
    named = replace(splits, class_names=names)
    assert rows_of("class:one", 7, named) == rows_of("class:1", 7, splits)
    assert rows_of("class:zero,one", 7, named) == rows_of("class:0,1", 7, splits)
    assert rows_of("class:two, three", 7, named) == rows_of("class:2", 7, splits)
    assert rows_of("partial-class:zero", 7, named) == rows_of("partial-class:0", 7, splits)
    assert rows_of("class:0", 7, named) == rows_of("class:0", 7, splits)  # digits are the number
    with pytest.raises(ValueError, match=r"'zeor' is no class; did you mean 'zero'\? .* or their names such as 'zero'"):
        rows_of("class:zeor", 7, named)


def test_a_class_and_a_part_of_one(splits):
    whole = select_forget_set("class:3", 7, splits, scores_of(splits, np.zeros(300)), lambda: None, 0)
    assert whole.by_class
    assert list(whole.rows) == np.flatnonzero(splits.train.labels == 3).tolist()
    part = rows_of("partial-class:3", 7, splits)
    assert len(part) == 7
    assert set(part) < set(whole.rows)


def test_several_classes_are_all_their_examples(splits):
    whole = select_forget_set("class:0,3,1", 7, splits, scores_of(splits, np.zeros(300)), lambda: None, 0)
    assert whole.by_class
    assert whole.name == "class:0,3,1"
    assert list(whole.rows) == [row for row, label in enumerate(splits.train.labels) if label in {0, 1, 3}]


def test_the_farthest_from_the_centroid_are_the_least_entangled(splits):
    """Ten groups of 30 on a line; the centroid is at its middle."""
    embeddings = np.arange(300, dtype=np.float32)[:, None]
    far = np.abs(np.arange(300) - 149.5)
    by_distance = np.argsort(far, kind="stable")
    low, medium, high = (
        rows_of(f"entanglement:{level}", 30, splits, None, embeddings) for level in ("low", "medium", "high")
    )
    assert sorted(by_distance[270:].tolist()) == low
    assert sorted(by_distance[240:270].tolist()) == medium
    assert sorted(by_distance[60:90].tolist()) == high


def read_worst_case(splits, loss, right_without):
    """A reader of the two scores, oriented as a store has them."""
    scores = {"final_loss": loss, "cscore_k0.500": -np.asarray(right_without)}
    return lambda name: (splits.train.ids, np.asarray(scores[name], dtype=np.float64))


def test_the_worst_case_is_where_theta_o_is_farthest_from_models_without_the_example(splits):
    loss, right_without = np.zeros(300), np.ones(300)  # theta_o certain, and so is everybody: gap 0
    right_without[[7, 200, 31]] = 0.1, 0.0, np.nan
    loss[[12, 50]] = np.log(2), 50.0  # theta_o gives 1/2, and 0: gaps of 1/2 and 1
    scores = read_worst_case(splits, loss, right_without)

    def select(size, excluded=(), spec="worst-case:k0.500"):
        return select_forget_set(spec, size, splits, scores, lambda: None, 0, excluded)

    assert select(4).rows == (7, 12, 50, 200)
    assert select(3).rows == (7, 50, 200)
    assert select(1).rows == (50,)  # of equal gaps the first row
    assert select(2, excluded=(50, 200)).rows == (7, 12)
    assert select(2).name == "worst-case:k0.500 of 2"
    with pytest.raises(ValueError, match=r"--size 299, but there are 298 .* defined and that are not in the other"):
        select(299, excluded=(0,))
    with pytest.raises(
        ValueError, match=r"needs the keep fraction of the models to compare with, as worst-case:k0\.500"
    ):
        select(3, spec="worst-case")


def test_a_worst_case_without_its_scores_says_what_gives_them(splits):
    def scores(name):
        raise ValueError(f"unknown score {name!r}")

    with pytest.raises(
        ValueError, match=r"compares final_loss, which .*--originals N` gives, .*unknown score 'final_l"
    ):
        select_forget_set("worst-case:k0.500", 3, splits, scores, lambda: None, 0)


def test_ids_by_name_and_from_a_file(splits, tmp_path):
    names = splits.train.ids[[5, 2]].tolist()
    (tmp_path / "forget.txt").write_text("\n".join(names))
    assert rows_of(f"ids:{tmp_path / 'forget.txt'}", 1, splits) == [2, 5]
    assert rows_of(f"id:{names[0]}", 1, splits) == [5]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("twice.txt", b"all/00001\nall/00001", "names 'all/00001' more than once"),
        ("noise.txt", b"\x80\x81", "is no text .* write one id a line"),
        ("none.txt", b"\n", "must hold ids such as"),
        ("other.doc", b"all/00001", "ids are read from .txt, .csv, .tsv, .json, .npz or .parquet, got 'other.doc'"),
    ],
)
def test_a_file_that_names_no_forget_set_says_so(splits, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        rows_of(f"ids:{tmp_path / name}", 1, splits)
    with pytest.raises(FileNotFoundError, match=r"there is no file of ids at .*; give --forget ids: a .txt"):
        rows_of(f"ids:{tmp_path / 'nowhere.txt'}", 1, splits)


def test_an_id_in_place_of_a_file_and_a_file_in_place_of_an_id_name_the_other_form(splits, tmp_path):
    example = splits.train.ids[0]
    with pytest.raises(
        ValueError, match=f"--forget ids:{example} names an id, and no file of ids; use .* id:{example}"
    ):
        rows_of(f"ids:{example}", 1, splits)
    file = tmp_path / "forget.txt"
    file.write_text(example)
    with pytest.raises(ValueError, match=r"names a file, and no id; use --forget ids:.*forget.txt"):
        rows_of(f"id:{file}", 1, splits)


@pytest.mark.parametrize(
    ("spec", "size", "message"),
    [
        ("randon", 5, "unknown forget set 'randon'; known: random"),
        ("entropy:hihg", 5, "unknown part of a score 'hihg'; did you mean 'high'"),
        ("entanglement:hihg", 5, "unknown level of entanglement 'hihg'; did you mean 'high'"),
        ("entanglement:high", 200, "use 100 or fewer"),
        ("entanglement-at-entropy:hihg", 5, "unknown level of entanglement 'hihg'; did you mean 'high'"),
        ("entanglement-at-entropy:high", 61, "--size 61: .* equal entropy .* for 300 .*; use 60 or fewer"),
        ("class:11", 5, r"'11' is no class \(classes are the numbers 0 to 9"),
        ("class:3,11", 5, r"'11' is no class \(classes are the numbers 0 to 9"),
        ("class:3,", 5, "'' is no class"),
        ("class:0,3,0", 5, "class:0,3,0 names class 0 more than once; name each class once"),
        ("class:0,1,2,3,4,5,6,7,8,9", 5, "names all 10 classes, and at least one must be retained; leave one out"),
        ("partial-class:0,1", 5, "'0,1' is no class"),
        ("id:all/99999", 5, "'all/99999' is no id of the training set; ids are as 'all/"),
        ("random", 0, "--size 0: a forget set has 1 to 299"),
        ("random", 300, "--size 300: a forget set has 1 to 299"),
        ("partial-class:3", 200, "training examples of class 3; use "),
        ("entropy:union", 100, "use a multiple of 3"),
        ("entropy:union", 300, "--size 300: a forget set"),
        ("memorization:union", 297, "share examples at 99 each"),
    ],
)
def test_what_names_no_forget_set_says_so(spec, size, message, splits):
    values = np.concatenate([np.full(150, 0.4), np.full(150, 0.45)])
    with pytest.raises(ValueError, match=message):
        rows_of(spec, size, splits, values, np.zeros((300, 2)))


def test_canaries_are_scrambled_and_nothing_else_is(splits):
    planted, forget = inject_forget_set("canaries", 100, splits, seed=0)
    changed = np.flatnonzero((planted.train.images != splits.train.images).any(axis=(1, 2, 3)))
    assert len(forget.rows) == 100
    assert len(changed) == 5
    assert set(changed) < set(forget.rows)
    for row in changed:
        assert sorted(planted.train.images[row].ravel()) == sorted(splits.train.images[row].ravel())
    assert np.array_equal(planted.train.labels, splits.train.labels)
    assert planted.fingerprint != splits.fingerprint
    assert planted.label_changes == {"canaries": 5, "canaries_of": 100, "canaries_seed": 0}
    assert np.array_equal(splits.train.images, load_dataset("digits", train_limit=300).train.images)


def test_canaries_are_shuffled_each_by_an_order_of_its_own():
    splits = load_dataset("digits", train_limit=300)
    splits.train.images[:] = np.arange(64).reshape(1, 1, 8, 8)
    planted, _ = inject_forget_set("canaries", 100, splits, seed=0)
    changed = planted.train.images[(planted.train.images != splits.train.images).any(axis=(1, 2, 3))]
    assert len(np.unique(changed.reshape(len(changed), -1), axis=0)) == 5


def test_confusion_swaps_one_percent_of_two_classes():
    splits = load_dataset("digits")
    planted, forget = inject_forget_set("confusion:3,5", 0, splits, seed=0)
    rows = list(forget.rows)
    sizes = [round(0.01 * np.sum(splits.train.labels == label)) for label in (3, 5)]
    assert len(rows) == sum(sizes)
    assert sorted(planted.train.labels[rows].tolist()) == [3] * sizes[1] + [5] * sizes[0]
    assert np.array_equal(planted.train.labels_true, splits.train.labels_true)
    others = np.setdiff1d(np.arange(len(splits.train)), rows)
    assert np.array_equal(planted.train.labels[others], splits.train.labels[others])
    assert planted.fingerprint != splits.fingerprint


@pytest.mark.parametrize(
    ("spec", "size", "message"),
    [
        ("confusion:3,3", 0, "swaps a class with itself"),
        ("confusion:3", 0, "needs two classes, as confusion:0,1"),
        ("confusion:3,x", 0, "'x' is no class"),
        ("confusion:3,5", 0, "1 % of classes 3 and 5 is no example"),
        ("canaries", 9, "use --size 20 or more"),
    ],
)
def test_what_cannot_be_planted_says_so(spec, size, message, splits):
    with pytest.raises(ValueError, match=message):
        inject_forget_set(spec, size, splits, 0)


def test_levels_of_entanglement_at_a_score_have_its_mean_in_common_and_differ_in_es(splits):
    """The score rises with the distance, so that plain levels differ in both; tied values make half of the groups."""
    rng = np.random.default_rng(0)
    embeddings = np.column_stack([rng.normal(size=300), rng.exponential(3, size=300)])  # the farthest lie one way
    far = np.linalg.norm(embeddings - embeddings.mean(0), axis=1)
    score = np.maximum(0, far / far.max() + rng.normal(scale=0.2, size=300) - 0.2)
    assert (score == 0).sum() > 60

    def mean_and_es(spec):
        rows = rows_of(spec, 50, splits, score, embeddings)
        assert len(rows) == 50
        return score[rows].mean(), entanglement_score(np.delete(embeddings, rows, 0), embeddings[rows])

    plain, matched = (
        [mean_and_es(f"{word}:{level}") for level in ("low", "medium", "high")]
        for word in ("entanglement", "entanglement-at-memorization_k0.500")
    )
    assert plain[0][0] - plain[2][0] > 3 * np.ptp(score) / 50
    assert np.ptp([mean for mean, _ in matched]) <= np.ptp(score) / 50
    assert 3 * matched[0][1] < matched[2][1]


def test_levels_of_entanglement_at_a_score_leave_out_what_is_not_free(splits):
    embeddings = np.random.default_rng(0).normal(size=(300, 4))
    values = np.where(np.arange(300) < 200, np.arange(300) % 7, np.nan)
    common = "entanglement-at-entropy:low", 20, splits, scores_of(splits, values), lambda: embeddings, 0
    first = select_forget_set(*common)
    second = select_forget_set(*common, excluded=first.rows)
    assert len(second.rows) == 20
    assert not {*first.rows} & {*second.rows}
    assert max(*first.rows, *second.rows) < 200
    assert first.name == "entanglement-at-entropy:low of 20"


@pytest.mark.parametrize("name", FORGET_SETS)
def test_every_kind_is_found_by_what_the_page_says_of_it(name):
    entry = FORGET_SETS[name]
    assert (entry.select is None) != (entry.inject is None)
    for written in " ".join(entry.meanings).split():
        assert find_kind(written) is entry
        assert changes_data(written) == (entry.inject is not None)


def test_a_kind_that_keeps_the_data_is_not_injected(splits):
    with pytest.raises(ValueError, match="class:0 does not change the training data"):
        inject_forget_set("class:0", 5, splits, 0)


def test_a_score_without_its_dot_is_the_same_specification():
    def find_name(name):
        return resolve_alias(name, ["memorization_k0.500", "aum"])

    for spec in (
        "memorization_k0_500:high",
        "entanglement-at-memorization_k0_500:low",
        "aum:twin",
        "class:3",
        "random",
    ):
        assert resolve_score_alias(spec, find_name) == spec.replace("k0_500", "k0.500")
