"""The table of what gradient inversion reached, in a terminal."""

from rich.console import Console

from memscore.proxies.inversion_summary import MEANS, InversionSummary
from memscore.statistics.intervals import Interval
from memscore.tables.console import make_table, print_line


def print_inversion(console: Console, summary: InversionSummary | None) -> None:
    """Print means over the attacked examples, and the sign test of the gain; nothing without an inversion."""
    if summary is None:
        return
    title = f"gradient inversion of {summary.examples} training examples: mean and 95 % over examples"
    table = make_table(title, ("what is rebuilt", "mean", "95 %"))
    for name, interval in summary.means.items():
        table.add_row(MEANS[name], *format_mean(interval))
    if summary.retrieval:
        table.add_row(f"example is the nearest of {summary.compared_images} images", *format_mean(summary.retrieval))
    console.print(table)
    notes = ["PSNR and SSIM follow the brightness and contrast of the picture itself"]
    if summary.retrieval:
        notes.append(f"by chance the nearest of {1 / summary.compared_images:.2g}, and half resemble it less")
    if above_and_below := sum(summary.gains):
        notes.append(f"gain above 0 for {summary.gains[0]} of {above_and_below}, sign test p = {summary.sign_test:.2g}")
    print_line(console, "; ".join(notes))


def format_mean(interval: Interval) -> tuple[str, str]:
    """Format a mean and its interval with two digits, a dash where undefined."""
    value, lo, hi = (
        "-" if number != number else f"{number:.2f}" for number in (interval.value, interval.lo, interval.hi)
    )
    return value, "-" if lo == hi == "-" else f"[{lo}, {hi}]"
