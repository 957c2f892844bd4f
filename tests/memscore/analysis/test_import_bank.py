"""bank import: arrays of another project become a bank with the scores that they allow, or one clear error line."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from memscore.bank import main
from memscore.data.datasets import load_dataset
from memscore.estimators.cscore import cscore
from memscore.estimators.memorization import memorization
from memscore.store.store import Store
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.banks import bank

M, N, T = 32, 120, 15


@pytest.fixture
def arrays(tmp_path):
    """Files of a bank with margins, and the arrays."""
    rng = np.random.default_rng(0)
    member = rng.random((M, N)) < 0.7
    gap = rng.normal(1, 2, (M, N + T)).astype(np.float32)
    gap[:, :N] += 2 * member
    np.save(tmp_path / "member.npy", member)
    np.save(tmp_path / "gap.npy", gap)
    np.savez(tmp_path / "split.npz", train=gap[:, :N], test=gap[:, N:])
    np.save(tmp_path / "correct.npy", (gap > 0).astype(np.uint8))
    np.save(tmp_path / "confidence.npy", gap - 0.5)
    np.save(tmp_path / "negative.npy", np.full(N + T, -1))
    np.save(tmp_path / "huge.npy", np.where(np.arange(N + T) == 1, 10**12, 0))
    np.save(tmp_path / "labels.npy", rng.integers(0, 3, N + T))
    return tmp_path, member, gap


def run_import(folder, *more, store="bank"):
    return main(["import", str(folder / store), "--member", str(folder / "member.npy"), *map(str, more)])


def read_score(folder, name, store="bank"):
    return Store.open(folder / store).read_score(name)[name].to_numpy()


def test_margins_give_the_scores_that_the_estimators_give(arrays, capsys):
    folder, member, gap = arrays
    assert run_import(folder, "--gap", folder / "gap.npy", "--labels", folder / "labels.npy") == 0
    np.testing.assert_allclose(
        read_score(folder, "memorization_k0.700"), memorization(gap[:, :N] > 0, member), atol=1e-12
    )
    np.testing.assert_allclose(read_score(folder, "cscore_k0.700"), cscore(gap[:, :N] > 0, member)["value"], atol=1e-12)
    store = Store.open(folder / "bank")
    names = {name.removesuffix(".parquet") for name in store.folder.names("scores")}
    assert {"lira_gap_k0.700", "attack_success_gap_k0.700", "memorization_probit_k0.700"} <= names
    assert not {"lira_k0.700", "memorization_probability_k0.700"} & names
    assert store.manifest.n_classes == 3
    out = capsys.readouterr().out
    assert "lira_gap_k0.700" in out
    table = pq.read_table(folder / "bank" / "models.parquet")
    np.testing.assert_allclose(table["accuracy_test"].to_numpy(), (gap[:, N:] > 0).mean(1))


def test_train_and_test_may_lie_in_two_arrays_of_one_file(arrays):
    folder, _, _ = arrays
    assert run_import(folder, "--gap", folder / "gap.npy") == 0
    assert run_import(folder, "--gap", f"{folder}/split.npz:train", f"{folder}/split.npz:test", store="second") == 0
    for name in ("memorization_k0.700", "lira_gap_k0.700"):
        np.testing.assert_array_equal(read_score(folder, name), read_score(folder, name, "second"))


def test_correctness_alone_is_enough_for_memorization_but_not_for_an_attack(arrays, capsys):
    folder, member, gap = arrays
    assert run_import(folder, "--correct", folder / "correct.npy") == 0
    np.testing.assert_allclose(
        read_score(folder, "memorization_k0.700"), memorization(gap[:, :N] > 0, member), atol=1e-12
    )
    assert "membership inference" not in capsys.readouterr().out
    assert run_import(folder, "--correct", folder / "correct.npy", "--attacks", "lira") == 2
    assert "the attack lira reads logit_confidence, which this bank does not store" in capsys.readouterr().err


def test_a_second_run_changes_nothing_and_more_models_are_added(arrays):
    folder, member, gap = arrays
    for models in (20, 20, M):
        np.save(folder / "member.npy", member[:models])
        np.save(folder / "gap.npy", gap[:models])
        assert run_import(folder, "--gap", folder / "gap.npy") == 0
        store = Store.open(folder / "bank")
        assert len(store.find_valid_shards("imported-iid-k0.700")) == models
    np.testing.assert_allclose(
        read_score(folder, "memorization_k0.700"), memorization(gap[:, :N] > 0, member), atol=1e-12
    )


def test_other_content_under_the_same_number_is_refused(arrays, capsys):
    folder, _, gap = arrays
    assert run_import(folder, "--gap", folder / "gap.npy") == 0
    np.save(folder / "gap.npy", gap[::-1])
    assert run_import(folder, "--gap", folder / "gap.npy") == 2
    assert "model 0 is in" in capsys.readouterr().err


def test_an_exact_design_is_checked(arrays, capsys):
    folder, _, _ = arrays
    assert run_import(folder, "--gap", folder / "gap.npy", "--design", "exact", "--block", "16", "--keep", ".7") == 2
    capsys.readouterr()
    exact = draw_membership(Arm(design="exact", keep=0.5, block=16), range(M), N)
    np.save(folder / "member.npy", exact)
    assert run_import(folder, "--gap", folder / "gap.npy", "--design", "exact", "--block", "16") == 0
    exact[3, 7] = not exact[3, 7]
    np.save(folder / "member.npy", exact)
    assert run_import(folder, "--gap", folder / "gap.npy", "--design", "exact", "--block", "16", store="second") == 2
    assert "hold example 7 " in capsys.readouterr().err


def test_the_data_gives_labels_ids_and_pictures(arrays, capsys):
    folder, _, _ = arrays
    rng = np.random.default_rng(1)
    labels = np.arange(N + T) % 3
    images = rng.integers(0, 255, (N + T, 6, 6)).astype(np.uint8)
    np.savez(
        folder / "mine.npz", train_images=images[:N], train_labels=labels[:N], test_images=images[N:],
        test_labels=labels[N:],
    )  # fmt: skip
    assert run_import(folder, "--gap", folder / "gap.npy", "--data", folder / "mine.npz") == 0
    store = Store.open(folder / "bank")
    assert store.examples()["label"].to_pylist() == labels.tolist()
    assert store.folder.exists("reports/most_memorized_k0.700.png")
    assert run_import(folder, "--gap", folder / "gap.npy", "--data", "digits", store="second") == 2
    assert "digits has 1397 train and 400 test examples, the arrays 120 and 15" in capsys.readouterr().err


def test_a_stale_score_names_the_command_that_recomputes_it(arrays):
    folder, member, gap = arrays
    np.save(folder / "member.npy", member[:20])
    np.save(folder / "gap.npy", gap[:20])
    assert run_import(folder, "--gap", folder / "gap.npy") == 0
    store = Store.open(folder / "bank")
    store.folder.remove("shards/imported-iid-k0.700-00003.parquet")
    with pytest.raises(ValueError, match=r"stale.*bank import"):
        store.score("memorization_k0.700")


def edit(**changes):
    """Return a function that overwrites files; the command's flags stay."""

    def write(folder, member, gap):
        for name, make in changes.items():
            np.save(folder / f"{name}.npy", make(member if name == "member" else gap))

    return write


