"""List the commands of unlearn, or run one: `python -m unlearn`, `unlearn trial`."""

import sys

from memscore.cli.program import run_program


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the first word names; see memscore.cli.program.run_program."""
    return run_program("unlearn", arguments)


if __name__ == "__main__":
    sys.exit(main())
