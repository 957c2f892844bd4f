"""What is said of an inversion: intervals, and a sign test that noise and a better model of a pair do not reject."""

import io

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from memscore.proxies.inversion_summary import summarize_inversions
from memscore.tables.inversion_table import print_inversion

NAN = float("nan")


def print_table(summary):
    console = Console(width=120, record=True, file=io.StringIO())
    print_inversion(console, summary)
    return " ".join(console.export_text().split())


def test_means_shares_and_the_sign_test_are_those_of_the_columns():
    table = pa.table({
        "inversion_psnr": [10.0, 20.0, np.inf, NAN],
        "inversion_retrieval": [1.0, 0.5, 0.0, NAN],
        "inversion_gain": [1.0, 2.0, -0.5, NAN],
    })
    summary = summarize_inversions(table)
    assert (summary.examples, summary.compared_images) == (3, 4)
    assert summary.means["inversion_psnr"].value == 15  # one that is infinite has no mean
    # mean 5/6, standard deviation 1.258, t of 2 degrees of freedom 4.303
    gain = summary.means["inversion_gain"]
    assert (gain.value, gain.hi) == (pytest.approx(5 / 6), pytest.approx(5 / 6 + 4.30265 * 1.258306 / np.sqrt(3)))
    assert summary.retrieval.value == 0.5
    assert summary.retrieval.lo == pytest.approx(0.1256, abs=1e-3)  # Wilson's, of 1.5 of 3
    assert (summary.gains, summary.sign_test) == ((2, 1), 1.0)
    text = print_table(summary)
    assert "gradient inversion of 3 training examples" in text
    assert "example is the nearest of 4 images 0.50" in text
    assert "by chance the nearest of 0.25, and half resemble it less" in text
    assert "gain above 0 for 2 of 3, sign test p = 1" in text


def test_without_an_inversion_nothing_is_said_and_without_a_gain_no_test():
    assert summarize_inversions(pa.table({"aum": [1.0]})) is None
    assert print_table(None) == ""
    summary = summarize_inversions(pa.table({"inversion_psnr": [12.0], "inversion_ssim": [0.5]}))
    assert np.isnan(summary.sign_test)
    text = print_table(summary)
    assert "PSNR, dB 12.00 -" in text
    assert "sign test" not in text


@pytest.mark.parametrize("originals", [1, 3])
def test_where_nothing_is_gained_intervals_cover_0_though_one_model_of_a_pair_is_the_better(originals):
    """600 nulls of 120 examples; a model of each pair is better by two of its standard deviations."""
    rng, runs, n = np.random.default_rng(0), 600, 120
    better = rng.normal(scale=2, size=(runs, originals, 1))
    held_by_first = np.stack([
        [rng.permutation(n) % 2 * 2 - 1 for _ in range(originals)] for _ in range(runs)
    ])  # [runs, originals, n], +1 or -1, one half each
    gains = (better * held_by_first + rng.standard_normal((runs, originals, n))).mean(1)
    rejected, covered = 0, 0
    for gain in gains:
        summary = summarize_inversions(pa.table({"inversion_gain": gain}))
        interval = summary.means["inversion_gain"]
        covered += interval.lo <= 0 <= interval.hi
        rejected += summary.sign_test < 0.05
    assert covered / runs > 0.95 - 4 * np.sqrt(0.05 * 0.95 / runs)
    assert rejected / runs < 0.05 + 4 * np.sqrt(0.05 * 0.95 / runs)
