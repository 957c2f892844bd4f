"""The influence command on a bank of images that have a twin in the test set: pairs, picture, staleness, bad input."""

import math
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from memscore.analysis import influence_pairs, influence_picture
from memscore.influence import main
from memscore.pipeline.config import BankConfig
from memscore.pipeline.train_bank import build_shared_data, train_missing
from memscore.plots.bank import plot_influence
from memscore.score_registry import ESTIMATOR_VERSIONS
from memscore.store.parquet import decode_metadata
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from tests.fixtures.banks import examples, flip, manifest, path_of, shard
from tests.fixtures.opened import open_bank

TRAIN, TEST, TWINS, MODELS = 80, 30, 12, 48
SUFFIX = "k0.500"


class InOrder:
    def run(self, fn, jobs, shared=None):
        for job in jobs:
            yield job, fn(job, shared)


def write_twins(path):
    """Pure noise with labels at random: a model can only memorize. The first test images are the first train ones,
    the last two train images one another."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (TRAIN + TEST, 8, 8)).astype(np.uint8), rng.integers(0, 4, TRAIN + TEST)
    labels[:4] = labels[TRAIN : TRAIN + 4] = range(4)
    images[TRAIN : TRAIN + TWINS], labels[TRAIN : TRAIN + TWINS] = images[:TWINS], labels[:TWINS]
    images[TRAIN - 1], labels[TRAIN - 1] = images[TRAIN - 2], labels[TRAIN - 2]
    parts = {"train_images": images[:TRAIN], "train_labels": labels[:TRAIN]}
    np.savez(path, **parts, test_images=images[TRAIN:], test_labels=labels[TRAIN:])


def train_bank(folder, **changes):
    """A bank of 48 models that fit their 40 images."""
    options = {
        "data": str(folder / "twins.npz"), "arch": "mlp-64", "recipe": "small-mlp", "epochs": 30, "lr": 0.1,
        "batch": 10, "design": "exact", "block": 16, "models": MODELS, "originals": 0, "validation": 0.0,
    }  # fmt: skip
    bank = open_bank(BankConfig(store=str(folder / "store"), **(options | changes)))
    arm = bank.arms[0]
    bank.store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    assert (
        train_missing(bank.store, bank.arms, bank.count, build_shared_data(bank.splits, None), InOrder()).trained
        == bank.count
    )
    return bank.store


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("influence")
    write_twins(folder / "twins.npz")
    return train_bank(folder)


@pytest.fixture
def bank(whole, tmp_path):
    """A copy that a test may write into."""
    shutil.copytree(whole.url, tmp_path / "store")
    shutil.copy(get_data_path(whole), tmp_path)
    return Store.open(tmp_path / "store")


def get_data_path(store):
    """The file beside a store; data.json of a copy has the path of the file beside the copied store."""
    return str(Path(store.url).parent / "twins.npz")


def run_influence(store, *arguments):
    return main([store.url, "--data", get_data_path(store), *arguments])


def read_size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def get_error(arguments, capsys):
    """The one line that a command ends with; its exit code is 2."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    assert not [line for line in lines[:-1] if "train examples" not in line]  # of the progress bar
    return lines[-1]


def test_the_twin_of_a_test_example_has_the_most_influence_on_it(bank, capsys):
    """A model predicts the same for both, so the twin's influence is its memorization: same definition and models."""
    assert run_influence(bank, "--top", "3", "--least", "0.15") == 0
    printed = capsys.readouterr().out
    table = bank.read_influence(f"test_{SUFFIX}").to_pandas()
    best = table.groupby("test_row").first()
    assert best["train_row"].loc[TRAIN : TRAIN + TWINS - 1].tolist() == list(range(TWINS))
    of_twins = best.loc[TRAIN : TRAIN + TWINS - 1]
    assert of_twins["influence"].tolist() == of_twins["memorization"].tolist()
    assert of_twins["influence"].median() > 0.6  # labels at random of 4 classes: about .75
    assert table.groupby("test_row").size().min() == 3
    strong = table[(table["influence"] >= 0.15) & (table["memorization"] >= 0.25)]
    assert f"strong     {len(strong)} pairs with influence >= 0.15 and memorization >= 0.25" in printed
    hit = strong["test_row"].value_counts()
    share = 100 * len(hit) / TEST
    assert f"{len(hit)} of {TEST} ({share:.1f} %) have a strong pair, {(hit == 1).sum()} exactly one" in printed
    first = strong.sort_values("influence", ascending=False, kind="stable").iloc[0]
    ids, labels = (bank.examples()[key].to_pylist() for key in ("id", "label"))
    shown = [line.split() for line in printed.splitlines() if f"{first['influence']:.3f}" in line]
    label = str(labels[first["test_row"]])
    assert shown[0][:4] == [ids[first["test_row"]], label, ids[first["train_row"]], label]


