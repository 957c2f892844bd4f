"""Plot the comparison of scores: memorization over proxies, Lorenz curves, attack success over loss."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np

from memscore.analysis.risk_signals import RiskSignals
from memscore.plots.bank import ACCENT, INK, create_figure, encode_png
from memscore.statistics.inequality import lorenz
from memscore.statistics.intervals import Interval

N_COLUMNS = 4  # panels a row
MAX_CURVES = 10  # one for each of ten colours


def plot_proxies(
    memorization: np.ndarray, proxies: Mapping[str, np.ndarray], spearman: Mapping[str, float], title: str
) -> bytes:
    """Plot one panel per proxy as a PNG: density of examples over proxy and memorization, log scale (SCALE, Fig. 5)."""
    rows = -(-len(proxies) // N_COLUMNS)
    figure = create_figure(2.6 * min(N_COLUMNS, len(proxies)), 2.5 * rows + 0.3)
    figure.suptitle(title)
    axes = figure.subplots(rows, min(N_COLUMNS, len(proxies)), squeeze=False, sharey=True)
    # the last row may have more panels than proxies
    for axis in axes.flat[len(proxies) :]:
        axis.set_axis_off()
    for axis, (name, values) in zip(axes.flat, proxies.items(), strict=False):
        defined = ~np.isnan(values) & ~np.isnan(memorization)
        if defined.any():
            axis.hexbin(values[defined], memorization[defined], gridsize=28, bins="log", cmap="viridis", mincnt=1)
        r = spearman[name]
        axis.set_title(f"{name}\n" + ("constant" if np.isnan(r) else f"Spearman {r:.2f}"), fontsize=8)
        axis.tick_params(labelsize=7)
    for row in axes:
        row[0].set_ylabel("memorization")
    return encode_png(figure)


def plot_lorenz_curves(scores: Mapping[str, np.ndarray], gini: Mapping[str, Interval], title: str) -> bytes:
    """Plot Lorenz curves of at most ten oriented scores as a PNG, the first one thick (SCALE, Fig. 12)."""
    figure = create_figure(5.2, 4.4)
    axis = figure.subplots()
    colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, (name, values) in enumerate(list(scores.items())[:MAX_CURVES]):
        label = f"{name}, Gini {gini[name].value:.2f}"
        axis.plot(*lorenz(values), color=colours[number], label=label, linewidth=1.2 if number else 2.2)
    axis.plot([0, 1], [0, 1], color="#94a3b8", linestyle="--", linewidth=0.8)
    axis.set(xlabel="share of the examples, lowest first", ylabel="share of the total", title=title)
    axis.legend(frameon=False, fontsize=7)
    return encode_png(figure)


def plot_loss_and_success(signals: RiskSignals, title: str) -> bytes:
    """Plot attack success over tenths of the loss, and probabilities of risky and random examples, as a PNG."""
    figure = create_figure(8, 3.2)
    left, right = figure.subplots(1, 2)
    # Fig. 5 of RSU; matplotlib takes the lengths of error bars, not their ends
    middles = np.arange(1, len(signals.groups) + 1)
    means = np.array([group.success.value for group in signals.groups])
    lows, highs = (np.array([getattr(group.success, end) for group in signals.groups]) for end in ("lo", "hi"))
    left.errorbar(middles, means, yerr=[means - lows, highs - means], color=ACCENT, marker="o", markersize=3)
    left.set(xlabel="tenth of the examples by loss", ylabel="attack success, mean and 95 %", title=title)
    # Table 3 of RSU. Probabilities of members are close to 1: their differences show on a log scale of 1 - p.
    labels = np.arange(len(signals.tails))
    right.scatter(labels, [1 - tail.tail for tail in signals.tails], marker="_", color=INK, label="lowest fifth begins")
    right.scatter(labels, [1 - tail.risky for tail in signals.tails], s=14, color="#b91c1c", label="riskiest")
    right.scatter(labels, [1 - tail.twin for tail in signals.tails], s=14, color=ACCENT, label="random")
    right.set(yscale="log", xlabel="class", ylabel="1 - probability of the label", title=f"by {signals.risk}")
    right.set_xticks(labels, [str(tail.label) for tail in signals.tails])
    right.legend(frameon=False, fontsize=7)
    return encode_png(figure)
