"""Memorization by regression through the command: only where it is asked for, and kept up to date from then on."""

import json

import numpy as np
import pytest

from memscore.estimators.memorization_stacked import (
    SIGNALS,
    complete_stacked,
    compute_stacked_columns,
    draw_stacked_sets,
    fit_stacked,
    sum_for_stacked,
)
from memscore.seeds import generator
from memscore.store.store import Store
from tests.fixtures.command import SERIAL, here, refused

pytestmark = pytest.mark.usefixtures("home")

ARM, SCORE = "exact-k0.500-b8", "memorization_stacked_k0.500"
FLAGS = f"--epochs 1 --design exact --block 8 --originals 0 {SERIAL}"


def test_the_option_writes_what_the_estimator_gives_and_later_runs_keep_it(tmp_path, capsys):
    flags = f"{FLAGS} --train-limit 500 --store {tmp_path / 's'}"
    assert here(f"{flags} --models 16", capsys)[0] == 0
    assert f"{SCORE}.parquet" not in Store.open(tmp_path / "s").folder.names("scores")
    code, output = here(f"{flags} --models 16 --stacked", capsys)
    assert code == 0
    assert "RMSE of memorization_stacked (jackknife) " in output
    assert here(f"{flags} --models 24", capsys)[0] == 0
    store = Store.open(tmp_path / "s")
    columns = next(store.read_blocks(ARM, range(24), ["member", *SIGNALS])).columns
    columns = {name: values[:, :500] for name, values in columns.items()}
    sets = draw_stacked_sets(np.arange(24) // 8, generator(0, "halves", f"memorization_stacked {ARM}"))
    coefficients = fit_stacked([sum_for_stacked(columns, sets)])
    expected, fit = complete_stacked(compute_stacked_columns(columns, sets, coefficients))
    table = store.read_score(SCORE)
    np.testing.assert_allclose(table[SCORE].to_numpy(), expected["value"], rtol=1e-5, atol=1e-6)
    assert table[f"{SCORE}_se"].null_count == 500
    [arm] = json.loads((tmp_path / "s" / "reports" / "summary.json").read_text())["arms"]
    assert arm["stacked"]["rmse"] == pytest.approx(fit.rmse, rel=1e-4)


@pytest.mark.parametrize(("flags", "line"), [
    ("--train-limit 200 --models 16", "needs 500 of them or more, got 200; leave it out"),
    ("--train-limit 500 --models 8", "needs 16 models or more, got 8; leave it out, or give --models"),
])  # fmt: skip
def test_too_few_examples_or_models_are_one_line_before_training(flags, line, tmp_path, capsys):
    assert line in refused(*here(f"{FLAGS} {flags} --stacked --store {tmp_path / 's'}", capsys))
    assert not (tmp_path / "s").exists()
