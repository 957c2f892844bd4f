"""Figures of a bank: memorization, most memorized and influential images, ROC curves.

ROC curves of membership attacks have log axes, on which the left end is visible.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from memscore.statistics.roc import RocBand
from memscore.store.class_names import NAME_COLUMNS, format_class
from memscore.visible_text import escape_controls_in_lines

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
INK, ACCENT = "#334155", "#0f766e"
MOST_LETTERS = 16
"""Of a class name under a picture of a gallery."""
CELL_SIZE, TITLE_HEIGHT = (1.1, 1.45), 0.4  # inches: an image with its caption, and the title over all


def create_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> "Figure":
    """Create a figure of this size in inches; sets matplotlib's settings to STYLE."""
    import matplotlib as mpl  # jobs import this module, draw nothing, and may run where matplotlib is missing
    from matplotlib.figure import Figure

    mpl.rcParams.update(STYLE)
    return Figure(figsize=(width, height), layout=layout)


def plot_memorization(memorization: np.ndarray, se: np.ndarray, title: str) -> bytes:
    """Plot a histogram of memorization [n] (NaN where undefined) beside its standard errors [n], as PNG."""
    figure = create_figure(8, 3)
    left, right = figure.subplots(1, 2)
    defined = ~np.isnan(memorization)
    left.hist(memorization[defined], bins=np.linspace(-0.5, 1, 61), color=ACCENT)
    left.set(yscale="log" if defined.any() else "linear", xlabel="memorization", ylabel="examples", title=title)
    right.scatter(memorization[defined], se[defined], s=4, alpha=0.3, color=INK, linewidths=0)
    right.set(xlabel="memorization", ylabel="standard error", ylim=(0, None))
    return encode_png(figure)


def plot_gallery(images: np.ndarray, captions: list[list[str]], rows: int, title: str) -> bytes:
    """Plot images, uint8 [rows * columns, C, H, W], row by row with a line or two under each, as PNG."""
    columns, (_, height, width) = len(images) // rows, images.shape[1:]
    figure = create_figure(CELL_SIZE[0] * columns, CELL_SIZE[1] * rows + TITLE_HEIGHT, layout=None)
    figure.suptitle(title, y=1 - 0.3 * TITLE_HEIGHT / (CELL_SIZE[1] * rows + TITLE_HEIGHT), fontsize=9)
    # One axes for all: an axes per image takes a second of drawing for thirty of them. Its units are cells, with row 0
    # at the top; an image fills 0.92 x 0.7 of its cell at most and keeps its proportions.
    axis = figure.add_axes((0, 0, 1, CELL_SIZE[1] * rows / (CELL_SIZE[1] * rows + TITLE_HEIGHT)))
    half, tall = 0.46 * width / max(height, width), 0.7 * height / max(height, width)
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, columns)
        shown = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        extent = (column + 0.5 - half, column + 0.5 + half, row + tall, row)
        axis.imshow(shown, cmap="gray" if len(image) == 1 else None, vmin=0, vmax=255, extent=extent, aspect="auto")
        axis.text(column + 0.5, row + tall + 0.02, "\n".join(caption), fontsize=7, ha="center", va="top")
    axis.set(xlim=(0, columns), ylim=(rows, 0))
    axis.set_axis_off()
    return encode_png(figure)


def draw_cell(axis: "Axes", image: np.ndarray, caption: Sequence[str]) -> None:
    """Draw an image, uint8 [C, H, W], on the full scale from black to white, with a caption."""
    # Without vmin and vmax matplotlib would stretch each gray image to its own darkest and brightest pixel.
    shown = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    axis.imshow(shown, cmap="gray" if len(image) == 1 else None, vmin=0, vmax=255)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel("\n".join(caption), fontsize=7)


def plot_influence(
    images: Sequence[Sequence[np.ndarray]],
    captions: Sequence[Sequence[Sequence[str]]],
    faint: Sequence[Sequence[bool]],
    title: str,
) -> bytes:
    """Plot a row for each target, as PNG: its image in a frame, then the images that influence it most."""
    rows, columns = len(images), max(map(len, images))
    figure = create_figure(1.2 * columns, 1.6 * rows + 0.5)
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, row_images, row_captions, row_faint in zip(axes, images, captions, faint, strict=True):
        for axis, image, caption, is_faint in zip(row, row_images, row_captions, row_faint, strict=False):
            draw_cell(axis, image, caption)
            if is_faint:
                axis.images[0].set_alpha(0.4)
                axis.xaxis.label.set_alpha(0.5)
        for axis in row[len(row_images) :]:
            axis.set_axis_off()
        for spine in row[0].spines.values():
            spine.set(visible=True, color=ACCENT, linewidth=2.5)
    return encode_png(figure)


