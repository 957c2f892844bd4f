"""The page of a bank: its numbers are the store's, its text is text, and what cannot be read is named."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from memscore import attack, bank, estimate, fidelity, influence
from memscore.report.__main__ import main
from memscore.store.json_records import read_record
from memscore.store.store import Store
from memscore.store.trial_files import has_predictions, list_trials, read_predictions, read_trial
from tests.memscore.report.banks import copy_bank, make_sweep_and_experiment, write_page
from unlearn import trial

SERIAL = ("--pool", "serial", "--device", "cpu")
BANK = "--data digits --train-limit 200 --validation 0.2 --epochs 2 --batch 20 --models 16 --block 8 --originals 2"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A bank with attacks, a proxy, influence, an audit, trials, a sweep and an experiment; read only."""
    folder = tmp_path_factory.mktemp("filled")
    store = folder / "store"
    assert estimate.main([*BANK.split(), "--proxies", "el2n", "--store", str(store), *SERIAL]) == 0
    assert fidelity.main([str(store), "--draws", "10"]) == 0
    assert influence.main([str(store), "--targets", "train", "--top", "3", "--pictures", "0"]) == 0
    opened = Store.open(store)
    key = opened.read_receipt("original-00000")["key"]
    shutil.copy(store / f"weights/{key}.safetensors", folder / "mine.safetensors")
    ids = opened.examples()["id"].to_pylist()[:100]
    (folder / "members.txt").write_text("\n".join(ids))
    words = ["--model", str(folder / "mine.safetensors"), "--arch", "mlp", "--members", str(folder / "members.txt")]
    assert attack.main([str(store), *words, "--device", "cpu"]) == 0
    options = "--algorithm finetune --forget random --size 12 --seeds 2 --set epochs=1"
    assert trial.main([str(store), *options.split(), *SERIAL]) == 0
    make_sweep_and_experiment(opened)
    return store


@pytest.fixture(scope="module")
def page(filled, tmp_path_factory):
    return write_page(filled, tmp_path_factory.mktemp("page"))


def test_every_score_on_the_page_is_the_stores(page, filled):
    table = pq.read_table(filled / "scores.parquet")
    scores = [name for name in table.column_names if name[:4] in {"memo", "lira", "csco", "el2n", "atta"}]
    named = {each["name"] for each in page.meta["columns"]}
    assert len(scores) > 20
    bases = [name for name in scores if not name.endswith(("_se", "_lo", "_hi", "_n", "_in", "_out", "_se_block"))]
    assert set(bases) <= named
    for name in bases:
        np.testing.assert_array_equal(page.column(name), table[name].to_numpy().astype("f4"))
    for end in ("lo", "hi"):
        stored = table[f"memorization_k0.500_{end}"].to_numpy().astype("f4")
        np.testing.assert_array_equal(page.column("memorization_k0.500", end), stored)
    assert page.column("id") == table["id"].to_pylist()
    assert page.column("label").tolist() == table["label"].to_pylist()
    shares = page.column("p_in") - page.column("p_out")
    np.testing.assert_allclose(shares, page.column("memorization_k0.500"), atol=1e-6)


def test_thresholds_and_precision_are_the_stores(page, filled):
    [arm] = json.loads((filled / "reports/summary.json").read_text())["arms"]
    stored = arm["attacks"]["lira"]
    shown = page.rows("thresholds_k0.500")
    assert len(shown) == sum(len(each.get("thresholds", [])) for each in arm["attacks"].values())
    for row, each in zip(shown, stored["thresholds"], strict=False):
        assert row["Threshold"].get("value") == each["threshold"]
        ends = dict(zip(("value", "lo", "hi"), each["expected_fpr"], strict=True))
        assert {key: row["Realized FPR"].get(key) for key in ends} == ends
        for prior, precision in each["precision_at_prior"].items():
            assert row[f"PPV at {100 * float(prior):g} %"].get("value") == precision[0]
    [drawn] = [each for each in page.meta["attacks"] if each["name"] == "lira"]
    assert [each["tpr"] for each in drawn["thresholds"]] == [each["tpr"][0] for each in stored["thresholds"]]
    assert [drawn["auc"][key] for key in ("value", "lo", "hi")] == stored["auc"]
    curves = pq.read_table(filled / "reports/roc_k0.500.parquet").to_pandas()
    np.testing.assert_allclose(drawn["roc"]["tpr"], curves[curves.attack == "lira"].tpr, rtol=1e-5)


