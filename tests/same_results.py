"""Compare what this working tree stores with what an earlier commit stores, value by value.

    python -m tests.same_results                 compare all groups of files; some 400 s of CPU time for both trees
    python -m tests.same_results --keep FOLDER   keep all results there; the earlier commit is then run only once

The same public commands run with both trees on this machine, from a folder of their own each, with fixed seeds and
relative paths. Then every file of one folder is compared with its counterpart in the other: its name, the nested keys
and values of JSON, names, types, metadata and values of Parquet columns, names, types and bytes of tensors. What two
runs of one commit never have in common (seconds, process ids) is named in folder_comparison.VARIES, entry by entry.

EARLIER says which commit each group of files is compared with. A change that alters a group on purpose moves the commit
of that group, in one commit that says why. A kind of file that this tree adds is named in folder_comparison.ADDED.
pytest runs this as tests/test_same_results.py with `-m slow`.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.folder_comparison import Comparison, compare, list_files

ROOT = Path(__file__).parents[1]

EARLIER = dict.fromkeys(("shards", "trials", "sweeps"), "6ad91c17de76f1606421a283e01e35756394ebc4") | {
    # attacks, intervals, influence and the pages changed: LiRA's shadows and prior, RMIA's order, copies, decisions
    "scores": "8b7a775ec1304046438bbb48eb1ce68038be038a",
}
"""Group of files -> the commit that it is compared with."""

SCORES = ("scores", "scores.parquet", "models.parquet", "influence", "reports", "status.json")
"""Files and folders that are the group "scores" among all that the commands of a bank write."""

SHOWN_FOR_A_FILE = 12
SHOWN_FOR_A_GROUP = 150

SERIAL = "--pool serial --device cpu"
ONE_SEED = f"--tunings 1 --tune-seeds 1 --seeds 1 {SERIAL}"
BANK = (
    "--data digits --train-limit 200 --validation 0.2 --label-noise 0.05 --epochs 8 --batch 20 --lr 0.1 --augment flip "
    f"--originals 2 --seed 7 {SERIAL} --store store"
)
UNRELIABLE = '''
"""Networks some of which raise an error in training, or give no finite numbers."""

import math

from torch import nn


class Unreliable(nn.Module):
    def __init__(self, shape, n_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 8), nn.ReLU(), nn.Linear(8, n_classes))
        self.kind = int(abs(float(self.layers[1].weight.detach()[0, 0])) * 1e6) % 3

    def forward(self, images):
        if self.training and self.kind == 1:
            raise ArithmeticError("this network is never trained")
        return self.layers(images) * (math.nan if self.training and self.kind == 2 else 1.0)
'''


@dataclass(frozen=True)
class Command:
    """One public command.

    Attributes:
        module: that is run, as `python -m module`.
        words: its arguments, separated by spaces.
        code: the exit code that it must have.
        output: file that keeps what it prints, where that is for programs.
    """

    module: str
    words: str
    code: int = 0
    output: str = ""


def write_inputs(folder: Path) -> None:
    """Write a module with a network of our own, and arrays of a bank to import."""
    (folder / "networks.py").write_text(UNRELIABLE)
    rng = np.random.default_rng(0)
    member = rng.random((32, 60)) < 0.7
    np.save(folder / "member.npy", member)
    np.save(folder / "gap.npy", (rng.normal(1, 2, (32, 60)) + 2 * member).astype(np.float32))
    np.save(folder / "labels.npy", rng.integers(0, 3, 60))


def damage_outputs(folder: Path) -> None:
    """Change one byte of the outputs of the first original."""
    path = folder / "store" / "outputs" / f"{first_original(folder)}.parquet"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


def copy_weights(folder: Path) -> None:
    """Copy the weights of the first original to a file with a short name, for an audit."""
    path = folder / "store" / "weights" / f"{first_original(folder)}.safetensors"
    (folder / "model.safetensors").write_bytes(path.read_bytes())


def copy_models(folder: Path) -> None:
    """Copy the table of models, since trials write it again."""
    (folder / "models.parquet").write_bytes((folder / "store" / "models.parquet").read_bytes())


def first_original(folder: Path) -> str:
    key: str = json.loads((folder / "store" / "receipts" / "original-00000.json").read_text())["key"]
    return key


STAGES: dict[str, tuple[Command | Callable[[Path], None], ...]] = {
    "bank": (
        write_inputs,
        Command(
            "memscore.estimate",
            f"{BANK} --models 64 --clusters pilot --queries 2 --bank-events --evaluation-events "
            "--attacks lira lira-gap lira-top-gap lira-paper lira-released lira-released-fixed lira-advanced-mia-fixed "
            "rmia rmia-offline --proxies holdout curvature-sign curvature-rademacher aum el2n grand centroid-distance "
            "inversion holdout-test --inversion-candidates 20 --inversion-iterations 3",
        ),
        damage_outputs,
        Command("memscore.bank", "verify store --set-aside", code=1),
        Command(
            "memscore.estimate",
            f"{BANK} --design exact --keep 0.75 --block 8 --models 16 --until-rmse 0.12",
        ),
        Command("memscore.influence", "store --arm orthogonal-k0.500 --top 3 --pictures 1"),
        Command("memscore.fidelity", "store --arm orthogonal-k0.500 --draws 10"),
        copy_weights,
        Command(
            "memscore.attack",
            "--store store --model model.safetensors --arch mlp --arm orthogonal-k0.500 --device cpu",
        ),
        copy_models,
        Command("memscore.status", "store --json", output="status.json"),
        Command(
            "memscore.estimate",
            f"--data digits --train-limit 100 --arch networks:Unreliable --epochs 1 --batch 20 --seed 7 {SERIAL} "
            "--design exact --block 4 --models 12 --originals 0 --store unreliable",
            code=1,
        ),
        Command("memscore.bank", "import imported --member member.npy --gap gap.npy --labels labels.npy --design iid"),
    ),
    "trials": (
        Command(
            "unlearn.trial",
            f"store --algorithm salun --forget random --size 12 --seeds 8 --set epochs=1 {SERIAL} --measures "
            "relearn weight-distance u-lira epsilon challenge-score klom held-out-klom confusion held-out-confusion "
            "mia-losses mia-confidence mia-representation mia-threshold entanglement",
        ),
        Command(
            "unlearn.trial",
            f"store --algorithm neggrad-plus --forget canaries --size 20 --seeds 1 {SERIAL}",
        ),
    ),
    "sweeps": (
        Command(
            "unlearn.sweep",
            f"store --forget memorization_k0.500:high --size 12 --tuning defaults --budget 1 {ONE_SEED} "
            "--variants vanilla --algorithms retrain finetune gradient-ascent neggrad-plus influence boundary-shrink "
            "boundary-shrink-plus boundary-expand boundary-expand-plus sure ssd l1-sparse random-label salun scrub "
            "scrub-rewind bad-teacher cf-k eu-k",
        ),
        Command(
            "unlearn.sweep",
            f"store --forget memorization_k0.500:union --size 12 --budget 2 --sampler tpe {ONE_SEED} "
            "--algorithms finetune neggrad-plus --set finetune.epochs=1 --variants vanilla shuffle rum rsu auto "
            "--scores centroid --rounds 2 --parts 2 --dynamics --name searched",
        ),
        Command("unlearn.experiment", f"five-steps store --size 12 --budget 2 {ONE_SEED}"),
    ),
}
"""What is run, in this order; the bank's files are two groups, those of each other stage one."""


