"""The help page of a command: how it is called, and its options in groups, readable from 80 columns on."""

import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from memscore.cli.option_list import Option

GROUPS: dict[str, tuple[str, ...]] = {
    "Data": (
        *(
            "data",
            "folder",
            "image_size",
            "skip_bad",
            "follow_links",
            "test",
            "train_limit",
            "without",
            "validation",
            "label_noise",
        ),
        *("scores_of", "other", "near", "max_bytes"),
    ),
    "Network and training": (
        *("arch", "recipe", "epochs", "batch", "lr", "optimizer", "momentum", "weight_decay", "BankConfig.schedule"),
        *("milestones", "BankConfig.gamma", "warmup", "nesterov", "label_smoothing"),
        *("augment", "precision", "pretrained"),
    ),
    "Subsets and models": ("preset", "design", "keep", "block", "clusters", "models", "until_rmse", "originals"),
    "Your model": ("model", "members", "mean", "std"),
    "Imported arrays": ("member", "correct", "gap", "logit_confidence", "top_gap", "labels", "ids"),
    "Scores": (
        *("queries", "stacked", "attacks", "proxies", "bank_events", "evaluation_events"),
        *("inversion_candidates", "inversion_iterations", "inversion_tv"),
        *("arm", "score", "count", "draws", "threshold", "delta", "rmia", "gamma"),
    ),
    "Pairs": ("targets", "top", "least", "least_memorization"),
    "Forget set": ("forget", "size", "with_copies"),
    "Unlearning": ("algorithm", "algorithms", "set", "steps", "seeds", "measures", "dynamics"),
    "Variants": (
        *(
            "variants",
            "plans",
            "scores",
            "parts",
            "order",
            "rule",
            "rounds",
            "rsu_epochs",
            "schedule",
            "unit",
            "risk",
            "again",
        ),
    ),
    "Tuning": (
        *("tuning", "tune", "from_sweep", "tunings", "budget", "rates", "sampler", "space", "search", "select"),
        *("tune_forget", "tune_seeds"),
    ),
    "What is written, and random numbers": (
        *("store", "name", "out", "examples", "beside", "tables", "image_column", "pictures", "set_aside", "trials"),
        *("yes", "seed", "dry_run", "json", "watch"),
    ),
    "Where it runs": (
        *("pool", "workers", "address", "device", "gpus_per_worker", "keep_going", "dashboard", "gpu", "price"),
        *("id", "working_dir", "wait"),
    ),
}
"""Title of a group -> its options, as in Python; CLASS.NAME where a name means something else in one class."""
OTHER = "Other options"
MIN_WIDTH, MAX_WIDTH, TEXT_COLUMN = 40, 100, 26
GENERAL = (("-h, --help", "show this page"), ("--version", "show the version"))


def find_group(option: Option) -> str:
    """Find the title of the group of an option."""
    own, plain = f"{option.owner}.{option.name}", option.name
    groups = {name: title for title, names in GROUPS.items() for name in names}
    return groups.get(own) or groups.get(plain) or OTHER


def format_help(function: Callable[..., Any], options: Sequence[Option], prog: str, example: str) -> str:
    """Format the help page of a command; the example is what stands after the command's name."""
    width = max(MIN_WIDTH, min(shutil.get_terminal_size().columns - 1, MAX_WIDTH))
    # What the function's docstring says before its sections is the description of the command.
    called = function.func if isinstance(function, partial) else function
    description = inspect.cleandoc(called.__doc__ or "").partition("\n\nArgs:")[0].partition("\n\nReturns:")[0]
    paragraphs = [line for text in description.split("\n\n") for line in (*textwrap.wrap(text, width), "")]
    lines = [*textwrap.wrap(format_usage(options, prog), width, subsequent_indent="       "), "", *paragraphs]
    for option in options:
        if option.positional:
            lines += format_entry(f"  {option.flag}", describe(option), width)
    # Options come in the order of their group, whatever order the dataclasses have; unknown ones last.
    for title in (*GROUPS, OTHER):
        members = [option for option in options if not option.positional and find_group(option) == title]
        if members:
            lines += [*([""] if lines[-1] else []), f"{title}:"]
        for option in sorted(members, key=lambda option: rank_in_group(option, title)):
            lines += format_entry(f"  {option.flag} {option.metavar}".rstrip(), describe(option), width)
    lines += ["", "General:"]
    for flags, text in GENERAL:
        lines += format_entry(f"  {flags}", text, width)
    return "\n".join([*lines, "", "Example:", *format_example(f"{prog} {example}", width)]) + "\n"


def format_example(command: str, width: int) -> list[str]:
    """Format a command in lines that a shell joins again."""
    first, *others = textwrap.wrap(command, width - 6, break_long_words=False, break_on_hyphens=False)
    return " \\\n".join([f"  {first}", *(f"    {line}" for line in others)]).splitlines()


def rank_in_group(option: Option, title: str) -> int:
    """Return the place of an option in its group, which is that of the table."""
    names = [name.rpartition(".")[2] for name in GROUPS.get(title, ())]
    return names.index(option.name) if option.name in names else len(names)


def format_usage(options: Sequence[Option], prog: str) -> str:
    """Format how a command is called: its plain words and the options that it needs."""
    words = [option.flag if option.required else f"[{option.flag}]" for option in options if option.positional]
    needed = [f"{option.flag} {option.metavar}" for option in options if option.required and not option.positional]
    return " ".join(["usage:", prog, *words, *needed, "[options]"])


def describe(option: Option) -> str:
    """Return what an option does, and its default where the text does not say it."""
    text = option.text.removesuffix(".")
    if option.required:
        return f"{text} (required)"
    if "(default" in text or option.default is None or option.default is False or option.default in {(), ""}:
        return text
    shown = " ".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
    return f"{text} (default: {shown})"


def format_entry(head: str, text: str, width: int) -> Iterator[str]:
    """Yield the lines of one option: its text beside it, or below where it is too long."""
    lines = textwrap.wrap(text, width - TEXT_COLUMN, break_long_words=False, break_on_hyphens=False)
    fits = len(head) <= TEXT_COLUMN - 2
    yield f"{head:<{TEXT_COLUMN}}{lines[0] if fits and lines else ''}".rstrip()
    for line in lines[1:] if fits else lines:
        yield " " * TEXT_COLUMN + line