def test_confidences_are_counted_with_and_without_each_example(page, filled):
    store = Store.open(filled)
    [histogram] = page.meta["histograms"]
    bins = len(histogram["edges"]) - 1
    counts = {side: page.values(histogram[side]).reshape(-1, bins) for side in ("in", "out")}
    [arm] = store.arms()
    [block] = store.read_blocks(arm, sorted(store.find_valid_shards(arm)), ["member", "logit_confidence"])
    member, confidence = block.columns["member"], block.columns["logit_confidence"]
    assert (counts["in"].sum(1) == member.sum(0)).all()
    assert (counts["out"].sum(1) == (~member).sum(0)).all()
    edges = np.array(histogram["edges"])
    for row in (0, 7):
        expected, _ = np.histogram(np.clip(confidence[member[:, row], row], edges[0], edges[-1]), edges)
        # an edge is rounded to four digits in the page
        assert np.abs(counts["in"][row].astype(int) - expected).sum() <= 2


def test_verdicts_claims_and_choices_are_the_stores(page):
    claims = page.rows("claims_rum-1")
    assert [row["Verdict"]["text"] for row in claims] == ["holds", "fails", "undecided"]
    assert [row["Here"]["value"] for row in claims] == [1.5, -1.5, 0.125]
    assert [row["Here"]["lo"] for row in claims] == [0.5, -2.5, -0.875]
    assert claims[0]["Claim"]["text"] == "claim <b>holds</b>"
    [choice] = page.rows("choices_one")
    assert choice["At an end"]["text"] == "finetune.lr"
    assert choice["Parameters"]["text"] == "finetune (lr 0.25)"
    [regret] = page.rows("regret_one")
    assert [regret["Regret"][key] for key in ("value", "lo", "hi")] == [0.0625, -0.5, 0.625]
    assert "a remark of the experiment" in page.shown
    assert "a note of the sweep" in page.shown


def test_methods_stand_between_the_oracle_and_the_original_with_their_means(page, filled):
    rows = page.rows("sweep_one")
    assert [row["Method"]["text"] for row in rows] == ["oracle (retrained)", "finetune", "original (nothing done)"]
    stored = pq.read_table(filled / "sweeps/one/trials.parquet").to_pandas()
    mean = stored[stored.contender == "finetune"].tow_test.mean()
    assert rows[1]["ToW, test"]["value"] == pytest.approx(mean, rel=1e-12)
    assert rows[1]["Originals"]["value"] == 2
    [drawn] = [each for each in page.meta["experiments"] if each["id"] == "one"]
    [tow] = [each for each in drawn["measures"] if each["name"] == "tow_test"]
    assert tow["direction"] == 1
    assert "ideal: 1" in tow["about"]
    [forget] = [each for each in drawn["measures"] if each["name"] == "forget_accuracy"]
    oracle = stored[stored.contender == "oracle"].forget_accuracy.mean()
    assert forget["oracle"]["value"] == pytest.approx(oracle, rel=1e-12)
    assert forget["range"] == [0, 1]


def test_a_trials_models_are_beside_their_originals_and_oracles(filled, tmp_path):
    store = copy_bank(filled, tmp_path)
    shutil.rmtree(store.folder.path("sweeps"))
    shutil.rmtree(store.folder.path("experiments"))
    page = write_page(store.folder.root, tmp_path)
    [shown] = page.meta["trials"]
    assert shown["algorithm"] == "finetune"
    assert len(shown["forget_rows"]) == 12
    after, before, oracle = (page.values(shown[name]) for name in ("after", "before", "oracle"))
    assert after.shape == before.shape == oracle.shape == (page.meta["n"],)
    labels = np.array(store.examples()["label"].to_pylist()[: page.meta["n"]])
    keys = [store.read_receipt(f"original-{index:05}")["key"] for index in (0, 1)]
    logits = [store.read_logits(key)[: len(labels)].astype(float) for key in keys]
    expected = [np.exp(each[np.arange(len(labels)), labels]) / np.exp(each).sum(1) for each in logits]
    np.testing.assert_allclose(before, np.mean(expected, axis=0), rtol=1e-5)
    answers = page.column("left_out_answer")
    assert (answers[shown["forget_rows"]] < 10).all()
    assert (np.delete(answers, shown["forget_rows"]) == 65_535).all()