@dataclass(frozen=True)
class Run:
    """What a tree has left.

    Attributes:
        folder: where the commands ran.
        groups: path of each file in it -> group.
    """

    folder: Path
    groups: Mapping[str, str]


def check_out(sha: str, folder: Path) -> Path:
    """Write the files of a commit into a folder.

    Args:
        sha: of the commit, 40 hex digits.
        folder: that is made.

    Returns:
        The folder.

    Raises:
        RuntimeError: this clone does not have the commit; says how to fetch it.
    """
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", sha], capture_output=True)
    if archive.returncode:
        raise RuntimeError(
            f"this clone lacks commit {sha}, which the results are compared with ({archive.stderr.decode().strip()}); "
            "a shallow clone is completed by `git fetch --unshallow`, another one by `git fetch origin`"
        )
    unfinished = folder.with_name(f"{folder.name}-unfinished")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(unfinished, filter="data")
    return unfinished.rename(folder)


def run_tree(tree: Path, folder: Path) -> Run:
    """Run all stages with the code of a tree.

    Args:
        tree: root of the code.
        folder: where the commands run; it is made, and all that they write lies in it.

    Returns:
        What it left. A folder in which all stages ended before is read.

    Raises:
        RuntimeError: a command ended with another code than it must, or imported code from elsewhere.
    """
    done = folder.with_name(f"{folder.name}.json")
    if done.exists():
        return Run(folder, json.loads(done.read_text()))
    if folder.exists():  # of a run that was interrupted
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MEMSCORE_", "RAY_"))}
    environment = {**outside, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    require_own_code(tree, folder, environment)
    hashes: dict[str, str] = {}
    groups: dict[str, str] = {}
    for stage, steps in STAGES.items():
        for step in steps:
            if isinstance(step, Command):
                run_command(step, folder, environment)
            else:
                step(folder)
        for path in list_files(folder):
            digest = hashlib.sha256((folder / path).read_bytes()).hexdigest()
            if hashes.get(path) != digest:
                groups[path] = group_of(stage, path)
            hashes[path] = digest
    done.write_text(json.dumps(groups))
    return Run(folder, groups)


def require_own_code(tree: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """Raise RuntimeError unless the commands import the code of this tree, whatever else is installed."""
    code = "import memscore, unlearn, cluster; print(memscore.__file__, unlearn.__file__, cluster.__file__, sep='\\n')"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    ).stdout
    outside = [line for line in printed.splitlines() if not Path(line).resolve().is_relative_to(tree.resolve())]
    if outside:
        raise RuntimeError(f"the commands would import {', '.join(outside)}, which is not in {tree}")


def run_command(command: Command, folder: Path, environment: Mapping[str, str]) -> None:
    """Run one command in a folder; RuntimeError if it does not end as it must."""
    words = [sys.executable, "-m", command.module, *command.words.split()]
    ended = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if ended.returncode != command.code:
        last = "\n".join((ended.stdout + ended.stderr).splitlines()[-20:])
        raise RuntimeError(
            f"with PYTHONPATH={environment['PYTHONPATH']}, `python -m {command.module} {command.words}` "
            f"ended with exit code {ended.returncode}, not {command.code}:\n{last}"
        )
    if command.output:
        (folder / command.output).write_text(ended.stdout)


def group_of(stage: str, path: str) -> str:
    """Return the group of a file that a stage wrote."""
    if stage != "bank":
        return stage
    return "scores" if {*path.split("/")[:2]} & {*SCORES} else "shards"


def compare_trees(folder: Path, tree: Path = ROOT, earlier: Mapping[str, str] | None = None) -> dict[str, Comparison]:
    """Run this tree and the earlier commits, two at a time, and compare each group of files.

    Args:
        folder: that keeps the results; those of an earlier commit that this very file made are read.
        tree: root of the code that is compared.
        earlier: group -> commit; EARLIER if None.

    Returns:
        Group -> what came of it.

    Raises:
        RuntimeError: a commit is missing, or a command failed.
    """
    earlier = EARLIER if earlier is None else earlier
    kept = {
        sha: folder / f"{sha}-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]}" for sha in earlier.values()
    }
    trees = {sha: place / "tree" for sha, place in kept.items()}
    for sha, place in trees.items():
        if not place.exists():
            check_out(sha, place)
    with ThreadPoolExecutor(2) as pool:
        of_now = pool.submit(run_tree, tree, Path(tempfile.mkdtemp(prefix="now-", dir=folder)) / "run")
        of_earlier = {sha: pool.submit(run_tree, place, kept[sha] / "run") for sha, place in trees.items()}
        now, runs = of_now.result(), {sha: job.result() for sha, job in of_earlier.items()}
    return {group: compare_runs(runs[sha], now, group) for group, sha in earlier.items()}


def compare_runs(earlier: Run, now: Run, group: str) -> Comparison:
    """Compare the files that belong to a group in either run."""
    paths = {path for run in (earlier, now) for path, own in run.groups.items() if own == group}
    return compare(earlier.folder, now.folder, paths)


def report(group: str, sha: str, found: Comparison) -> str:
    """Return what came of a group, as text."""
    head = f"{group}: {found.files} files, {found.values} values, {found.varying} that vary between any two runs"
    if not found.differences:
        return f"{head}: equal to {sha[:10]}"
    counts, lines = Counter[str](), []
    for one in found.differences:
        counts[one.file] += 1
        if counts[one.file] <= SHOWN_FOR_A_FILE:
            lines.append(f"    {one}")
    lines += [f"    {file}: {n - SHOWN_FOR_A_FILE} more" for file, n in counts.items() if n > SHOWN_FOR_A_FILE]
    if len(lines) > SHOWN_FOR_A_GROUP:
        lines = [*lines[:SHOWN_FOR_A_GROUP], f"    and {len(lines) - SHOWN_FOR_A_GROUP} more lines"]
    head = f"{head}: {len(found.differences)} differences in {len(counts)} files from {sha[:10]}"
    return "\n".join([head, *lines])


def main(words: Sequence[str] | None = None) -> int:
    """Compare, print, and return 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.same_results", description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, help="folder that keeps all results (default: a temporary one)")
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        results = compare_trees(folder)
    for group, found in results.items():
        sys.stdout.write(report(group, EARLIER[group], found) + "\n")
    return int(any(found.differences for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