def test_among_train_examples_those_without_the_target_show_its_twin(bank):
    """The last two train images are one image: without the one, the other decides."""
    assert run_influence(bank, "--targets", "train-held-out", "--pictures", "0") == 0
    table = bank.read_influence(f"train-held-out_{SUFFIX}").to_pandas()
    best = table.groupby("test_row").first()
    assert best["train_row"].loc[[TRAIN - 2, TRAIN - 1]].tolist() == [TRAIN - 1, TRAIN - 2]
    assert (table["train_row"] != table["test_row"]).all()


def test_the_file_is_read_by_anything_and_describes_itself(bank):
    assert run_influence(bank, "--pictures", "0", "--least", "0.3") == 0
    table = pq.read_table(path_of(bank, f"influence/test_{SUFFIX}.parquet"))
    metadata = decode_metadata(table.schema)
    assert (metadata["models"], metadata["targets"], metadata["least"], metadata["top"]) == (
        str(MODELS),
        "test",
        "0.3",
        "10",
    )
    assert bank.read_influence(f"test_{SUFFIX}").equals(table)
    assert not bank.folder.exists(f"reports/influence_test_{SUFFIX}.png")


def test_the_picture_has_a_row_a_target_with_its_own_images(bank, monkeypatch):
    """Framed image and examples are those of the rows, strong pairs first among targets, weak ones faint."""
    calls = []

    def spy(images, captions, faint, title):
        calls.append((images, captions, faint, title))
        return plot_influence(images, captions, faint, title)

    monkeypatch.setattr(influence_picture, "plot_influence", spy)
    assert run_influence(bank, "--pictures", "4", "--least", "0.15") == 0
    [(images, captions, faint, title)] = calls
    with np.load(get_data_path(bank), allow_pickle=False) as data:
        train, test = data["train_images"], data["test_images"]
    table = bank.read_influence(f"test_{SUFFIX}").to_pandas()
    strong = table[(table["influence"] >= 0.15) & (table["memorization"] >= 0.25)]
    targets = strong.sort_values("influence", ascending=False, kind="stable")["test_row"].unique()[:4]
    for target, row, texts, pale in zip(targets, images, captions, faint, strict=True):
        pairs = table[table["test_row"] == target].head(influence_picture.EXAMPLES_PER_TARGET)
        np.testing.assert_array_equal(row[0][0], test[target - TRAIN])
        np.testing.assert_array_equal([image[0] for image in row[1:]], train[pairs["train_row"]])
        assert texts[0][1] == f"row {target}"
        assert [text[1] for text in texts[1:]] == [f"{p.influence:.2f} ± {p.se:.2f}" for p in pairs.itertuples()]
        assert pale == [False, *((pairs["influence"] < 0.15) | (pairs["memorization"] < 0.25))]
    assert f"{MODELS} models, {SUFFIX}, test:" in title
    png = bank.folder.read(f"reports/influence_test_{SUFFIX}.png")
    assert read_size(png) == (round(130 * 1.2 * 6), round(130 * (1.6 * 4 + 0.5)))


def test_changed_labels_are_shown_with_the_true_one(tmp_path, monkeypatch, capsys):
    write_twins(tmp_path / "twins.npz")
    store = train_bank(tmp_path, label_noise=0.5, models=16, epochs=20)
    captions = []
    monkeypatch.setattr(influence_picture, "plot_influence", lambda _, texts, *__: captions.extend(texts) or b"")
    assert run_influence(store, "--top", "6", "--pictures", "10", "--least", "0.15") == 0
    table = store.examples().to_pandas()
    seen = 0
    for text in (text for row in captions for text in row[1:]):
        example = table.iloc[int(text[2].split()[1].rstrip(","))]
        changed = example["label"] != example["label_true"]
        assert text[0] == f"label {example['label']}" + (f" (truly {example['label_true']})" if changed else "")
        seen += changed
    assert seen > 3
    assert "(truly" in capsys.readouterr().out


