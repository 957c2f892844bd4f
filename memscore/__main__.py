"""List the commands of memscore: `python -m memscore`."""

import sys

COMMANDS = {
    "estimate": "train a bank of subset models and score every example",
    "status": "show progress, failures and the running process of a bank",
    "fidelity": "compare cheap scores with memorization",
    "influence": "find the training examples that influence a bank's predictions",
    "attack": "audit your own model with a bank as shadow models",
    "submit": "run one of these commands as a job on a Ray cluster",
    "bank verify": "check every file of a bank against its hashes",
    "bank import": "create a bank from masks and predictions of other models",
}


def main(arguments: list[str] | None = None) -> int:
    """List the commands; return 0 if help was requested, else 2."""
    # without a command this is a usage error, on stderr, as tyro's are
    help_requested = {"-h", "--help"} & set(sys.argv[1:] if arguments is None else arguments)
    lines = ["memscore measures what an image classifier has memorized. Its commands, each with --help:", ""]
    lines += [f"  python -m memscore.{name:<12} {description}" for name, description in COMMANDS.items()]
    lines += ["", "Begin with `python -m memscore.estimate`: 256 small networks on scikit-learn's digits."]
    (sys.stdout if help_requested else sys.stderr).write("\n".join(lines) + "\n")
    return 0 if help_requested else 2


if __name__ == "__main__":
    sys.exit(main())
