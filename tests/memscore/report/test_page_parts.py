"""Cells, thumbnails, bands and names of a page, on small cases with known answers."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from memscore.report.columns import Columns
from memscore.report.measures import describe_measure, make_measure_cell, measure_distance
from memscore.report.method_tables import build_method_table, name_in_figure
from memscore.report.method_words import METHOD_NAMES, name_method_in_words
from memscore.report.omissions import read_or_omit
from memscore.report.page_tables import PageTable, TableColumn, make_interval, make_number, make_text
from memscore.report.score_words import WORDS, describe_score, split_score_name
from memscore.report.table_files import format_csv, format_markdown
from memscore.report.thumbnails import choose_extremes, draw_sprites
from memscore.score_registry import SCORES
from memscore.statistics.means import estimate_mean
from memscore.store.parquet import CorruptFile
from memscore.store.remote import StoreUnavailable
from unlearn.algorithms import ALGORITHMS


def test_a_cell_keeps_the_number_and_shows_a_dash_without_one():
    assert make_number(0.123456) == ("0.123", 0.123456, None, None, "", "")
    assert make_number(math.nan).text == make_number(None).text == "-"
    cell = make_interval((0.5, 0.25, 0.75))
    assert (cell.text, cell.value, cell.lo, cell.hi) == ("0.500 [0.250, 0.750]", 0.5, 0.25, 0.75)
    assert make_interval({"value": 0.5, "lo": None, "hi": 0.75})[:4] == ("0.500", 0.5, None, None)
    assert make_interval((None, None, None), missing="finer than 1/600").text == "finer than 1/600"
    assert make_text("a\u202eb").text == "a\\u202eb"
    assert make_text("a\u202eb").value == "a\u202eb"


def test_csv_runs_no_formula_and_has_the_ends_of_intervals_alone_where_there_are_some():
    columns = (TableColumn("name", "Name", is_number=False), TableColumn("value", "Value"), TableColumn("n", "n"))
    rows = [
        [make_text("=1+1"), make_interval((0.1, 0.0, 0.2)), make_number(3)],
        [make_text('a,"b"'), make_number(None), make_number(4)],
    ]
    table = PageTable(name="t", title="T|t", columns=columns, rows=rows, notes=["a <note>"])
    lines = format_csv(table).splitlines()
    assert lines == ["name,value,value_lo,value_hi,n", "'=1+1,0.1,0.0,0.2,3", '"a,""b""",,,,4']
    text = format_markdown(table)
    assert text.startswith("**T\\|t**\n\n| Name | Value | n |\n| --- | ---: | ---: |\n")
    assert "a \\<note\\>" in text


def test_types_of_columns_are_the_smallest_that_hold_them():
    columns, n = Columns(), 3
    for values in (
        np.arange(n),
        np.array([0, 300, 5]),
        np.array([-1, 2, 3]),
        np.zeros(n),
        np.zeros(n, bool),
        ["a"] * n,
    ):
        columns.add("x", values, role="aux", title="")
    assert [each["type"] for each in columns.described] == ["u1", "u2", "i4", "f4", "bool", "str"]
    assert [values.dtype.itemsize for values in list(columns.values.values())[:-1]] == [1, 2, 4, 4, 1]


def test_the_highest_and_the_lowest_are_chosen_and_undefined_ones_last():
    values = np.array([0.1, np.nan, 0.9, 0.5, -0.3, 0.7, np.nan])
    assert choose_extremes(values, 4).tolist() == [0, 2, 4, 5]
    assert choose_extremes(values, 5).tolist() == [0, 2, 3, 4, 5]
    assert choose_extremes(values, 0).tolist() == []
    assert choose_extremes(values, 7).tolist() == list(range(7))
    assert len(choose_extremes(np.full(9, np.nan), 4)) == 4