def test_a_stale_file_is_refused_with_the_command_that_recomputes_it(bank, capsys, monkeypatch):
    assert run_influence(bank, "--top", "2", "--least", "0.4", "--pictures", "0") == 0
    arm = next(iter(bank.arms()))
    columns = shard(0, TRAIN + TEST)
    bank.write_shard(format_model_name(arm, MODELS), arm, columns)
    with pytest.raises(ValueError, match="is stale, the bank's shards have changed since; run `python -m") as caught:
        bank.read_influence(f"test_{SUFFIX}")
    command = shlex.split(str(caught.value).split("`")[1])
    assert command[:3] == ["python", "-m", "memscore.influence"]
    assert main([*command[3:], "--pictures", "0"]) == 0
    metadata = decode_metadata(bank.read_influence(f"test_{SUFFIX}").schema)
    assert (metadata["models"], metadata["top"], metadata["least"]) == (str(MODELS + 1), "2", "0.4")
    assert metadata["estimator_version"] == "2"
    monkeypatch.setitem(ESTIMATOR_VERSIONS, "influence", 3)
    with pytest.raises(ValueError, match="is stale, its estimator has changed since; run `python -m"):
        bank.read_influence(f"test_{SUFFIX}")
    assert main([*command[3:], "--pictures", "0"]) == 0
    assert decode_metadata(bank.read_influence(f"test_{SUFFIX}").schema)["estimator_version"] == "3"
    # a least influence that was chosen is chosen again; files of version 1 with their default are of this kind
    assert run_influence(bank, "--pictures", "0") == 0
    for version in (4, 5):
        monkeypatch.setitem(ESTIMATOR_VERSIONS, "influence", version)
        with pytest.raises(ValueError, match="is stale") as caught:
            bank.read_influence(f"test_{SUFFIX}")
        assert "--least " not in str(caught.value)
        table = read_table(bank)
        first = {key: value for key, value in decode_metadata(table.schema).items() if "least" not in key}
        bank.write_influence(f"test_{SUFFIX}", table.replace_schema_metadata(first | {"least": "0.15"}))
    capsys.readouterr()


def read_table(bank):
    return pq.read_table(path_of(bank, f"influence/test_{SUFFIX}.parquet"))


def test_the_least_influence_is_chosen_by_permuted_memberships_and_said(bank, capsys):
    assert run_influence(bank, "--pictures", "0") == 0
    printed, table = capsys.readouterr().out, bank.read_influence(f"test_{SUFFIX}")
    metadata, rows = decode_metadata(table.schema), table.to_pandas()
    least = float(metadata["least"])
    assert metadata["least_chosen"] == "true"
    strong = rows[(rows["influence"] >= least) & (rows["memorization"] >= 0.25)]
    # a twin is the one example of influence on its target: all that is found is true, and most twins are
    assert (strong["train_row"] + TRAIN == strong["test_row"]).mean() > 0.85
    assert len(strong) >= TWINS / 2
    assert strong["q"].max() <= 0.1
    expected = float(metadata["false_expected"])
    assert expected / len(strong) <= 0.1
    assert f"strong     {len(strong)} pairs with influence >= {least:g} and" in printed
    assert f"about {expected:.1f} are expected by chance ({100 * expected / len(strong):.0f} %)" in printed
    assert f"least      {least:g}, from which at most 10 % of the pairs are expected to be false" in printed
    # q falls with influence, and examples that are not memorized have none
    falling = rows.dropna(subset="q").sort_values("influence")["q"]
    assert falling.is_monotonic_decreasing
    assert (rows["q"].isna() == (rows["memorization"] < 0.25)).all()
    assert table["q"].null_count == rows["q"].isna().sum() > 0
    assert run_influence(bank, "--pictures", "0", "--least", "0.15") == 0
    assert decode_metadata(bank.read_influence(f"test_{SUFFIX}").schema)["least_chosen"] == "false"
    assert "\nleast " not in capsys.readouterr().out


def test_where_nothing_can_be_compared_that_is_said(tmp_path, capsys):
    """One model: each example is in or out. Two models that were trained on the same: the same."""
    for models in (1, 2):
        store = Store.create(tmp_path / str(models), manifest(), examples())
        store.add_arm({"name": "iid-k0.700", "design": "iid", "keep": 0.7, "block": 1, "clusters": None})
        for index in range(models):
            store.write_shard(format_model_name("iid-k0.700", index), "iid-k0.700", shard(0))
        assert main([store.url, "--pictures", "0"]) == 0
        printed = capsys.readouterr().out
        assert "strong     0 pairs" in printed
        assert "undefined  280 of 280 pairs" in printed
        assert "nothing can be compared, so train more models" in printed
        assert store.read_influence("test_k0.700").num_rows == 0


def test_a_bank_of_noise_has_no_strong_pair_and_says_why(tmp_path, capsys):
    store = Store.create(tmp_path / "s", manifest(), examples())
    store.add_arm({"name": "iid-k0.700", "design": "iid", "keep": 0.7, "block": 1, "clusters": None})
    for index in range(12):
        store.write_shard(format_model_name("iid-k0.700", index), "iid-k0.700", shard(index))
    assert main([store.url, "--pictures", "0", "--least-memorization", "-1", "--top", "0"]) == 0
    printed = capsys.readouterr().out
    assert "strong     0 pairs\n" in printed
    assert "least      none: of no influence are at most 10 % of the pairs expected to be false" in printed
    assert "inf" not in printed.replace("influence", "")


