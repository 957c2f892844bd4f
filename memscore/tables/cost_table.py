"""What a run would cost, in a terminal: time on CPUs and GPUs, memory, disk, and a price."""

import sys

from rich.console import Console

from memscore.pipeline.cards import LAUNCH_S, UTILISATION, CardOptions
from memscore.pipeline.dry_run import CostEstimate
from memscore.pipeline.work import Work
from memscore.tables.console import make_table

SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))
SPANS = (
    (2 * 8766 * 3600.0, 8766 * 3600.0, "years"),
    (2 * 86400.0, 86400.0, "days"),
    (5400.0, 3600.0, "h"),
    (90.0, 60.0, "min"),
)
"""Seconds from which a unit is used, seconds of the unit, and its name."""


def show_timing(line: str) -> None:
    """Show a line of progress while something is timed."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def format_span(seconds: float) -> str:
    """Format a time in the unit that a person would say.

    >>> format_span(7.25), format_span(754), format_span(45360), format_span(9e7)
    ('7.2 s', '13 min', '13 h', '2.9 years')
    """
    for least, unit_s, unit in SPANS:
        if seconds >= least:
            return f"{format_number(seconds / unit_s)} {unit}"
    return f"{format_number(seconds)} s"


def format_number(value: float) -> str:
    """Format a number of an estimate with two or three digits.

    >>> [format_number(value) for value in (0.0123, 4.567, 45.67, 86123)]
    ['0.012', '4.6', '46', '86,123']
    """
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2g}"


def format_size(size: float) -> str:
    """Format a number of bytes.

    >>> format_size(4.2e9), format_size(310e3)
    ('4.2 GB', '0.31 MB')
    """
    unit, name = next(((unit, name) for unit, name in SIZES if size >= unit), SIZES[-1])
    return f"{format_number(size / unit)} {name}"


def format_flops(flops: float) -> str:
    """Format a number of floating-point operations.

    >>> format_flops(3.1e16), format_flops(2e9)
    ('31 PFLOP', '2.0 GFLOP')
    """
    scales = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))
    scale, name = next(((scale, name) for scale, name in scales if flops >= scale), scales[-1])
    return f"{format_number(flops / scale)} {name}"


def count_things(number: int, thing: str) -> str:
    """Format a number of things.

    >>> count_things(1, "worker"), count_things(4096, "model")
    ('1 worker', '4096 models')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"


def print_lines(console: Console, lines: list[str]) -> None:
    """Print lines, without colours for numbers and without breaks."""
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def print_cost(console: Console, cost: CostEstimate, cards: CardOptions) -> None:
    """Print what a run of a bank would cost."""
    missing, each = cost.planned - cost.stored, cost.model
    print_lines(
        console,
        [
            f"to do  {missing} of {cost.planned} models, about {format_span(each.core_s)} each on one core of this "
            "machine",
            *(
                [f"       {count_things(cost.originals, 'original')}, about {format_span(cost.original.core_s)} each"]
                if cost.originals
                else []
            ),
            *(f"proxy  {name}: about {format_span(work.core_s)} an original" for name, work in cost.proxies.items()),
            *(["more   what the requested RMSE takes is known after these first models"] * cost.only_first_models),
            f"CPU    about {format_number(cost.core_s / 3600)} core-hours: {format_span(cost.wall_s)} with "
            f"{count_things(cost.workers, 'worker')}, originals and scores included",
            f"memory about {format_size(cost.worker_bytes)} a worker",
            f"disk   about {format_size(cost.bytes)} in all",
            f"FLOP   {format_flops(each.flops)} a model, {format_flops(cost.trained.flops)} in all",
        ],
    )
    print_gpu_hours(console, cost.trained, cost.precision, cards, cost.gpu_bytes)
    print_price(console, cost.trained, cost.core_s, cost.precision, cards)
    print_lines(console, ["nothing was written"])


def describe_shares(cards: CardOptions) -> str:
    """Describe which share of the peak rates the shown cards reach, and which of these were measured.

    >>> describe_shares(CardOptions(gpu="h200")), describe_shares(CardOptions(gpu="t4"))
    ('0.28, measured once', '0.35, assumed')
    """
    shares = {card.label: card.utilisation for card in cards.list_cards()}
    measured = {label: share for label, share in shares.items() if share != UTILISATION}
    if len(shares) == 1:
        [share] = shares.values()
        return f"{share:g}, {'measured once' if measured else 'assumed'}"
    others = ", ".join(f"{label}: {share:g}, measured once" for label, share in measured.items())
    return f"{UTILISATION:g}, assumed ({others})"


def print_gpu_hours(
    console: Console, work: Work, precision: str, cards: CardOptions, gpu_bytes: float | None = None
) -> None:
    """Print the hours of one GPU for the work, by card; and the memory that it needs, if that is known."""
    if not work.launches:
        return
    table = make_table(
        f"one GPU in place of the CPUs, {precision}",
        ("GPU", "GPU-hours", "that is", *(["needs"] * (gpu_bytes is not None))),
    )
    for card in cards.list_cards():
        seconds = work.compute_gpu_seconds(card, precision)
        memory = ""
        if gpu_bytes is not None:
            fits = "" if gpu_bytes < 1e9 * card.memory_gb else ", too much"
            memory = f"{format_size(gpu_bytes)} of {card.memory_gb:g}{fits}"
        table.add_row(
            card.label, format_number(seconds / 3600), format_span(seconds), *([memory] * (gpu_bytes is not None))
        )
    console.print(table)
    print_lines(
        console,
        [
            f"GPUs: estimates from peak rates x {describe_shares(cards)},",
            f"at least {1e6 * LAUNCH_S:g} microseconds an operation;",
            "scores are computed on CPUs. CPUs: timed here, see docs/guides/cost.md for how far off",
        ],
    )


def print_price(console: Console, work: Work, core_s: float, precision: str, cards: CardOptions) -> None:
    """Print the price of the work: on the card that was named, else on cores; nothing without a price of an hour."""
    if cards.price is None:
        return
    if cards.gpu is None:
        hours, what = core_s / 3600, "core-hours"
    else:
        [card] = cards.list_cards()
        hours, what = work.compute_gpu_seconds(card, precision) / 3600, f"hours of {card.label}"
    print_lines(
        console,
        [f"price  about {hours * cards.price:,.2f}: {format_number(hours)} {what} at {cards.price:g}"],
    )
