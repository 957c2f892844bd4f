"""Influence against loops over pairs and models, and the selected pairs of a bank."""

import math

import numpy as np
import pyarrow as pa
import pytest

from memscore.analysis import influence_pairs as module
from memscore.analysis.influence_pairs import find_influence_pairs
from memscore.estimators.influence import Tile, influence, iterate_tiles, pack_targets
from memscore.estimators.memorization import MEMORIZATION, memorization
from memscore.estimators.statistic import compute_table
from memscore.store.manifest import Manifest
from memscore.store.parquet import decode_metadata
from memscore.store.shards import format_model_name, hash_shards
from memscore.store.store import Store
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.banks import manifest

ARM = {"name": "exact-k0.500", "design": "exact", "keep": 0.5, "block": 64, "clusters": None}
TRAIN, VALIDATION, TEST = 30, 3, 20


def naive(member, correct, counted=None):
    """Loops over pairs and models."""
    counted = np.ones_like(correct) if counted is None else counted
    value = np.full((member.shape[1], correct.shape[1]), np.nan)
    for i in range(member.shape[1]):
        for j in range(correct.shape[1]):
            inside = [correct[m, j] for m in range(len(member)) if member[m, i] and counted[m, j]]
            outside = [correct[m, j] for m in range(len(member)) if not member[m, i] and counted[m, j]]
            if inside and outside:
                value[i, j] = sum(inside) / len(inside) - sum(outside) / len(outside)
    return value


