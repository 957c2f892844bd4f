"""Claims about training on a GPU: seconds a model, the same accuracy, the same scores, a bank of 400 models.

    python -m benchmarks.gpu_training prepare [--synthetic]
    python -m benchmarks.gpu_training speed | profile | accuracy | scores [--cells PATTERN ...] [--resume] [--minutes 8]
    python -m benchmarks.gpu_training bank [--models 400] [--resume] [--minutes 8]

Fashion-MNIST padded to 3x32x32 stands in for CIFAR-10, or synthetic images where it is missing. A part measures its
cells in order, or those whose names match a pattern (`--list` names them), and writes gpu_<part>.json after each. A
cell that fails is recorded with its error, and the next one is measured. No cell begins that would not end within the
minutes. With --resume, cells that were measured before are skipped, and a bank is continued. What was measured is kept
in benchmarks/data, which git ignores. Needs neither Ray nor tyro. `--tiny` runs everything on a CPU in seconds, which
measures nothing. benchmarks/gpu_first_run.sh runs the parts that come first on a new kind of GPU.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from benchmarks import results_file
from benchmarks.gpu_bank import bank_cells, scores_cells, summarize_bank, summarize_scores
from benchmarks.gpu_cases import Cell, load_bench, release_engines
from benchmarks.gpu_data import FILE, prepare
from benchmarks.gpu_profile import profile_cells, summarize_profile
from benchmarks.gpu_speed import accuracy_cells, speed_cells, summarize_accuracy, summarize_speed
from cluster.device_errors import is_broken_device
from memscore.training.numerics import float32_matmul, single_threaded

PARTS = {
    "speed": (speed_cells, summarize_speed),
    "profile": (profile_cells, summarize_profile),
    "accuracy": (accuracy_cells, summarize_accuracy),
    "scores": (scores_cells, summarize_scores),
    "bank": (bank_cells, summarize_bank),
}
COMPLETE, FAILED, UNFINISHED = 0, 1, 3
"""Exit codes: every selected cell was measured, some failed, some would not have ended in time."""


def main(arguments: list[str] | None = None) -> int:
    """Run one part and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["prepare", *PARTS])
    parser.add_argument("--cells", nargs="+", default=["*"], metavar="PATTERN", help="measure only these cells")
    parser.add_argument("--list", action="store_true", help="print the names of the cells")
    parser.add_argument("--resume", action="store_true", help="skip cells that were measured; continue a bank")
    parser.add_argument("--minutes", type=float, default=8, help="of this command")
    parser.add_argument("--models", type=int, default=400, help="of the bank")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--synthetic", action="store_true", help="prepare images from a seed")
    parser.add_argument("--file", type=Path, default=FILE, help="what prepare writes")
    parser.add_argument("--folder", type=Path, default=FILE.parent, help="for what was measured so far, and the bank")
    parser.add_argument("--results", type=Path, help="folder of the results (default: benchmarks/results)")
    parser.add_argument("--tiny", action="store_true", help="in seconds, on a CPU; measures nothing")
    options = parser.parse_args(arguments)
    if options.part == "prepare":
        prepare(options.file, synthetic=options.synthetic, sizes=(400, 100) if options.tiny else (50_000, 10_000))
        return COMPLETE
    options.folder.mkdir(parents=True, exist_ok=True)
    bench = load_bench(options.device, options.file, tiny=options.tiny)
    build_cells, summarize = PARTS[options.part]
    more = (options.folder, options.models, options.resume) if options.part == "bank" else ()
    cells = [cell for cell in build_cells(bench, *more) if any(fnmatchcase(cell[0], name) for name in options.cells)]
    if options.list or not cells:
        print("\n".join(name for name, _ in cells) or f"no cell is named {' or '.join(options.cells)}; see --list")
        return COMPLETE if cells else FAILED
    name = f"gpu_{options.part}{'_tiny' if options.tiny else ''}"
    part = Part(
        name=name,
        record=options.folder / f"{name}_cells.json",
        results=options.results or (options.folder if options.tiny else results_file.RESULTS),
        summarize=lambda measured: {"data": bench.source, **summarize(measured)},
    )
    with single_threaded(), float32_matmul(bench.device):
        return part.measure(cells, limit_s=60 * options.minutes, resume=options.resume)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the benchmark and where its results are written.

    Attributes:
        name: of the results.
        record: file that keeps every cell between commands.
        results: folder of the summary.
        summarize: of all cells that were measured.
    """

    name: str
    record: Path
    results: Path
    summarize: Callable[[dict[str, Any]], dict[str, Any]]

    def measure(self, cells: Sequence[Cell], *, limit_s: float, resume: bool) -> int:
        """Measure cells in order and write the results after each; return the exit code.

        `limit_s` is for all cells: none begins that would not end by then, if it took as long as the longest. With
        `resume`, cells on record are skipped unless they failed.
        """
        started, longest_s = time.perf_counter(), 0.0
        record: dict[str, Any] = json.loads(self.record.read_text()) if self.record.exists() else {}
        names = [name for name, _ in cells]
        for name, cell in cells:
            if resume and name in record and not is_failure(record[name]):
                continue
            begun = time.perf_counter()
            if begun - started + longest_s > limit_s:
                print(f"{name} would not end in time; run the same command again with --resume")
                self.write(record, names)
                return UNFINISHED
            error: Exception | None = None
            try:
                record[name] = cell()
            except Exception as raised:  # of any kind: the cells after this one measure something else
                error = raised
                record[name] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
            longest_s = max(longest_s, time.perf_counter() - begun)
            self.record.write_text(json.dumps(record))
            print(f"{name}: {json.dumps(record[name])[:300]}", flush=True)
            self.write(record, names)
            if is_broken_device(error):
                print("this process can no longer use its GPU; run the same command again with --resume")
                return FAILED
            if error is not None:
                release_engines()  # a failed cell's engines may be half made, and hold memory
        print(f"written to {self.write(record, names)}")
        return FAILED if any(is_failure(record[name]) for name in names) else COMPLETE

    def write(self, record: dict[str, Any], names: Sequence[str]) -> Path:
        """Write the summary of the cells that were measured, and the errors of the others."""
        measured = {name: cell for name, cell in record.items() if not is_failure(cell)}
        failures = {name: cell["error"] for name, cell in record.items() if is_failure(cell)}
        complete = all(name in measured for name in names)
        summary = {"complete": complete, "errors": failures, **self.summarize(measured)}
        return results_file.save(self.name, summary, folder=self.results, quiet=True)


def is_failure(cell: object) -> bool:
    """Whether a cell of the record is an error."""
    return isinstance(cell, dict) and "error" in cell


if __name__ == "__main__":
    raise SystemExit(main())
