"""What sweeps would cost, in a terminal."""

from rich.console import Console

from memscore.pipeline.cards import CardOptions
from memscore.tables.console import make_table
from memscore.tables.cost_table import format_flops, print_gpu_hours, print_lines, print_price
from memscore.units import format_about_hours, format_count, format_duration, format_size
from unlearn.tuning.dry_run import SweepCost

SHOWN = 12  # rows of the table of trials


def print_sweep_cost(console: Console, cost: SweepCost, workers: int, cards: CardOptions, *, after: str = "") -> None:
    """Print what a sweep or an experiment would cost; `after` is what is not counted."""
    counts, total = cost.counts, cost.total
    # Sweeps of one experiment share originals and oracles, which are counted once.
    missing_models, missing = len(counts.models), counts.planned - counts.stored
    stored_models = len(counts.known_models) - missing_models
    print_lines(
        console,
        [
            f"models {format_count(counts.originals, 'original')} and {format_count(counts.oracles, 'oracle')} to "
            f"train, about {format_duration(cost.model.core_s)} each; {stored_models} stored",
            f"trials {missing} of {counts.planned} to run, {counts.stored} stored",
        ],
    )
    if cost.by_algorithm:
        table = make_table("one core of this machine", ("algorithm", "trials", "each", "all"))
        for label, number, work in cost.by_algorithm[:SHOWN]:
            table.add_row(label, str(number), format_duration(work.core_s), format_duration(number * work.core_s))
        if rest := cost.by_algorithm[SHOWN:]:
            seconds = sum(number * work.core_s for _, number, work in rest)
            table.add_row(f"{len(rest)} more", str(sum(number for _, number, _ in rest)), "", format_duration(seconds))
        console.print(table)
    lines = [
        f"CPU    {format_about_hours(total.core_s)} core-hours: {format_duration(total.core_s / workers)} with "
        f"{format_count(workers, 'worker')}",
        f"memory about {format_size(cost.worker_bytes)} a worker",
        f"disk   about {format_size(cost.bytes)} more",
        f"FLOP   {format_flops(total.flops)} in all",
    ]
    if counts.assumed:
        lines.append("note   steps that are not chosen yet are counted with their algorithms' defaults")
    if after:
        lines.append(f"note   not counted: {after}")
    print_lines(console, lines)
    print_gpu_hours(console, total, cost.precision, cards, cost.gpu_bytes)
    print_price(console, total, total.core_s, cost.precision, cards)
    print_lines(console, ["nothing was trained or written"])
