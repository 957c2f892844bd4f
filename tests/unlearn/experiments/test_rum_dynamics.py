"""What each step of a sequence does to every part, from sweep to verdicts on a small bank."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from cluster.pool import SerialPool
from cluster.search import SerialSearch
from memscore.pipeline.config import BankConfig
from memscore.pipeline.runner import estimate
from memscore.store.trial_files import read_predictions
from tests.fixtures import tiny
from tests.fixtures.opened import open_bank
from unlearn.experiments.base import SweepRunner
from unlearn.experiments.rum_dynamics import EXPERIMENT, PARTS, SETS, check_claims, find_lowest_accuracy, run
from unlearn.experiments.tables import print_experiment
from unlearn.meta.partition import align_scores
from unlearn.tuning.results import select_rows

SCORE = "memorization_k0.500"
PLAN = BankConfig(data="digits", train_limit=240, validation=0.2, epochs=6, batch=20, design="exact", block=8, models=8)
ORDERS = (f"rum {SCORE}", f"rum-reversed {SCORE}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    bank = open_bank(replace(PLAN, store=str(tmp_path_factory.mktemp("lab") / "store")))
    estimate(bank, SerialPool())
    config = tiny.make_config("neggrad-plus", store=bank.store.url, size=15, seeds=2, select="oracle")
    return bank, config, run(config, SweepRunner(pool=SerialPool(), backend=SerialSearch(), device="cpu"))


def test_accuracies_are_those_of_the_rows_measured_another_way(lab):
    """Of the whole sequence forget and retain sets are those of the trial; of theta_o and the oracle too."""
    _, _, result = lab
    rows = result.results["union"]
    ends = [row for row in rows if row["level"] in {0, len(PARTS)}]
    assert len(ends) == 2 * (2 + 2)
    for row in ends:
        assert row["right_forget"] == pytest.approx(row["forget_accuracy"], abs=1e-12)
        assert row["right_retain"] == pytest.approx(row["retain_accuracy"], abs=1e-12)
        assert row["right_test"] == pytest.approx(row["accuracy_test"], abs=1e-12)
        thirds = [row[f"right_{part}"] for part in PARTS]
        assert np.mean(thirds) == pytest.approx(row["right_forget"], abs=1e-12)


def test_after_each_step_every_part_has_its_accuracy_whatever_the_order(lab):
    """A first step's own forget set is the part that it begins with: the lowest score, or the highest."""
    _, _, result = lab
    rows = result.results["union"]
    for variant, first in zip(ORDERS, ("low", "high"), strict=True):
        for level in (1, 2, 3):
            step_rows = select_rows(rows, variant=variant, level=level)
            assert [(row["index"], row["tuning"]) for row in step_rows] == [(2, 0), (3, 1)]
            assert all(0 <= row[f"right_{name}"] <= 1 for row in step_rows for name in SETS)
        for row in select_rows(rows, variant=variant, level=1):
            assert row["n_forget"] == 5
            assert row[f"right_{first}"] == pytest.approx(row["forget_accuracy"], abs=1e-12)


def test_parts_are_thirds_by_the_score(lab):
    bank, _, result = lab
    values = align_scores(SCORE, bank.store.score, bank.splits.train.ids)
    rows = np.array(result.sweeps["union"].judged_set.rows)
    rising = rows[np.argsort(values[rows], kind="stable")]
    for row in select_rows(result.results["union"], variant=ORDERS[0], level=1):
        margins = read_predictions(bank.store, row["trial"])["gap"]
        for name, part in zip(PARTS, np.split(rising, 3), strict=True):
            assert row[f"right_{name}"] == (margins[part] > 0).mean()


def test_the_figure_is_drawn_from_the_rows(lab):
    _, config, result = lab
    assert EXPERIMENT.draw_figure(result.results, config).startswith(b"\x89PNG")
    assert len(check_claims(result.results, config)) == 3


