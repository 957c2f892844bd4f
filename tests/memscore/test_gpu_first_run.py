"""The first run on a GPU: its table of figures and verdicts, and the whole script as a dry run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_summary import build_table, describe_machine

ROOT = Path(__file__).parents[2]
PATH = "measured/a captured 1/ms_a_step"
RUNS = [("versions", "0", 1), ("tests", "1", 9), ("speed", "124", 60), ("bank", "skipped", 0), ("more", "3", 5)]


def table(folder, cells, errors=None, **kwargs):
    results = {"measured": cells, "errors": errors or {}}
    (folder / "gpu_speed.json").write_text(json.dumps(results))
    lines = ["\t".join(map(str, ("run", *run))) for run in RUNS]
    lines.append("\t".join(("expect", "captured", "speed", PATH, "3.0", "4.3", "ms a step", "above 4.5 profile")))
    (folder / "lines.tsv").write_text("\n".join(lines))
    return build_table(folder, **{"dry_run": False, **kwargs}).splitlines()


@pytest.mark.parametrize(
    ("ms", "verdict"),
    [(3.5, "as expected"), (5.0, "ABOVE: above 4.5 profile"), (2.0, "BELOW: above 4.5 profile")],
)
def test_a_figure_is_compared_with_its_range(tmp_path, ms, verdict):
    [row] = [line for line in table(tmp_path, {"a captured 1": {"ms_a_step": ms}}) if line.startswith("captured")]
    assert row.endswith(verdict)
    assert "3 to 4.3 ms a step" in row
    assert f"{ms:.3g}" in row


def test_a_figure_that_is_missing_or_failed_is_no_number(tmp_path):
    assert table(tmp_path, {})[-1].endswith("MISSING: see log.txt")
    assert table(tmp_path, {}, {"a captured 1": "RuntimeError: no compiler"})[-1].endswith(
        "FAILED: RuntimeError: no compiler"
    )
    (tmp_path / "gpu_speed.json").unlink()
    assert build_table(tmp_path, dry_run=False).splitlines()[-1].endswith("MISSING: see log.txt")


def test_every_command_is_listed_with_what_its_exit_code_means(tmp_path):
    lines = table(tmp_path, {})
    meanings = ["", "FAILED: see log.txt", "stopped at its time limit", "no time was left", "not all cells in time"]
    for line, (label, code, _), meaning in zip(lines[1 : 1 + len(RUNS)], RUNS, meanings, strict=True):
        assert line.split()[:2] == [label, code]
        assert line.endswith(meaning or " 1")


def test_the_machine_is_described_with_what_is_missing():
    text = describe_machine()
    assert "torch 2." in text
    assert "cc: " in text


def test_the_script_needs_a_folder_and_knows_its_parts(tmp_path):
    script = ROOT / "benchmarks" / "gpu_first_run.sh"
    environment = {name: value for name, value in os.environ.items() if name != "OUT"}
    for arguments, message in (([], "usage:"), ([str(tmp_path), "third"], "not third")):
        done = subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.slow
def test_every_line_of_the_first_run_runs_on_a_cpu(tmp_path):
    command = [ROOT / "benchmarks" / "gpu_first_run.sh", "--dry-run", tmp_path / "out"]
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert not any(word in summary for word in ("MISSING", "FAILED", "time limit", "no time")), summary
    assert summary.count("dry run") == done.stdout.count("    expect ") > 15
    assert len(list((tmp_path / "out").iterdir())) <= 8