def noise(models, train, targets, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((models, train)) < 0.6, rng.random((models, targets)) < 0.7


@pytest.fixture
def bank(tmp_path):
    """40 models: train example 3 decides test examples 0 to 4, examples 5 and 6 are each other's twins; noise else."""
    rng = np.random.default_rng(1)
    store = Store.create(tmp_path / "bank", manifest(split_sizes=(TRAIN, VALIDATION, TEST)), ids())
    store.add_arm(ARM)
    n = TRAIN + VALIDATION + TEST
    member = np.zeros((40, n), bool)
    member[:, :TRAIN] = rng.random((40, TRAIN)) < 0.5
    member[:, 29] = True  # never out
    correct = (rng.random((40, n)) < 0.6) | member
    correct[:, 3] = member[:, 3]
    correct[:, TRAIN + VALIDATION : TRAIN + VALIDATION + 5] = member[:, [3]]
    correct[:, [5, 6]] = member[:, [5]] | member[:, [6]]
    for index in range(40):
        floats = {name: np.zeros(n, np.float32) for name in ("logit_confidence", "gap", "top_gap")}
        columns = {"row": np.arange(n, dtype=np.int32), "member": member[index], "correct": correct[index], **floats}
        store.write_shard(format_model_name(ARM["name"], index), ARM["name"], columns)
    return store, member, correct


def ids():
    n = TRAIN + VALIDATION + TEST
    return pa.table({"row": pa.array(range(n), pa.int32()), "id": [f"x/{i:03d}" for i in range(n)]})


def rows_of(store, **arguments):
    return find_influence_pairs(store, ARM["name"], store.find_valid_shards(ARM["name"]), **arguments).to_pandas()


def test_it_equals_loops_over_pairs_and_models():
    member, correct = noise(24, 11, 7)
    member[:, 0], member[:, 1] = True, False
    # exact counts, divided in float64 as in the loops: equal to the bit
    np.testing.assert_array_equal(influence(member, correct), naive(member, correct))


def test_models_that_hold_the_target_can_be_left_out():
    member, correct = noise(24, 9, 9)
    whole = influence(member, correct, ~member)
    np.testing.assert_array_equal(whole, naive(member, correct, ~member))
    assert np.isnan(np.diag(whole)).all()


def test_the_diagonal_of_train_by_train_is_memorization():
    member, correct = noise(40, 25, 25, seed=2)
    np.testing.assert_array_equal(np.diag(influence(member, correct)), memorization(correct, member))


def test_an_example_that_decides_a_target_has_influence_1_and_all_others_none():
    """Every subset of three examples once: inclusions are independent exactly, so there is no noise."""
    member = np.array([[m >> bit & 1 for bit in range(3)] for m in range(8)], bool)
    assert influence(member, member[:, [1]])[:, 0].tolist() == [0, 1, 0]
    assert influence(member, ~member[:, [1]])[:, 0].tolist() == [0, -1, 0]
    either = member[:, [0]] | member[:, [2]]
    assert influence(member, either)[:, 0].tolist() == [0.5, 0, 0.5]


def test_a_twin_counts_half_as_much_where_the_target_is_held_half_the_time():
    """Right when either twin is in. Over all models i's twin moves j by 1/2; over those without j, by 1."""
    member = np.array([[m >> bit & 1 for bit in range(2)] for m in range(4)], bool)
    correct = np.repeat(member.any(1, keepdims=True), 2, axis=1)
    assert influence(member, correct)[0, 1] == 0.5
    assert influence(member, correct, ~member)[0, 1] == 1


def test_an_example_that_was_never_out_is_not_called_influential():
    """The trap of dividing by max(count, 1e-10): the empty side's mean is 0 and the pair's influence 1."""
    member, correct = np.ones((6, 1), bool), np.ones((6, 1), bool)
    guarded = correct.sum() / 6 - (correct & ~member).sum() / max((~member).sum(), 1e-10)
    assert guarded == 1
    assert np.isnan(influence(member, correct)).all()


@pytest.mark.parametrize("held_out", [False, True])
def test_tiles_cover_every_pair_once_however_they_are_cut(held_out):
    member, correct = noise(19, 13, 13, seed=3)
    counted = ~member if held_out else None
    targets = pack_targets(
        (correct[:, cut], counted[:, cut] if held_out else None) for cut in (slice(0, 6), slice(6, 13))
    )
    whole, times_seen = np.full((13, 13), np.nan, np.float32), np.zeros((13, 13), int)
    for tile in iterate_tiles([member[:, :5], member[:, 5:]], targets, tile=4):
        times_seen[tile.train, tile.target] += 1
        whole[tile.train, tile.target] = tile.influence()
    assert (times_seen == 1).all()
    # float32 of values below 3 before they are subtracted
    np.testing.assert_allclose(whole, influence(member, correct, counted), atol=1e-6)


def test_counts_are_exact_where_a_float32_average_is_not():
    """4,097 models: 1 / n_in is no float32, counts are."""
    member, correct = noise(4097, 2, 2, seed=4)
    tile = next(iterate_tiles([member], pack_targets([(correct, None)])))
    assert tile.counts(np.array([1]), np.array([0])).ravel().tolist() == [
        (member[:, 1] & correct[:, 0]).sum(),
        member[:, 1].sum(),
        (~member[:, 1] & correct[:, 0]).sum(),
        (~member[:, 1]).sum(),
    ]
    np.testing.assert_array_equal(influence(member, correct), naive(member, correct))


def test_members_of_other_models_are_refused():
    member, correct = noise(9, 4, 4)
    with pytest.raises(ValueError, match="members are of 8 models, targets of 9"):
        next(iterate_tiles([member[:8]], pack_targets([(correct, None)])))


def test_influence_of_coin_flips_is_noise_of_known_size():
    """64 of 128 models each side: variance 1 / 128 exactly, and the 40,000 pairs are uncorrelated."""
    member = draw_membership(Arm(design="exact"), range(128), 200)
    correct = np.random.default_rng(5).random((128, 200)) < 0.5
    value = influence(member, correct)
    assert abs((value**2).mean() * 128 - 1) < 4 * np.sqrt(2 / 40_000)  # 4 s.e.
    assert abs(value.mean()) < 4 / np.sqrt(128 * 40_000)


def expected(member, correct, columns, least, least_memorization, top, counted=None):
    """Pairs from the dense matrix: rows of the store."""
    dense = naive(member[:, :TRAIN], correct[:, columns], counted)
    memorized = memorization(correct[:, :TRAIN], member[:, :TRAIN])
    if len(columns) == TRAIN:
        np.fill_diagonal(dense, np.nan)
    pairs = set()
    for j, row in enumerate(columns):
        defined = [i for i in range(TRAIN) if not np.isnan(dense[i, j])]
        pairs |= {(i, row) for i in sorted(defined, key=lambda i: (-dense[i, j], i))[:top]}
        pairs |= {(i, row) for i in defined if dense[i, j] >= least and memorized[i] >= least_memorization}
    return pairs, dense, memorized


@pytest.mark.parametrize("targets", ["test", "train", "train-held-out"])
@pytest.mark.parametrize("top", [0, 1, 4])
@pytest.mark.parametrize("tile", [4, 1024])
def test_rows_are_the_pairs_of_the_dense_matrix(bank, targets, top, tile, monkeypatch):
    store, member, correct = bank
    monkeypatch.setattr(module.iterate_tiles, "__defaults__", (tile,))
    columns = list(range(TRAIN + VALIDATION, TRAIN + VALIDATION + TEST)) if targets == "test" else list(range(TRAIN))
    counted = ~member[:, :TRAIN] if targets == "train-held-out" else None
    pairs, dense, memorized = expected(member, correct, columns, 0.15, 0.25, top, counted)
    table = rows_of(store, targets=targets, top=top, least=0.15)
    assert set(zip(table["train_row"], table["test_row"], strict=True)) == pairs
    assert len(table) == len(pairs)
    at = table["test_row"].to_numpy() - columns[0]
    np.testing.assert_array_equal(table["influence"], dense[table["train_row"], at])
    np.testing.assert_array_equal(table["memorization"].to_numpy(), memorized[table["train_row"]])
    assert (table["se"] > 0).all()
    assert table["train_id"].tolist() == [f"x/{i:03d}" for i in table["train_row"]]
    assert table["test_id"].tolist() == [f"x/{i:03d}" for i in table["test_row"]]


def test_rows_come_by_target_the_most_influential_first(bank):
    table = rows_of(bank[0])
    key = list(zip(table["test_row"], -table["influence"], table["train_row"], strict=True))
    assert key == sorted(key)
    first = table.groupby("test_row").first()
    assert first["train_row"].iloc[:5].tolist() == [3] * 5
    assert first["influence"].iloc[:5].tolist() == [1.0] * 5


def test_the_thresholds_are_parameters(bank):
    store = bank[0]
    some, most = rows_of(store, top=0, least=0.9), rows_of(store, top=0, least=1.0)
    assert set(some["train_row"]) == set(most["train_row"]) == {3}
    assert (most["influence"] == 1).all()
    assert len(rows_of(store, top=0, least=0.01, least_memorization=1.0)) < len(rows_of(store, top=0, least=0.01))


def test_a_pair_just_at_the_threshold_is_kept():
    """.6 = 3/5 - 0/5 in float64 and .60000002 in float32: decided in float64."""
    member = np.arange(10)[:, None] < 5
    correct = np.arange(10)[:, None] < 3
    picked = module._PairSelection(1, 0, 10)
    tile = next(iterate_tiles([member], pack_targets([(correct, None)])))
    picked.add(tile, 0.6, np.array([True]), without_self=False)
    assert picked.pairs()[2:].ravel().tolist() == [3, 5, 0, 5]
    above = module._PairSelection(1, 0, 10)
    above.add(tile, np.nextafter(0.6, 1), np.array([True]), without_self=False)
    assert above.pairs().shape == (6, 0)


def test_the_error_of_a_self_pair_would_be_that_of_memorization():
    """Both come from the same counts."""
    member, correct = noise(40, 5, 5, seed=6)
    tile: Tile = next(iterate_tiles([member], pack_targets([(correct, None)])))
    on_itself = tile.counts(np.arange(5), np.arange(5))
    table = compute_table(MEMORIZATION, correct, member)
    assert (on_itself[1] == table["n_in"]).all()
    assert (on_itself[3] == table["n_out"]).all()
    assert (on_itself[0] == (correct & member).sum(0)).all()


def test_more_strong_pairs_than_fit_are_refused(bank):
    with pytest.raises(ValueError, match=r"more than 5 pairs reach influence 0.01;.*raise least"):
        rows_of(bank[0], least=0.01, least_memorization=-1, max_rows=5)


def test_a_least_influence_that_is_chosen_leaves_no_more_pairs_than_fit(bank):
    assert len(rows_of(bank[0], top=0)) >= 5  # of the example that decides five targets
    assert len(rows_of(bank[0], top=0, max_rows=5)) == 5
    assert len(rows_of(bank[0], top=0, max_rows=4)) == 0


def test_an_unknown_kind_of_targets_is_refused(bank):
    with pytest.raises(ValueError, match="unknown kind of targets 'tests'; did you mean 'test'"):
        rows_of(bank[0], targets="tests")


def test_a_bank_without_test_examples_says_so(tmp_path):
    bank_manifest: Manifest = manifest(split_sizes=(50, 2, 0))
    n = pa.table({"row": pa.array(range(52), pa.int32()), "id": [str(i) for i in range(52)]})
    store = Store.create(tmp_path / "bank", bank_manifest, n)
    with pytest.raises(ValueError, match="has no test examples; use targets 'train'"):
        find_influence_pairs(store, ARM["name"], {0: "a"})


@pytest.mark.parametrize("targets", ["test", "train-held-out"])
@pytest.mark.parametrize("least", [0.15, 0.3, 1.0])
def test_pairs_as_strong_the_other_way_are_counted_exactly(bank, targets, least):
    store, member, correct = bank
    test = slice(TRAIN + VALIDATION, None) if targets == "test" else slice(TRAIN)
    counted = ~member[:, :TRAIN] if targets == "train-held-out" else None
    dense = naive(member[:, :TRAIN], correct[:, test], counted)
    memorized = naive(member[:, :TRAIN], correct[:, :TRAIN]).diagonal() >= 0.25
    table = find_influence_pairs(store, ARM["name"], store.find_valid_shards(ARM["name"]), targets=targets, least=least)
    assert int(decode_metadata(table.schema)["opposite"]) == (dense[memorized] <= -least).sum()


def test_progress_ends_with_every_train_example_and_the_strong_pairs(bank, monkeypatch):
    store = bank[0]
    monkeypatch.setattr(module.iterate_tiles, "__defaults__", (8,))
    reports = []
    table = rows_of(store, top=0, least=0.15, progress=lambda *line: reports.append(line))
    assert [done for done, _, _ in reports] == [0, 8, 16, 24, 30]
    assert reports[0][2].endswith("permutations")
    assert reports[-1] == (30, 30, f"{len(table)} strong pairs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": -1}, "top must be 0 or more, got -1"),
        *(({"least": least}, r"least must lie in \(0, 1\], got") for least in (math.nan, math.inf, 5, 1.01, 0.0, -0.2)),
        *(({"least_memorization": least}, "least_memorization must lie in") for least in (math.nan, 1.5, -1.01)),
    ],
)
def test_parameters_without_a_sense_are_refused(bank, options, message):
    with pytest.raises(ValueError, match=message):
        rows_of(bank[0], **options)


def test_the_table_says_what_it_was_made_from(bank):
    store = bank[0]
    shards = store.find_valid_shards(ARM["name"])
    table = find_influence_pairs(store, ARM["name"], shards, least=0.2)
    said = decode_metadata(table.schema)
    assert said["shards_digest"] == hash_shards(ARM["name"], shards)
    assert (said["arm"], said["models"], said["least"]) == (ARM["name"], "40", "0.2")
    store.write_table("influence.parquet", table)
    assert store.read_table("influence.parquet").equals(table)
