"""Panels of an experiment: a row for each column that is shown, a line for each series that has rows."""

import pytest
from matplotlib.figure import Figure

from tests.fixtures import tiny
from unlearn.experiments import memorization, proxies
from unlearn.experiments.plots import DETAIL_COLUMNS, compute_figure_size, draw_grid, plot_over_steps
from unlearn.forget_sets import LEVELS
from unlearn.trials.config import ORACLE

MEASURED = {"tow_test": "ToW (test)"} | DETAIL_COLUMNS


def test_each_column_is_a_row_of_panels_whose_points_are_its_means():
    panels = {
        title: {
            f"finetune|{place}": tiny.make_rows(
                "finetune", **{column: base + n / 10 for n, column in enumerate(MEASURED)}
            )
            for place, base in (("low", 0.1), ("high", 0.2))
        }
        for title in ("left", "right")
    }
    figure = Figure(figsize=compute_figure_size(panels, LEVELS, MEASURED))
    draw_grid(figure, panels, ("finetune", "absent"), ("low", "high"), MEASURED)
    assert len(figure.axes) == 2 * len(MEASURED)
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == list(MEASURED.values())
    assert [axis.get_title() for axis in figure.axes] == ["left", "right"] + [""] * 8
    for number, axis in enumerate(figure.axes):
        (line,) = axis.containers
        expected = [base + number // 2 / 10 for base in (0.1, 0.2)]
        assert line.lines[0].get_ydata() == pytest.approx(expected)


def test_intervals_and_axes_stay_within_what_a_column_can_be():
    """Rows of two originals have t intervals beyond 0 and 1; those of a column without limits are drawn whole."""
    rows = tiny.make_rows("finetune", tow_test=0.9, mean_score=0.9)
    spread = [{**row, "tow_test": value, "mean_score": value} for row, value in zip(rows, (0.7, 1.0) * 2, strict=True)]
    panels = {title: {"finetune|low": spread, "finetune|high": rows} for title in ("left", "right")}
    figure = Figure()
    draw_grid(figure, panels, ("finetune",), ("low", "high"), {"tow_test": "ToW", "mean_score": "score"})
    *limited, free, _ = figure.axes
    for axis in limited:
        assert axis.get_ylim()[1] == pytest.approx(1.02)
        [collection] = axis.containers[0].lines[2]
        assert collection.get_segments()[0][:, 1].max() == pytest.approx(1)
        assert collection.get_segments()[0][:, 1].min() < 0.7
    [collection] = free.containers[0].lines[2]
    assert collection.get_segments()[0][:, 1].max() > 1.05


def test_an_axis_follows_what_is_added_below_the_limit():
    axis = Figure().subplots()
    for value in (0.9, 0.1):
        plot_over_steps(axis, [0], [tiny.make_rows("finetune", tow_test=value)], "tow_test", "a", "C0")
    low, high = axis.get_ylim()
    assert low < 0.1
    assert 0.9 < high <= 1.02


@pytest.fixture
def render_calls(monkeypatch):
    """What the experiments hand to the drawing: (series, columns)."""
    calls = []

    def render(panels, series, at, column, ylabel, title, more):
        calls.append((tuple(series), (column, *more), panels))
        return b""

    for module in (memorization, proxies):
        monkeypatch.setattr(module, "render_points", render)
    return calls


def test_memorization_shows_what_tow_is_made_of_and_the_oracle(render_calls):
    rows = {level: tiny.make_rows(ORACLE, "", "", tow_test=1.0) for level in LEVELS}
    memorization.draw_figure(rows, tiny.make_config("finetune"))
    ((series, columns, panels),) = render_calls
    assert series == ("finetune", "original", ORACLE)
    assert columns == ("tow_test", "forget_accuracy", "retain_accuracy", "accuracy_test", "mia_test")
    assert all(len(panel[f"{ORACLE}|low"]) == 4 for panel in panels.values())


def test_proxies_show_the_attack_too(render_calls):
    config = tiny.make_config("finetune")
    proxies.draw_figure({name: [] for name in proxies.list_scores(config)}, config)
    assert render_calls[0][1] == ("tow_test", "tow_mia_test")
