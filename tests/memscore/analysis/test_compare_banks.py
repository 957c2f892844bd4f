"""Two banks of common examples: what a second bank, trained without some, gives to those that stay."""

from dataclasses import replace

import numpy as np
import pytest

from cluster.pool import SerialPool
from memscore import bank
from memscore.analysis import compare_banks
from memscore.analysis.compare_banks import list_highest
from memscore.pipeline.config import BankConfig
from memscore.pipeline.runner import estimate
from tests.fixtures.opened import open_bank

CONFIG = BankConfig(
    data="digits", arch="mlp-8", train_limit=100, epochs=2, batch=10, design="exact", block=8, models=8, originals=0
)
SCORE = "memorization_k0.500"


def train(folder, **options):
    opened = open_bank(replace(CONFIG, store=str(folder), **options))
    estimate(opened, SerialPool())
    return opened.store


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    """A bank, and one without its five most memorized."""
    folder = tmp_path_factory.mktemp("banks")
    first = train(folder / "first")
    highest = list_highest(first, SCORE, 5)
    return first, train(folder / "second", without=tuple(highest)), highest


def test_the_highest_are_listed_in_order(banks, capsys, tmp_path):
    first, _, highest = banks
    ids, values = first.score(SCORE)
    by_id = dict(zip(ids.tolist(), values.tolist(), strict=True))
    scores = [by_id[example] for example in highest]
    assert scores == sorted(scores, reverse=True)
    assert scores == sorted((value for value in by_id.values() if value == value), reverse=True)[:5]
    assert bank.main(["highest", first.url, "--count", "5"]) == 0
    assert capsys.readouterr().out.split() == highest
    assert bank.main(["highest", first.url, "--count", "5", "--out", str(tmp_path / "ids.txt")]) == 0
    assert (tmp_path / "ids.txt").read_text().split() == highest
    capsys.readouterr()
    assert bank.main(["highest", first.url, "--count", "101"]) == 2
    assert "--count must lie between 1 and " in capsys.readouterr().err


def test_a_bank_without_them_is_another_that_is_continued_without_naming_them(banks):
    first, second, highest = banks
    assert second.manifest.digest != first.manifest.digest
    assert second.manifest.split_sizes[0] == first.manifest.split_sizes[0] - 5
    assert not set(highest) & set(second.score(SCORE)[0])
    again = open_bank(BankConfig(store=second.url, models=8, proxies=("none",), originals=0))
    assert again.store.manifest.digest == second.manifest.digest
    assert again.config.without == tuple(sorted(highest))
    assert any("--without '(5 ids of data.json)'" in note for note in again.notes)
    assert estimate(again, SerialPool()).training.trained == 0


def test_the_comparison_counts_what_rose_and_what_became_memorized(banks, monkeypatch, capsys):
    first, second, highest = banks
    scores = {
        first.url: ("abcdef", [0.0, 0.2, 0.6, np.nan, 0.45, 0.9], [0.1] * 6),
        second.url: ("abcdeg", [0.05, 0.9, 0.1, 0.3, 0.55, 0.5], [0.1] * 6),
    }

    def read(store, score):
        ids, values, errors = scores[store.url]
        return np.array([*ids]), np.array(values), np.array(errors)

    with monkeypatch.context() as patch:
        patch.setattr(compare_banks, "read_with_error", read)
        result = compare_banks.compare_banks(first, second, SCORE)
    assert (result.only_first, result.only_second, result.undefined) == (1, 1, 1)
    assert (result.became, result.ceased) == (2, 1)  # b and e; c
    everything = result.levels[-1]
    assert (everything.examples, everything.rose, everything.fell) == (4, 1, 1)
    assert everything.difference.value == pytest.approx((0.05 + 0.7 - 0.5 + 0.1) / 4)
    assert [(level.name, level.examples) for level in result.levels[:-1]] == [
        ("below 0.1", 1),
        ("0.1 to 0.25", 1),
        ("0.25 to 0.5", 1),
        ("0.5 to 0.75", 1),
        ("0.75 or more", 0),
    ]
    assert bank.main(["compare", first.url, second.url]) == 0
    output = capsys.readouterr().out
    assert f"first: {first.folder.display_name}, with {len(highest)} examples that second has not" in output
    assert "became memorized (0.5 or more, below it before)" in output


