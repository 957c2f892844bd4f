"""Claims about training on a GPU: seconds a model, the same accuracy, the same scores, a bank of 400 models.

    python -m benchmarks.gpu_training prepare                 (where Fashion-MNIST is)
    python -m benchmarks.gpu_training speed | accuracy | scores | bank [--minutes 8] [--models 400]

Fashion-MNIST padded to 3x32x32 stands in for CIFAR-10. Each part goes on where the same command stopped, writes
results/gpu_<part>.json after every step, and starts nothing that would not end within its minutes; what is measured so
far is kept in data/, which git ignores. Needs neither Ray nor tyro. `--tiny` runs it all on a CPU in seconds, which
measures nothing.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import results_file
from benchmarks.gpu_bank import bank_steps, bank_summary, scores_steps, scores_summary
from benchmarks.gpu_cases import FILE, Step, bench_on, prepare
from benchmarks.gpu_speed import accuracy_steps, accuracy_summary, speed_steps, speed_summary
from memscore.training.numerics import float32_matmul, single_threaded

PARTS = {
    "speed": (speed_steps, speed_summary),
    "accuracy": (accuracy_steps, accuracy_summary),
    "scores": (scores_steps, scores_summary),
    "bank": (bank_steps, bank_summary),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one part; 0 when it is complete, 3 when the same command has more to do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["prepare", *PARTS])
    parser.add_argument("--minutes", type=float, default=8, help="of this command")
    parser.add_argument("--models", type=int, default=400, help="of the bank")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--file", type=Path, default=FILE, help="what prepare writes")
    parser.add_argument("--folder", type=Path, default=FILE.parent, help="for what is measured so far, and the bank")
    parser.add_argument("--tiny", action="store_true", help="in seconds, on a CPU; measures nothing")
    options = parser.parse_args(arguments)
    if options.part == "prepare":
        prepare(options.file)
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    bench = bench_on(options.device, options.file, tiny=options.tiny)
    steps, summary = PARTS[options.part]
    more = (options.folder, options.models) if options.part == "bank" else ()
    name = f"gpu_{options.part}{'_tiny' if options.tiny else ''}"
    results = options.folder if options.tiny else results_file.RESULTS
    with single_threaded(), float32_matmul(bench.device):
        done = measure(name, steps(bench, *more), summary, options.folder, results, 60 * options.minutes)
    return 0 if done else 3


def measure(
    name: str,
    steps: Iterator[Step],
    summary: Callable[[dict[str, Any]], dict[str, Any]],
    folder: Path,
    results: Path,
    limit_s: float,
) -> bool:
    """Do the steps that are not on file, in order, while there is time; write the results after each.

    Args:
        name: of the results.
        steps: what is to be measured.
        summary: of all that was measured.
        folder: where that is kept between commands.
        results: where the summary goes.
        limit_s: no step is begun that would not end by then, if it took as long as the longest.

    Returns:
        Whether all steps are done.
    """
    started, longest_s = time.perf_counter(), 0.0
    file = folder / f"{name}_steps.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    complete = True
    for key, step in steps:
        if key in found:
            continue
        begun = time.perf_counter()
        if begun - started + longest_s > limit_s:
            print(f"{key} would not end in time; run the same command again")
            complete = False
            break
        found[key] = step()
        longest_s = max(longest_s, time.perf_counter() - begun)
        file.write_text(json.dumps(found))
        print(f"{key}: {json.dumps(found[key])[:300]}", flush=True)
        results_file.save(name, {"complete": False, **summary(found)}, folder=results, quiet=True)
    results_file.save(name, {"complete": complete, **summary(found)}, folder=results)
    return complete


if __name__ == "__main__":
    raise SystemExit(main())
