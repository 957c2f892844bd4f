"""The commands of memscore, a line each: `python -m memscore`."""

import sys

COMMANDS = {
    "estimate": "train a bank of subset models and score every example",
    "status": "say how far a bank is, what failed, and who works on it",
    "fidelity": "say how well cheap scores stand in for memorization",
    "influence": "find the training examples that a bank's answers are owed to",
    "attack": "audit a model of your own with a bank as its shadows",
    "submit": "send one of these commands to a Ray cluster as a job",
    "bank verify": "check every file of a bank against its hashes",
    "bank import": "make a bank of somebody else's masks and margins",
}


def main(arguments: list[str] | None = None) -> int:
    """List the commands; none of them is this one, so unless help was asked for the exit code is 2."""
    asked = {"-h", "--help"} & set(sys.argv[1:] if arguments is None else arguments)
    lines = ["memscore says what an image classifier has memorized. Its commands, each with --help:", ""]
    lines += [f"  python -m memscore.{name:<12} {what}" for name, what in COMMANDS.items()]
    lines += ["", "Begin with `python -m memscore.estimate`: 256 small networks on scikit-learn's digits."]
    (sys.stdout if asked else sys.stderr).write("\n".join(lines) + "\n")
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