def test_changes_of_a_score_without_standard_errors_are_unknown(banks, monkeypatch, capsys):
    first, second, _ = banks
    scores = (np.array(["a", "b"]), np.array([0.1, 0.9]), np.full(2, np.nan))
    monkeypatch.setattr(compare_banks, "read_with_error", lambda store, score: scores)
    everything = compare_banks.compare_banks(first, second, SCORE).levels[-1]
    assert (everything.rose, everything.fell) == (None, None)
    assert bank.main(["compare", first.url, second.url]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "more than 1.96 standard errors; unknown, as memorization_k0.500 has none" in output


def test_a_stored_bank_leaves_out_no_other_examples(banks):
    first, second, highest = banks
    for store, without, kept in ((first, highest[:1], "with all of them"), (second, highest[:1], "without 5 other ex")):
        with pytest.raises(ValueError, match=f"--without leaves out 1 training example, and .* was trained {kept}"):
            open_bank(BankConfig(store=store.url, models=8, originals=0, without=tuple(without)))


def test_banks_that_cannot_be_compared_say_why(banks, capsys, monkeypatch):
    first, second, _ = banks
    for score, message in (
        ("cscore_k0.500", "--score cscore_k0.500 is no memorization"),
        ("memorization_k0.700", f"--store {first.folder.display_name} --keep 0.700` adds it"),
        ("memorization_stacked_k0.500", f"--store {first.folder.display_name} --stacked` adds it"),
        ("memorization_foo", "unknown score 'memorization_foo'; did you mean"),
    ):
        assert bank.main(["compare", first.url, second.url, "--score", score]) == 2
        assert message in capsys.readouterr().err
    apart = iter([(np.array(["a"]), np.zeros(1), np.ones(1)), (np.array(["b"]), np.zeros(1), np.ones(1))])
    monkeypatch.setattr(compare_banks, "read_with_error", lambda *_: next(apart))
    with pytest.raises(ValueError, match="have no training example in common; compare banks of the same data"):
        compare_banks.compare_banks(first, second, SCORE)


def test_a_list_of_ids_replaces_no_file_of_the_bank_and_no_other(banks, tmp_path):
    """Even the bank's own tables have paths that can be typed."""
    store = banks[0]
    table = store.folder.root + "/scores.parquet"
    with open(table, "rb") as file:
        before = file.read()
    with pytest.raises(ValueError, match=r"--out .*scores.parquet exists, and would be overwritten"):
        bank.list_highest_scores(store.url, SCORE, 3, table)
    with open(table, "rb") as file:
        assert file.read() == before
    with pytest.raises(ValueError, match=r"there is no folder .*missing; make it, or name another"):
        bank.list_highest_scores(store.url, SCORE, 3, str(tmp_path / "missing" / "top.txt"))
    assert bank.list_highest_scores(store.url, SCORE, 3, str(tmp_path / "top.txt")) == 0
    assert len((tmp_path / "top.txt").read_text().split()) == 3


def test_the_interval_of_the_mean_change_covers_where_examples_share_models():
    """Errors of one bank have a part in common: of a mean over n examples the variance is 1.4 that of independent."""
    rng, n, repetitions = np.random.default_rng(0), 300, 2000
    common = np.sqrt((compare_banks.SHARED_MODELS - 1) / n) * rng.normal(size=(repetitions, 1))
    changes = common + rng.normal(size=(repetitions, n))
    zero = np.zeros(n)
    found = [compare_banks.summarize_change("all", zero, change, zero).difference for change in changes]
    assert np.mean([one.lo <= 0 <= one.hi for one in found]) == pytest.approx(0.95, abs=0.015)
    assert found[0].hi - found[0].value == pytest.approx(found[0].value - found[0].lo)
