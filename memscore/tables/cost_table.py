"""What a run would cost, in a terminal: time on CPUs and GPUs, memory, disk, and a price."""

from rich.console import Console

from memscore.pipeline.cards import LAUNCH_S, UTILISATION, CardOptions
from memscore.pipeline.dry_run import CostEstimate
from memscore.pipeline.precision_times import PrecisionTimes
from memscore.pipeline.work import Work
from memscore.tables.console import make_table, print_line
from memscore.units import format_about_hours, format_count, format_duration, format_hours, format_size
from memscore.visible_text import write_line

LABEL_WIDTH = 7  # of the labels before the lines
MIN_GAIN = 1.1  # of bfloat16-products over float32, for it to be advised


def show_timing(line: str) -> None:
    """Show a line of progress while something is timed."""
    write_line(line)


def format_number(value: float) -> str:
    """Format a number of an estimate with two or three digits.

    >>> [format_number(value) for value in (0.0123, 4.567, 45.67, 86123)]
    ['0.012', '4.6', '46', '86,123']
    """
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2g}"


def format_flops(flops: float) -> str:
    """Format a number of floating-point operations.

    >>> format_flops(3.1e16), format_flops(2e9)
    ('31 PFLOP', '2.0 GFLOP')
    """
    scales = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))
    scale, name = next(((scale, name) for scale, name in scales if flops >= scale), scales[-1])
    return f"{format_number(flops / scale)} {name}"


def print_lines(console: Console, lines: list[str]) -> None:
    """Print lines that begin with a label."""
    for line in lines:
        print_line(console, line, indent=LABEL_WIDTH)


def print_cost(
    console: Console, cost: CostEstimate, cards: CardOptions, precisions: PrecisionTimes | None = None
) -> None:
    """Print what a run of a bank would cost, and what bfloat16-products gains if that was timed."""
    # What is stored is not counted; an original takes longer than a model, since it is trained on everything.
    missing, model_s = cost.planned - cost.stored, format_duration(cost.model.core_s)
    lines = [
        f"to do  {missing} of {format_count(cost.planned, 'model')}, about {model_s} each on one core of this machine"
    ]
    if cost.originals:
        original_s = format_duration(cost.original.core_s)
        lines.append(f"       {format_count(cost.originals, 'original')}, about {original_s} each")
    lines += [f"proxy  {name}: about {format_duration(work.core_s)} an original" for name, work in cost.proxies.items()]
    if cost.only_first_models:
        lines.append("more   what the requested RMSE takes is known after these first models")
    lines += [
        f"CPU    {format_about_hours(cost.core_s)} core-hours: {format_duration(cost.wall_s)} with "
        f"{format_count(cost.workers, 'worker')}, originals and scores included",
        *([describe_precisions(precisions)] if precisions else []),
        f"memory about {format_size(cost.worker_bytes)} a worker",
        f"disk   about {format_size(cost.bytes)} in all",
        f"FLOP   {format_flops(cost.model.flops)} a model, {format_flops(cost.trained.flops)} in all",
    ]
    print_lines(console, lines)
    print_gpu_hours(console, cost.trained, cost.precision, cards, cost.gpu_bytes)
    print_price(console, cost.trained, cost.core_s, cost.precision, cards)
    print_lines(console, ["nothing was written"])


def describe_precisions(times: PrecisionTimes) -> str:
    """Describe what bfloat16-products gains or costs beside float32.

    >>> describe_precisions(PrecisionTimes(float32=0.003, bfloat16_products=0.002, precision="float32"))
    'step   3.0 ms a model in float32, 2.0 in bfloat16-products: 1.50 times as fast here (--precision, of a new bank)'
    >>> describe_precisions(PrecisionTimes(float32=0.001, bfloat16_products=0.002, precision="bfloat16-products"))
    'step   1.0 ms a model in float32, 2.0 in bfloat16-products: 0.50 times as fast here; float32 is faster'
    """
    if times.precision == "float32":
        advice = " (--precision, of a new bank)" if times.gain >= MIN_GAIN else ""
    else:
        advice = "; float32 is faster" if times.gain < 1 else ""
    float32, rounded = (format_number(1e3 * seconds) for seconds in (times.float32, times.bfloat16_products))
    return (
        f"step   {float32} ms a model in float32, {rounded} in bfloat16-products: {times.gain:.2f} times as fast here"
        f"{advice}"
    )


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
            memory = f"{format_size(gpu_bytes)} of {card.memory_gb:g} GB{fits}"
        table.add_row(
            card.label, format_hours(seconds), format_duration(seconds), *([memory] * (gpu_bytes is not None))
        )
    console.print(table)
    # one paragraph below the table, without the indent of labelled lines
    print_line(
        console,
        f"GPUs: estimates from peak rates x {describe_shares(cards)}, at least {1e6 * LAUNCH_S:g} microseconds an "
        "operation; scores are computed on CPUs. CPUs: timed here. docs/guides/cost.md: how far off",
    )


def print_price(console: Console, work: Work, core_s: float, precision: str, cards: CardOptions) -> None:
    """Print the price of the work: on the card that was named, else on cores; nothing without a price of an hour."""
    if cards.price is None:
        return
    if cards.gpu is None:
        seconds, what = core_s, "core-hours"
    else:
        [card] = cards.list_cards()
        seconds, what = work.compute_gpu_seconds(card, precision), f"hours of {card.label}"
    print_lines(
        console,
        [f"price  about {seconds / 3600 * cards.price:,.2f}: {format_hours(seconds)} {what} at {cards.price:g}"],
    )