def test_sprites_hold_each_image_in_its_place():
    images = np.random.default_rng(0).integers(0, 256, (30, 1, 4, 5)).astype(np.uint8)
    [sprite] = draw_sprites(images, np.arange(3, 30))
    pixels = np.asarray(Image.open(io.BytesIO(sprite.png)))
    assert pixels.shape == (2 * 4, 25 * 5)
    assert sprite.rows == list(range(3, 30))
    np.testing.assert_array_equal(pixels[4:8, 5:10], images[3 + 26, 0])
    wide = np.random.default_rng(0).integers(0, 256, (1, 3, 100, 200)).astype(np.uint8)
    assert Image.open(io.BytesIO(draw_sprites(wide, np.arange(1))[0].png)).size == (64, 32)


def test_a_value_within_the_oracles_band_is_green_and_others_say_how_far():
    descriptions = {
        "forget_accuracy": {"best": "oracle", "unit": "share", "ideal": "theta_r's", "description": "right on it"}
    }
    words = describe_measure("forget_accuracy", descriptions)
    assert words.about == "right on it; best at the oracle's value"
    oracle = estimate_mean([0.4, 0.5, 0.6])
    inside, outside = estimate_mean([0.45, 0.5]), estimate_mean([0.95, 1.0])
    assert measure_distance(inside, oracle) == 0
    assert measure_distance(outside, oracle) == pytest.approx(0.975 - oracle.hi)
    assert make_measure_cell(inside, words, oracle, 2).level == "good"
    cell = make_measure_cell(outside, words, oracle, 2)
    assert cell.level == ""
    assert "+0.2" in cell.about
    # an interval of a share ends at 1
    assert cell.hi == 1
    assert measure_distance(inside, estimate_mean([0.5])) is None


def test_a_measure_without_a_description_has_its_name_and_no_direction():
    words = describe_measure("own_loss_test", {})
    assert (words.title, words.best, words.about) == ("Own loss, test", "none", "")
    assert describe_measure("tow_test", {}).best == "max"


def test_a_diverged_run_counts_0_in_tow_and_is_counted():
    row = {"index": 0, "algorithm": "a", "status": "ok", "tow_test": 0.8, "forget_accuracy": 0.5}
    diverged = row | {"index": 1, "status": "diverged", "tow_test": math.nan, "forget_accuracy": math.nan}
    table = build_method_table("t", "t", {("a", "", ""): [row, diverged]}, {}, ("params", "select"))
    named = dict(zip((column.name for column in table.columns), table.rows[0], strict=True))
    assert named["tow_test"].value == pytest.approx(0.4)
    assert named["diverged"].value == 1
    assert named["forget_accuracy"].text == "0.500 (n=1)"


def test_methods_are_named_by_what_tells_them_apart():
    keys = [("a", "rum", "oracle"), ("b", "rum", "blind"), ("oracle", "", "")]
    assert [name_in_figure(key, keys) for key in keys[:2]] == ["a, by the oracle", "b, by no oracle"]


def test_every_score_has_words():
    for name in SCORES:
        stem, suffix = split_score_name(f"{name}_k0.500_iid-b8")
        assert (stem, suffix) == (name, "k0.500_iid-b8")
        assert describe_score(stem).title
    assert set(WORDS) <= {*SCORES, "memorization", "cscore", "memorization_probability", "memorization_probit"}
    assert describe_score("events_bank_entropy").title == "Entropy of the bank's models"


def test_what_cannot_be_read_is_an_omission_and_an_unreachable_store_an_error():
    omissions = []

    def fail(error):
        raise error

    assert read_or_omit("a", omissions, int, "3") == 3
    assert read_or_omit("b", omissions, fail, CorruptFile("x\n is damaged")) is None
    assert read_or_omit("c", omissions, fail, KeyError("entry")) is None
    assert [(each.what, each.reason[:12]) for each in omissions] == [("b", "x is damaged"), ("c", "its record i")]
    with pytest.raises(StoreUnavailable):
        read_or_omit("d", omissions, fail, StoreUnavailable("away"))


def test_every_algorithm_has_a_name_in_words():
    assert METHOD_NAMES.keys() == ALGORITHMS.keys()
    assert name_method_in_words("mine:forget") == "mine:forget"
