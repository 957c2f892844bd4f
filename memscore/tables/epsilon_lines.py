"""Table of the lower bounds on a model's privacy loss, with what each assumes and what these examples allow."""

import numpy as np
from rich.console import Console

from memscore.statistics.privacy_bounds import PrivacyBound
from memscore.tables.console import make_table, print_line
from memscore.tables.numbers import format_interval, format_number

METHOD_NAMES = {
    "clopper-pearson": "epsilon, two rates",
    "one-run": "epsilon, one run",
    "one-run-fdp": "epsilon, one run f-DP",
    "gdp": "mu, two rates",
    "one-run-gdp": "mu, one run f-DP",
}
NOTES = (
    "two rates: Clopper-Pearson, valid as far as the examples are independent of one another",
    "one run: Steinke et al. 2023; f-DP: Mahloujifar et al. 2024. Examples may depend on one another; members must "
    "have been drawn at random, and as many others are used. It is the epsilon of replacing an example, at most twice "
    "that of adding or removing one",
    "mu: of Gaussian differential privacy; for training whose trade-off "
    "function is Gaussian, as that of noisy gradients nearly is",
    "at most: what an attack without an error would reach with these numbers; near it, only more examples can say more",
)


def print_epsilon_bounds(console: Console, bounds: tuple[PrivacyBound, ...], n: int) -> None:
    """Print the bounds by each method, and what they assume; n is the number of training examples."""
    if all(np.isnan(bound.value) for bound in bounds):
        print_line(console, "epsilon   no bound: each half of the examples needs members and others")
        return
    first = bounds[0]
    title = f"lower bounds at {100 * first.level:g} % confidence each, delta {first.delta:g}"
    columns = (
        "lower bound of",
        "value",
        "at most",
        f"of {first.splits} halves",
        "right",
        "wrong",
    )
    table = make_table(title, columns)
    for bound in bounds:
        table.add_row(
            METHOD_NAMES[bound.method],
            format_number(bound.value),
            format_number(bound.ceiling),
            f"{format_number(bound.median)} {format_interval(bound.lowest, bound.highest)}",
            *format_counts(bound.counts),
        )
    console.print(table)
    lower = sum(bound.value > 0 and bound.members == "lower" for bound in bounds)
    direction = [f"members score lower in {lower} of {len(bounds)} bounds: low scores tell them apart as well"]
    halves = (
        f"halves: an attack is chosen on one half and counted on the other; median and range over {first.splits} "
        f"draws, the first of which is the bound. The best of them is none, it has {first.splits} chances to err"
    )
    means = [
        f"{METHOD_NAMES[bound.method]}: {format_number(bound.value)} is epsilon {format_number(bound.epsilon)} "
        f"at delta {bound.delta:g}"
        for bound in bounds
        if bound.parameter == "mu" and np.isfinite(bound.epsilon)
    ]
    for note in (*NOTES, *means, halves, *(direction if lower else []), *format_delta_notes(bounds, n)):
        print_line(console, note)


def format_counts(counts: dict[str, int]) -> tuple[str, str]:
    """Format what a bound was computed from: right and wrong of how many."""
    if "guesses" in counts:
        guesses, correct = counts["guesses"], counts["correct"]
        return f"{correct}/{guesses}", f"{guesses - correct}/{guesses}"
    return f"{counts['hits']}/{counts['of_hits']}", f"{counts['false']}/{counts['of_false']}"


def format_delta_notes(bounds: tuple[PrivacyBound, ...], n: int) -> list[str]:
    """Format what a delta means for n examples, and for which bound there is no epsilon."""
    delta = bounds[0].delta
    if delta == 0:
        positive = any(bound.parameter == "mu" and bound.value > 0 for bound in bounds)
        return ["Gaussian: a mu above 0 has no epsilon at delta 0; give --delta"] if positive else []
    rule = "training that publishes one of n examples at random is (0, 1/n)-private, so delta should be far below 1/n"
    note = f"delta: n x delta is {n * delta:.2g} with n = {n} examples of the bank; {rule}"
    return [note if n * delta < 1 else f"[yellow]{note}[/]"]