def replace_one(array, value, at=(3, 17)):
    array = array.astype(np.float32)
    array[at] = value
    return array


BAD = {
    "nan": (edit(gap=lambda a: replace_one(a, np.nan)), r"gap\.npy: model 3 has nan for example 17"),
    "too large": (edit(gap=lambda a: a.astype(float) * 1e39), "finite float32"),
    "half a mask": (edit(member=lambda a: replace_one(a, 0.5)), r"member\.npy: model 3 has values other than 0 and 1"),
    "other models": (edit(gap=lambda a: a[:5]), r"gap\.npy is \[5, 135\], but .*member\.npy has 32 models"),
    "transposed": (edit(gap=lambda a: a.T), "has 32 models"),
    "fewer examples": (edit(gap=lambda a: a[:, :50]), "has values of 50 examples"),
    "a vector": (edit(member=lambda a: a[0]), r"must be \[models, train examples\], got \[120\]"),
    "pickled": (edit(gap=lambda a: np.array([object()] * 3)), "Python objects"),
    "text": (edit(gap=lambda a: a.astype(str)), "not numbers"),
    "nobody": (edit(member=lambda a: np.zeros_like(a)), "model 0 was trained on nothing"),
    "everybody": (edit(member=lambda a: np.ones_like(a)), "keep must lie between 0 and 1"),
    "a mask with nan": (edit(member=lambda a: replace_one(a, np.nan)), r"member\.npy: model 3 has values other than"),
    "one empty": (edit(member=lambda a: a & (np.arange(M) != 2)[:, None]), "model 2 was trained on nothing"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_invalid_arrays_are_one_line_and_nothing_is_written(arrays, name, capsys):
    folder, member, gap = arrays
    write, line = BAD[name]
    write(folder, member, gap)
    assert run_import(folder, "--gap", folder / "gap.npy") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(line, err), err
    assert not (folder / "bank").exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "neither --correct nor --gap"),
        (["--gap", "gap.npy", "--correct", "correct.npy"], "--correct and --gap are both given"),
        (["--logit-confidence", "confidence.npy"], "neither --correct nor --gap"),
        (["--gap", "none.npy"], "there is no array at"),
        (["--gap", "split.npz"], r"it holds train, test: name one, as in split\.npz:train"),
        (["--gap", "split.npz:nobody"], "it holds train, test"),
        (["--gap", "gap.npy", "--labels", "gap.npy"], "must hold one value for each of 135 examples"),
        (["--gap", "gap.npy", "--labels", "negative.npy"], "has the label -1 in row 0; labels are 0"),
        (
            ["--gap", "gap.npy", "--labels", "huge.npy"],
            "has the label 1000000000000 in row 1; labels are 0 .. K-1, below",
        ),
        (["--gap", "gap.npy", "--attacks", "lirra"], "unknown attack 'lirra'"),
        (["--gap", "gap.npy", "--logit-confidence", "confidence.npy", "--attacks", "rmia"], "this bank has none"),
        (["--gap", "gap.npy", "--keep", "0.5"], "leave it out"),
        (["--gap", "gap.npy", "--design", "exact", "--block", "7"], "block"),
        (["--gap", "gap.npy", "gap.npy", "gap.npy"], "a file for train and one for test"),
        (["--gap", "gap.npy", "--correct", "split.npz:train"], "both given"),
    ],
)
def test_invalid_flags_are_one_line(arrays, flags, line, capsys):
    folder, _, _ = arrays
    assert run_import(folder, *(str(folder / flag) if ".np" in flag else flag for flag in flags)) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert re.search(line, err), err
    assert not (folder / "bank").exists()


