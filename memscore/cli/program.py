"""The programs memscore and unlearn: lists of their commands, and the call of one by its name."""

import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from memscore.cli.stop_signals import quiet_interrupt
from memscore.cli.suggestion import suggest
from memscore.cli.wrapping import wrap_messages
from memscore.visible_text import write_line

MEMSCORE: dict[str, str] = {
    "estimate": "train a bank of subset models and score every example",
    "status": "show progress, failures and the running process of a bank",
    "banks": "list your banks with their sizes; remove one, or its trials",
    "report": "write one HTML page about a bank, for readers without memscore",
    "fidelity": "compare cheap scores with memorization",
    "influence": "find the training examples that influence a bank's predictions",
    "attack": "audit your own model with a bank as shadow models",
    "bank": "verify a bank's files, list copies among its images, import other models",
    "submit": "run one of these commands as a job on a Ray cluster",
    "list": "list data sets, architectures, recipes, attacks, proxies or scores",
}
"""Commands of memscore: the name of a module or package of it, and what it does."""

UNLEARN: dict[str, str] = {
    "trial": "run one unlearning algorithm on one forget set, and compare with retraining",
    "sweep": "tune and compare unlearning methods",
    "experiment": "make a table or figure of a paper, with verdicts on its claims",
    "list": "list algorithms, measures, forget sets, variants or experiments",
}
"""The same of unlearn."""

PROGRAMS: dict[str, dict[str, str]] = {"memscore": MEMSCORE, "unlearn": UNLEARN}
INTRODUCTIONS = {
    "memscore": "memscore measures what an image classifier has memorized:",
    "unlearn": "unlearn makes models of a bank forget examples, beside retrained models:",
}
BEGINNINGS = {
    "memscore": "Begin with `{prog} estimate`: 256 small networks on 1,797 digits.",
    "unlearn": "Begin with `{prog} trial STORE --algorithm finetune`.",
}


def run_program(program: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command of a program by its name, or list the commands; return the exit code.

    Only the module of the command is imported: the list and a wrong name answer at once.
    """
    if arguments is None:  # the main program
        quiet_interrupt()
    words, prog = list(sys.argv[1:] if arguments is None else arguments), find_prog(program)
    if prog == program:
        add_current_folder()
    if not words or words[0] in {"-h", "--help", "help"}:
        # without a command this is a usage error, on stderr
        (sys.stdout if words else sys.stderr).write(format_commands(program, prog))
        return 0 if words else 2
    if words[0] == "--version":
        from memscore.cli.command_line import format_version

        sys.stdout.write(format_version())
        return 0
    # The name is checked before anything is imported: a typo costs no seconds.
    name = words[0]
    if name not in PROGRAMS[program]:
        with wrap_messages():
            write_line(f"error: {describe_unknown(program, prog, name)}")
        return 2
    module = import_module(f"{program}.{name}")
    # a command of several files is a package
    called = module if hasattr(module, "main") else import_module(f"{program}.{name}.__main__")
    main: Callable[..., int] = called.main
    return main(words[1:], prog=f"{prog} {name}")


def run_subcommand(
    mains: Mapping[str, Callable[[list[str], str], int]],
    summaries: Mapping[str, str],
    prog: str,
    arguments: Sequence[str] | None,
) -> int:
    """Run one of a command's own commands by its name, or list them; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words else "--help"
    if name in {"-h", "--help"}:
        lines = [f"usage: {prog} COMMAND ..., each with --help", "", *format_entries(summaries)]
        (sys.stdout if words else sys.stderr).write("\n".join(lines) + "\n")
        return 0 if words else 2
    if name == "--version":
        from memscore.cli.command_line import format_version

        sys.stdout.write(format_version())
        return 0
    if name not in mains:
        raise ValueError(f"{prog} has no command {name!r}{suggest(name, mains)}; it has {', '.join(mains)}")
    return mains[name](words[1:], f"{prog} {name}")


def add_current_folder() -> None:
    """Let modules of the current folder be imported, as with python -m: options take a user's module:function."""
    folder = os.getcwd()
    if not sys.flags.safe_path and folder not in sys.path:
        sys.path.insert(0, folder)


def find_prog(program: str) -> str:
    """Return how the user called a program: by its script, or with python -m."""
    called = Path(sys.argv[0]).name
    return called if called == program else f"python -m {program}"


def format_commands(program: str, prog: str) -> str:
    """Format the list of a program's commands, with those of the other one."""
    lines = [f"usage: {prog} COMMAND ..., each with --help", "", INTRODUCTIONS[program], ""]
    lines += format_entries(PROGRAMS[program])
    for other in PROGRAMS.keys() - {program}:
        lines += ["", f"Commands of {prog.replace(program, other)}:", *format_entries(PROGRAMS[other])]
    return "\n".join([*lines, "", BEGINNINGS[program].format(prog=prog)]) + "\n"


def format_entries(summaries: Mapping[str, str]) -> list[str]:
    """Format commands with what they do, in lines of at most 79 characters."""
    column = max(map(len, summaries)) + 4
    lines: list[str] = []
    for name, summary in summaries.items():
        first, *others = textwrap.wrap(summary, 79 - column)
        lines += [f"  {name}".ljust(column) + first, *(" " * column + line for line in others)]
    return lines


def describe_unknown(program: str, prog: str, name: str) -> str:
    """Describe a name that is no command of a program, with the nearest one."""
    other = next(each for each in PROGRAMS if each != program)
    if name in PROGRAMS[other]:
        return f"{prog} has no command {name!r}; it is `{prog.replace(program, other)} {name}`"
    return f"{prog} has no command {name!r}{suggest(name, PROGRAMS[program])}; `{prog} --help` lists all"