def test_a_trial_of_an_earlier_version_runs_again_for_its_predictions(filled, tmp_path):
    store = copy_bank(filled, tmp_path)
    [first, *others] = [name for name in list_trials(store) if has_predictions(store, name)]
    assert len(others) == 1
    before, predictions = read_trial(store, first), read_predictions(store, first)
    store.folder.remove(f"trials/{first}-said.parquet")
    store.folder.remove("trials/measures.json")
    options = "--algorithm finetune --forget random --size 12 --seeds 2 --set epochs=1"
    assert trial.main([store.folder.root, *options.split(), *SERIAL]) == 0
    assert read_trial(store, first) == pytest.approx(before, nan_ok=True)
    np.testing.assert_array_equal(read_predictions(store, first)["gap"], predictions["gap"])
    columns = read_record(store.folder, "trials/measures.json")["columns"]
    assert columns["tow"]["best"] == "max"
    assert columns["tow"]["endings"] == ["_validation", "_test"]


def test_an_audits_conclusion_and_numbers_are_the_stores(page, filled):
    [path] = (filled / "reports").glob("audit-*.json")
    record = json.loads(path.read_text())
    assert " ".join(record["conclusion"].split()) in page.shown
    lira = page.rows(f"{path.stem}_attacks")[0]
    assert lira["AUC"]["value"] == record["curves"]["lira"]["auc"]["value"]
    bounds = page.rows(f"{path.stem}_bounds")
    assert [row["Value"].get("value") for row in bounds] == [each["value"] for each in record["epsilon_bounds"]]
    [drawn] = page.meta["audits"]
    assert drawn["roc"]["tpr"][-1] == 1
    evidence = pq.read_table(path.with_suffix(".parquet"))["lira"].to_numpy().astype("f4")
    np.testing.assert_array_equal(page.column(f"audit {record['model']}"), evidence)


def test_influence_and_proxies_are_the_stores(page, filled):
    pairs = pq.read_table(filled / "influence/train_k0.500.parquet").to_pandas()
    best = pairs[(pairs.train_row != pairs.test_row)].sort_values("influence").iloc[-1]
    other, value = page.meta["influence"]["helped_by"][str(best.test_row)][0]
    assert value == pytest.approx(best.influence, rel=1e-4)
    assert pairs[(pairs.test_row == best.test_row) & (pairs.train_row == other)].influence.item() == best.influence
    record = json.loads((filled / "reports/fidelity_k0.500.json").read_text())
    stored = {row["score"]: row for row in record["standings"]["rows"]}
    for proxy in page.meta["proxies"]:
        assert proxy["rho"] == stored[proxy["name"]]["spearman"]
        assert proxy["id"]


