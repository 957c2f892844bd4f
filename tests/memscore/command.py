"""The command `python -m memscore.estimate`, in this process or in one of its own, and what it leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from memscore.estimate import main

ROOT = Path(__file__).parents[2]
MODELS = 16
SMALL = f"--train-limit 200 --epochs 2 --design exact --block 8 --models {MODELS} --originals 1"
SLOW = f"{SMALL} --arch cnn-4-8 --recipe digits --epochs 40"  # a job a model, long enough to be hit
SERIAL = "--pool serial"
RAY = "--pool ray --workers 2"


def start(folder, flags, **environment):
    """The command in a process of its own, which a Ctrl-C reaches wherever the tests run."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "memscore.estimate", *flags.split()],
        env=plain | {"PYTHONPATH": str(ROOT), "HOME": str(folder)} | environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process, limit_s=240):
    """Exit code and everything said."""
    out, err = process.communicate(timeout=limit_s)
    return process.returncode, out + err


def here(flags, capsys):
    """The same in this process."""
    capsys.readouterr()
    code = main(flags.split())
    said = capsys.readouterr()
    return code, said.out + said.err


def contents(store, kinds=("shards", "scores", "scores.parquet")):
    files = [path for kind in kinds for path in ([store / kind] if "." in kind else (store / kind).iterdir())]
    return {path.name: path.read_bytes() for path in files}


def shards(store):
    return sorted(path.name for path in (store / "shards").glob("[!.]*.parquet"))


def receipts(store):
    return {path.name: path.read_bytes() for path in (store / "receipts").glob("[!.]*.json")}


def wait_for_shards(store, count, running, limit_s=120):
    """Until so many models are on file; gives those that are."""
    end = time.monotonic() + limit_s
    while len(found := shards(store)) < count:
        assert running(), "the command ended before it could be hit"
        assert time.monotonic() < end, f"{len(found)} shards within {limit_s} s"
        time.sleep(0.02)
    return found


def wait_until_gone(pids, limit_s=60):
    end = time.monotonic() + limit_s
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, f"{left} still run"
        time.sleep(0.05)


def refused(code, said):
    """One line that begins with error:, no traceback, exit code not 0; gives the line."""
    assert code not in {0, None}
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]