def plot_most_memorized(
    images: np.ndarray,
    labels: np.ndarray,
    labels_true: np.ndarray,
    left_out: np.ndarray,
    memorization: np.ndarray,
    names: Sequence[str] = (),
    columns: int = 8,
    classes: int = 10,
) -> bytes:
    """Plot the most memorized images of each class, as PNG: label, how often it is found without it, memorization.

    A row is a class, of those with the highest mean memorization. `left_out` [n] is the share of the models trained
    without an example that give it its label; it and `memorization` are NaN where undefined. `names` are those of the
    classes, their numbers if empty.
    """
    # Undefined values come last in their class, and classes without a defined value come after all others.
    values = np.nan_to_num(memorization, nan=-np.inf)
    present = np.unique(labels)
    means = [np.nanmean(memorization[labels == k]) if np.isfinite(values[labels == k]).any() else -1 for k in present]
    # The classes are selected by their mean, and shown in the order of their labels. A grid is rectangular, so the
    # smallest class shown decides how many images each row has.
    shown = np.sort(present[np.argsort(-np.asarray(means), kind="stable")[:classes]])
    columns = min(columns, *(int((labels == k).sum()) for k in shown))
    rows = [np.flatnonzero(labels == k) for k in shown]
    top = np.concatenate([row[np.argsort(-values[row], kind="stable")[:columns]] for row in rows])
    captions = []
    for i in top:
        label, true = (shorten_name(format_class(int(each[i]), names)) for each in (labels, labels_true))
        share = "" if np.isnan(left_out[i]) else f", {100 * left_out[i]:.0f} %"
        truth = [f"truly {true}"] if labels[i] != labels_true[i] else []
        captions.append([label, *truth, f"{memorization[i]:.2f}{share}"])
    title = "most memorized of each class: label as trained; memorization, and how often models without it are right"
    return plot_gallery(images[top], captions, len(shown), title)


def encode_png(figure: "Figure") -> bytes:
    """Encode the figure as PNG, without a date or matplotlib's version; its texts are plain, see show_plainly."""
    show_plainly(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def show_plainly(artist: "Artist") -> None:
    """Escape control characters in all texts of a figure, and read no mathematics: a class may be named $5."""
    from matplotlib.axis import Tick
    from matplotlib.text import Text

    if isinstance(artist, Tick):  # its numbers are matplotlib's, and those of a logarithmic axis are mathematics
        return
    if isinstance(artist, Text):
        artist.set_text(escape_controls_in_lines(artist.get_text()))
        artist.set_parse_math(False)
    for child in artist.get_children():
        show_plainly(child)


def plot_roc_bands(curves: Mapping[str, RocBand], title: str) -> bytes:
    """Plot the mean ROC curve of each attack, with the central 95 % of targets shaded, as PNG."""
    figure = create_figure(5.2, 4.6)
    axis = figure.subplots()
    draw_bands(axis, curves)
    axis.set(title=title, ylabel="true positive rate, mean and 95 % of targets")
    return encode_png(figure)


def draw_bands(axis: "Axes", curves: Mapping[str, RocBand]) -> None:
    """Draw mean curves with shaded bands and the dashed diagonal on log axes; no curves give the diagonal alone."""
    import matplotlib as mpl  # as above

    lowest = min((float(curve.fpr[0]) for curve in curves.values()), default=0.001)
    colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, (name, curve) in enumerate(curves.items()):
        colour = colours[number % len(colours)]
        # A log axis cannot show 0: a curve ends where its mean is 0, and a band that reaches 0 ends below the axis.
        shown = np.nan_to_num(curve.mean) > 0
        fpr = curve.fpr[shown]
        axis.plot(fpr, curve.mean[shown], color=colour, label=name, linewidth=1.4)
        lo = np.maximum(curve.lo[shown], lowest / 10)
        axis.fill_between(fpr, lo, curve.hi[shown], color=colour, alpha=0.15, linewidth=0)
    axis.plot([lowest, 1], [lowest, 1], color="#94a3b8", linestyle="--", linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest / 2, 1.05), xlabel="false positive rate")
    if curves:
        axis.legend(frameon=False, loc="lower right")


def format_label(table: pa.Table, row: int) -> str:
    """Format the label as trained, and the true one where it differs; by name where the table has names."""
    names = {key: name if name in table.column_names else key for key, name in NAME_COLUMNS.items()}
    label, true = (table[names[key]][row].as_py() for key in ("label", "label_true"))
    if label is None:
        return "-"
    return str(label) if label == true else f"{label} (truly {true})"


def shorten_name(name: str) -> str:
    """Cut a class name to the width of a picture."""
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