def test_a_store_that_estimate_made_takes_no_imported_models(arrays, capsys):
    folder, _, _ = arrays
    bank(folder / "bank")
    assert run_import(folder, "--gap", folder / "gap.npy") == 2
    assert "was trained by memscore.estimate and stays so" in capsys.readouterr().err


def test_labels_and_ids_beside_data_are_compared_row_by_row(tmp_path, capsys):
    splits, rng = load_dataset("digits", validation=0.0), np.random.default_rng(0)
    n = len(splits.train)
    np.save(tmp_path / "member.npy", rng.random((4, n)) < 0.5)
    np.save(tmp_path / "gap.npy", rng.normal(size=(4, n)))
    np.save(tmp_path / "labels.npy", splits.train.labels)
    np.save(tmp_path / "other.npy", splits.train.labels[::-1])
    np.save(tmp_path / "ids.npy", splits.train.ids[::-1])
    common = ("--gap", tmp_path / "gap.npy", "--data", "digits")
    for option, file in (("--labels", "other"), ("--ids", "ids")):
        assert run_import(tmp_path, *common, option, tmp_path / f"{file}.npy") == 2
        line = capsys.readouterr().err
        assert re.search(rf"{option} and --data digits differ in \d+ of {n} rows: row 0 is .* in another order", line)
    assert not (tmp_path / "bank").exists()
    assert run_import(tmp_path, *common, "--labels", tmp_path / "labels.npy") == 0
    assert "order: every row of --labels is that of --data digits" in capsys.readouterr().out
