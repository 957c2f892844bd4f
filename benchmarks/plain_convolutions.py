"""Run a command of memscore or unlearn with torch's own convolutions: python -m benchmarks.plain_convolutions COMMAND.

COMMAND is the name of a module and its options, as in `memscore.estimate --arch cnn --pool serial`. Only this process
is changed, so the command must do its work in it.
"""

import runpy
import sys

from memscore.models import compiled_convolutions

REASON = "they are switched off for a comparison"


def main() -> None:
    """Switch the compiled convolutions off and run the command."""
    compiled_convolutions.find_processor = lambda: REASON
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