def test_the_reader_names_what_is_missing(bank, capsys):
    with pytest.raises(ValueError, match=r"has no influence yet, .*run `python -m memscore.influence "):
        bank.read_influence("test_k0.500")
    assert run_influence(bank, "--pictures", "0") == 0
    with pytest.raises(ValueError, match=r"unknown influence 'test_k0.50'; did you mean 'test_k0.500'"):
        bank.read_influence("test_k0.50")
    path = path_of(bank, "influence/test_k0.500.parquet")
    flip(path, path.stat().st_size // 2)
    with pytest.raises(OSError, match=r"is damaged: .* the next memscore.influence makes it again"):
        bank.read_influence("test_k0.500")
    capsys.readouterr()


def test_pictures_need_images_and_rows_do_not(bank, capsys):
    """The path of the file is on record; where it is not there, the message says what to give."""
    bank.write_origin({"path": "/moved/twins.npz"})
    error = get_error([bank.url], capsys)
    assert "were read from /moved/twins.npz, which is not there; give --data PATH" in error
    assert error.endswith("--pictures 0 does without images")
    assert not bank.folder.names("influence")
    assert main([bank.url, "--pictures", "0"]) == 0
    assert bank.read_influence(f"test_{SUFFIX}").num_rows >= 10 * TEST
    np.savez(get_data_path(bank), images=np.zeros((40, 8, 8), np.uint8), labels=np.arange(40) % 4)
    assert "is not what" in get_error([bank.url, "--data", get_data_path(bank)], capsys)


def test_a_store_in_use_is_left_alone(bank, capsys):
    with bank.lock():
        assert "is in use by pid" in get_error([bank.url], capsys)
    assert not bank.folder.names("influence")


def test_a_damaged_shard_is_left_out_and_named(bank, capsys):
    arm = next(iter(bank.arms()))
    path_of(bank, f"shards/{format_model_name(arm, 3)}.parquet").write_bytes(b"PAR1")
    assert run_influence(bank, "--pictures", "0") == 0
    printed = capsys.readouterr().out
    assert f"damaged shards/{format_model_name(arm, 3)}.parquet" in printed
    assert f"{MODELS - 1} models" in printed


def test_no_pair_gives_a_file_without_rows_and_no_picture(bank, capsys):
    assert run_influence(bank, "--top", "0", "--least", "1", "--least-memorization", "1", "--targets", "train") == 0
    assert "strong     0 pairs" in capsys.readouterr().out
    assert bank.read_influence(f"train_{SUFFIX}").num_rows == 0
    assert not bank.folder.exists(f"reports/influence_train_{SUFFIX}.png")


def test_bad_input_is_one_line_and_exit_code_2(bank, tmp_path, capsys):
    assert "no store at" in get_error([tmp_path / "none"], capsys)
    empty = Store.create(tmp_path / "empty", manifest(), examples())
    assert "has no arm yet" in get_error([empty.url, "--pictures", "0"], capsys)
    for keep in (0.5, 0.7):
        arm = {"name": f"iid-k{keep:.3f}", "design": "iid", "keep": keep, "block": 1, "clusters": None}
        empty.add_arm(arm)
    assert "choose with --arm: iid-k0.500, iid-k0.700" in get_error([empty.url, "--pictures", "0"], capsys)
    error = get_error([empty.url, "--arm", "iid-k0.70"], capsys)
    assert "unknown arm 'iid-k0.70'; did you mean 'iid-k0.700'" in error
    assert "has no models that can be read" in get_error([empty.url, "--arm", "k0.700", "--pictures", "0"], capsys)
    assert "--pictures must lie in 0 to 100, got -1" in get_error([bank.url, "--pictures", "-1"], capsys)
    assert "top must be 0 or more, got -1" in get_error([bank.url, "--pictures", "0", "--top", "-1"], capsys)
    for least in (math.nan, 5, 0, -0.1):
        assert "least must lie in (0, 1], got" in get_error([bank.url, "--pictures", "0", "--least", least], capsys)


def test_a_bank_without_test_examples_and_too_many_pairs_are_refused(bank, tmp_path, monkeypatch, capsys):
    store = Store.create(tmp_path / "s", manifest(split_sizes=(40, 12, 0)), examples())
    store.add_arm({"name": "iid-k0.700", "design": "iid", "keep": 0.7, "block": 1, "clusters": None})
    store.write_shard(format_model_name("iid-k0.700", 0), "iid-k0.700", shard(0))
    assert "has no test examples; use targets 'train'" in get_error([store.url, "--pictures", "0"], capsys)
    monkeypatch.setitem(influence_pairs.find_influence_pairs.__kwdefaults__, "max_rows", 5)
    error = get_error([bank.url, "--pictures", "0", "--least", "0.15"], capsys)
    assert "more than 5 pairs reach influence 0.15" in error


def test_the_command_answers_from_a_shell(tmp_path):
    command = [sys.executable, "-m", "memscore.influence", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no store at")
    assert done.stderr.count("\n") == 1