def test_the_page_asks_for_nothing(page):
    assert not [link for link in page.links if not link.startswith(("#", "data:"))]
    assert not [tag for tag, _ in page.tags if tag in {"link", "iframe", "object", "embed", "base"}]
    [policy] = [found["content"] for tag, found in page.tags if found.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_images_are_in_the_page_and_beside_it(filled, tmp_path):
    page = write_page(filled, tmp_path, "--examples", 20)
    embedded = [row for sprite in page.meta["sprites"] for row in sprite["rows"]]
    assert len(embedded) == 20
    values = np.nan_to_num(page.column("memorization_blend_k0.500"), nan=0)
    assert set(np.argsort(-values, kind="stable")[:5]) <= set(embedded)
    beside = page.meta["sprites_elsewhere"]
    others = [row for sprite in beside["sprites"] for row in sprite["rows"]]
    assert sorted(embedded + others) == list(range(page.meta["n"]))
    assert {path.name for path in (tmp_path / beside["folder"]).iterdir()} == {
        each["file"] for each in beside["sprites"]
    }
    assert "in the folder beside it" in page.meta["image_about"]
    # the next page without a folder leaves none
    write_page(filled, tmp_path, "--examples", 500)
    assert not (tmp_path / beside["folder"]).exists()


def test_tables_are_written_as_csv_and_markdown(filled, tmp_path):
    import csv

    write_page(filled, tmp_path, "--tables", tmp_path / "tables")
    with (tmp_path / "tables/claims_rum-1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [1.5, -1.5, 0.125]
    assert [float(row["value_hi"]) for row in rows] == [2.5, -0.5, 1.125]
    assert rows[0]["verdict"] == "holds"
    text = (tmp_path / "tables/claims_rum-1.md").read_text()
    assert "| claim \\<b\\>holds\\</b\\> |" in text


def test_scores_are_written_with_images_that_viewers_open(filled, tmp_path):
    import io

    from PIL import Image

    from memscore.data.datasets import load_dataset

    write_page(filled, tmp_path, "--image-column", tmp_path / "images.parquet")
    table = pq.read_table(tmp_path / "images.parquet")
    assert table.column_names == ["image", *pq.read_table(filled / "scores.parquet").column_names]
    first = table["image"][3].as_py()
    pixels = np.asarray(Image.open(io.BytesIO(first["bytes"])))
    images = load_dataset("digits", validation=0.2, train_limit=200).train.images
    np.testing.assert_array_equal(pixels, images[3, 0])
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"]["names"] == [str(number) for number in range(10)]


def test_damaged_files_are_named_and_the_rest_is_shown(filled, tmp_path, capsys):
    store = copy_bank(filled, tmp_path)
    for path in ("scores.parquet", "reports/fidelity_k0.500.json", "scores/el2n.parquet", "sweeps/one/chosen.json"):
        content = bytearray(store.folder.read(path))
        content[len(content) // 2] ^= 1
        store.folder.replace(path, bytes(content))
    store.folder.remove("reports/summary.json")
    page = write_page(store.folder.root, tmp_path)
    names = {each["name"] for each in page.meta["columns"]}
    assert "lira_k0.500" in names
    assert "el2n" not in names
    for path in ("scores.parquet", "fidelity_k0.500.json", "el2n.parquet", "chosen.json"):
        assert path in page.shown, path
    assert "the bank was not scored yet" in page.shown
    assert "attacks" not in page.meta
    assert "not shown" in capsys.readouterr().out
    assert page.rows("claims_rum-1")


def test_a_damaged_shard_is_left_out_of_the_confidences(filled, tmp_path):
    store = copy_bank(filled, tmp_path)
    [path] = [name for name in store.folder.names("shards") if name.endswith("00003.parquet")]
    group = pq.ParquetFile(store.folder.path(f"shards/{path}")).metadata.row_group(0)
    [chunk] = [c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "logit_confidence"]
    content = bytearray(store.folder.read(f"shards/{path}"))
    content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    store.folder.replace(f"shards/{path}", bytes(content))
    page = write_page(store.folder.root, tmp_path)
    [histogram] = page.meta["histograms"]
    assert "Without 1 damaged model" in histogram["about"]
    bins = len(histogram["edges"]) - 1
    assert (sum(page.values(histogram[side]).reshape(-1, bins).sum(1) for side in ("in", "out")) == 15).all()


def test_a_bank_that_is_being_written_is_shown_as_far_as_it_is(filled, tmp_path):
    store = copy_bank(filled, tmp_path)
    for folder in ("scores", "reports", "trials", "sweeps", "experiments", "influence", "attempts"):
        shutil.rmtree(store.folder.path(folder), ignore_errors=True)
    store.folder.remove("scores.parquet")
    page = write_page(store.folder.root, tmp_path)
    assert page.meta["n"] == len(page.column("id"))
    assert page.meta["histograms"]
    assert "there are none yet" in page.shown


MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A bank of 1,000 classes with markup in its ids, without images and with one model of each side."""
    folder, rng = tmp_path_factory.mktemp("imported"), np.random.default_rng(0)
    member = np.stack([np.arange(1200) % 2 == 0, np.arange(1200) % 2 == 1])
    np.save(folder / "member.npy", member)
    np.save(folder / "gap.npy", rng.normal(1 + 2.0 * member))
    np.save(folder / "labels.npy", np.arange(1200) % 1000)
    np.save(folder / "ids.npy", np.array([f"{MARKUP}{number}" for number in range(1200)]))
    files = [word for name in ("member", "gap", "labels", "ids") for word in (f"--{name}", str(folder / f"{name}.npy"))]
    assert bank.main(["import", str(folder / "bank"), *files, "--keep", "0.5"]) == 0
    return folder / "bank"


def test_markup_stays_text_and_1000_classes_are_shown_without_images(imported, tmp_path):
    page = write_page(imported, tmp_path)
    assert page.meta["n_classes"] == 1000
    assert page.meta["image"] is None
    assert page.column("id")[5] == f"{MARKUP}5"
    assert page.column("label")[1001] == 1
    assert "imported without its data set" in page.shown
    assert "alert(1)" not in page.text.replace("\\u003c/script\\u003e\\u003cscript\\u003ealert(1)", "")
    assert not [found for tag, found in page.tags if "onerror" in found]


def test_one_model_has_no_scores_of_two_sides(tmp_path):
    np.save(tmp_path / "member.npy", np.arange(12)[None] % 2 == 0)
    np.save(tmp_path / "correct.npy", np.ones((1, 12), bool))
    words = ["--member", str(tmp_path / "member.npy"), "--correct", str(tmp_path / "correct.npy"), "--keep", "0.5"]
    assert bank.main(["import", str(tmp_path / "bank"), *words]) == 0
    page = write_page(tmp_path / "bank", tmp_path)
    assert np.isnan(page.column("memorization_k0.500")).all()
    assert "logit_confidence" in page.shown
    assert "memorization of k0.500 is undefined for 12 examples" in page.shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x.txt"], "give a name that ends in .html"),
        (["--out", "nowhere/x.html"], "there is no folder nowhere"),
        (["--out", "taken.html"], "is no page of memscore"),
        (["--examples", "-1"], "--examples must be 0 or more, got -1"),
        (["--image-column", "x.csv"], "give a name that ends in .parquet"),
        (["--image-column", "taken.parquet"], "would be overwritten"),
    ],
)
def test_bad_options_are_one_line_and_lose_nothing(words, message, imported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("taken.html", "taken.parquet"):
        (tmp_path / name).write_text("mine")
    assert main([str(imported), *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "taken.html": "mine",
        "taken.parquet": "mine",
    }


def test_images_are_needed_for_an_image_column(imported, tmp_path, capsys):
    words = ["--out", str(tmp_path / "a.html"), "--image-column", str(tmp_path / "a.parquet")]
    assert main([str(imported), *words]) == 2
    assert "the images could not be read" in capsys.readouterr().err


def test_a_page_is_written_over_an_earlier_one_and_named_after_the_store(imported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(imported)]) == 0
    assert main([str(imported)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bank.html"]


def test_a_browser_shows_the_stores_precision_at_each_of_its_priors(filled, tmp_path, open_page):
    """The page computes it for any prior from what is stored of one."""
    path = tmp_path / "bank.html"
    assert main([str(filled), "--out", str(path)]) == 0
    browsed = open_page(path)
    [arm] = json.loads((filled / "reports/summary.json").read_text())["arms"]
    thresholds = [each for attack in arm["attacks"].values() for each in attack.get("thresholds", [])]
    [audit_path] = (filled / "reports").glob("audit-*.json")
    audited = [each["expected"] for each in json.loads(audit_path.read_text())["decisions"]["thresholds"]]
    known = 0
    for place, stored in (("attacks", thresholds), ("audits", audited)):
        for prior in ("0.01", "0.1", "0.5"):
            browsed.evaluate(f"setPrior({prior})")
            cells = browsed.locator(f"[data-plots={place}] [data-ppv]")
            assert cells.count() == len(stored) > 0
            for cell, each in zip(cells.all(), stored, strict=True):
                shown = [cell.get_attribute(f"data-{key}") for key in ("ppv", "lo", "hi")]
                for text, value in zip(shown, each["precision_at_prior"][prior], strict=True):
                    if value is not None:
                        assert float(text) == pytest.approx(value, rel=1e-6)
                        known += 1
    assert known > 20
