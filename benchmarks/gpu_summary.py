"""Summary of benchmarks/gpu_first_run.sh: versions, and a table of what was measured beside what is expected.

python -m benchmarks.gpu_summary versions
python -m benchmarks.gpu_summary table OUT [--dry-run]
"""

import argparse
import json
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.results_file import find_version

PACKAGES = ("torch", "torchvision", "triton", "numpy", "pandas", "pyarrow", "scikit-learn", "pytest", "tyro", "ray")
TIMED_OUT = ("124", "137")  # exit codes of `timeout`


@dataclass(frozen=True)
class Expectation:
    """One figure: where it is in the results of which part, its range, and what to do outside of it."""

    label: str
    part: str
    path: str
    low: float
    high: float
    unit: str
    advice: str


def main(arguments: list[str] | None = None) -> int:
    """Print versions or the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["versions", "table"])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="OUT of the run")
    parser.add_argument("--dry-run", action="store_true", help="the figures mean nothing: say only what is missing")
    options = parser.parse_args(arguments)
    print(describe_machine() if options.what == "versions" else build_table(options.folder, dry_run=options.dry_run))
    return 0


def describe_machine() -> str:
    """Versions of what is installed, the compiler that torch.compile needs, and the GPU."""
    versions = ", ".join(f"{name} {find_version(name) or 'missing'}" for name in PACKAGES)
    lines = [f"Python {platform.python_version()}; {versions}; CUDA {torch.version.cuda}"]
    for program, flag in (("cc", "--version"), ("nvidia-smi", "-L")):
        path = shutil.which(program)
        output = subprocess.run([path, flag], capture_output=True, text=True, check=False).stdout if path else "missing"
        lines.append(f"{program}: {output.strip().splitlines()[0] if output.strip() else 'no output'}")
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        lines.append(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, {gpu.multi_processor_count} multiprocessors")
    return "\n".join(lines)


def build_table(folder: Path, *, dry_run: bool) -> str:
    """Build the table of commands, then that of figures: cell, measured, expected, verdict."""
    records = [line.split("\t") for line in (folder / "lines.tsv").read_text().splitlines()]
    runs = [record[1:] for record in records if record[0] == "run"]
    expectations = [
        Expectation(*record[1:4], float(record[4]), float(record[5]), *record[6:])
        for record in records
        if record[0] == "expect"
    ]
    rows = [("command", "exit code", "seconds", "")]
    rows += [(label, code, seconds, judge_exit_code(code)) for label, code, seconds in runs]
    figures = [("figure", "measured", "expected", "verdict")]
    for expectation in expectations:
        suffix = "_tiny" if dry_run else ""
        value = read_figure(folder / f"gpu_{expectation.part}{suffix}.json", expectation.path)
        expected = f"{expectation.low:g} to {expectation.high:g} {expectation.unit}"
        figures.append((expectation.label, format_figure(value), expected, judge(expectation, value, dry_run=dry_run)))
    return f"{align(rows)}\n\n{align(figures)}"


def judge_exit_code(code: str) -> str:
    """Say what an exit code means."""
    meanings = {"0": "", "3": "not all cells in time", "skipped": "no time was left"}
    return "stopped at its time limit" if code in TIMED_OUT else meanings.get(code, "FAILED: see log.txt")


def read_figure(path: Path, keys: str) -> float | str | None:
    """Read the figure at a path of keys; None if it is missing, or the error of its cell."""
    if not path.exists():
        return None
    results = json.loads(path.read_text())
    value = results
    for key in keys.split("/"):
        value = value.get(key) if isinstance(value, dict) else None
    cell = keys.split("/")[1] if "/" in keys else ""
    return results.get("errors", {}).get(cell) if value is None else value


def format_figure(value: float | str | None) -> str:
    """Three digits, or a dash."""
    return f"{value:.3g}" if isinstance(value, int | float) else "-"


def judge(expectation: Expectation, value: float | str | None, *, dry_run: bool) -> str:
    """Say whether a figure is in its range, and what to do if not."""
    if not isinstance(value, int | float):
        return f"FAILED: {value}" if value else "MISSING: see log.txt"
    if dry_run:
        return "dry run"
    if expectation.low <= value <= expectation.high:
        return "as expected"
    return f"{'BELOW' if value < expectation.low else 'ABOVE'}: {expectation.advice}"


def align(rows: list[tuple[str, ...]]) -> str:
    """Pad the columns to one width each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    raise SystemExit(main())