def test_long_claims_leave_room_for_their_verdicts(lab):
    _, config, result = lab
    claims = check_claims(result.results, config)
    console = Console(width=160, file=io.StringIO())
    print_experiment(console, EXPERIMENT, replace(result, claims=claims), "here")
    printed = console.file.getvalue().split("what was measured")[1]
    assert sum(printed.count(word) for word in ("holds", "fails", "undecided")) == 2 * len(claims)
    assert "…" not in printed


def make_rows(up, down, before=1.0, tow=(0.9, 0.9), mia=(0.03, 0.22), contender="salun", originals=8):
    """Rows whose accuracy on the first part is as said after each step, in both orders."""
    rng, rows = np.random.default_rng(0), []
    for index in range(originals):
        common = {"index": index, "select": "oracle", "levels": 3}
        rows.append({**common, "contender": "original", "variant": "", "level": 0, "right_low": before})
        for variant, path, end, away in zip(ORDERS, (up, down), tow, mia, strict=True):
            for level, right in enumerate(path, start=1):
                noise = rng.normal(0, 0.001)
                values = {"right_low": right + noise, "tow_test": end + noise, "mia_test_gap": away + noise}
                rows.append({**common, "contender": contender, "variant": variant, "level": level, **values})
    return {"union": rows}


def list_verdicts(algorithm, *bank, **more):
    config = tiny.make_config(algorithm)
    return [one.verdict for one in check_claims(make_rows(*bank, contender=algorithm, **more), config)]


def test_verdicts_follow_the_rows():
    falling, level = (0.5, 0.8, 0.9), (0.99, 0.99, 0.99)
    assert list_verdicts("salun", falling, level) == ["holds"] * 4
    wrong = {"before": 0.4, "tow": (0.9, 0.8), "mia": (0.22, 0.03)}
    assert list_verdicts("salun", (0.5, 0.4, 0.3), level, **wrong) == ["fails"] * 4
    assert list_verdicts("salun", falling, level, originals=1) == ["undecided"] * 4
    assert list_verdicts("neggrad-plus", level, level) == ["holds"] * 3
    assert list_verdicts("neggrad-plus", level, (0.99, 0.7, 0.99)) == ["holds", "fails", "holds"]


def test_the_worst_step_is_that_of_each_original():
    rows = [{"index": i, "level": n, "right_low": v} for i, n, v in ((0, 1, 0.5), (0, 2, 0.2), (0, 3, 0.9))]
    rows += [{"index": 1, "level": n, "right_low": v, "tuning": 2} for n, v in ((1, 0.1), (2, 0.2), (3, 0.3))]
    rows += [{"index": 2, "level": 1, "right_low": 0.0}]  # it ended early
    found = find_lowest_accuracy(rows)
    assert [(row["index"], row["right_low"], row.get("tuning")) for row in found] == [(0, 0.2, None), (1, 0.1, 2)]


def test_a_sequence_that_diverged_leaves_no_verdict_on_its_accuracy():
    rows = make_rows((0.99,) * 3, (0.99,) * 3, contender="neggrad-plus")["union"]
    for row in rows:
        if row["index"] == 0 and row["variant"] == f"rum {tiny.SCORE}" and row["level"] > 1:
            row |= {"status": "diverged", "right_low": float("nan"), "tow_test": float("nan")}
    claims = check_claims({"union": rows}, tiny.make_config("neggrad-plus"))
    assert tiny.list_verdicts(claims, "low to high: accuracy") == ["no verdict: 1 of 16 runs diverged"]
    assert tiny.list_verdicts(claims, "high to low: accuracy") == ["holds"]
    # in ToW it counts 0, beside which .9 is no similar one
    [similar] = [claim for claim in claims if "similar ToW" in claim.claim]
    assert similar.verdict == "undecided"
    assert similar.value.value == pytest.approx(-0.9 / 8, abs=0.01)
