"""How every command ends: bad input is one line and 2, Ctrl-C is one line and 130, a bug keeps its traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from memscore import attack, bank, estimate, fidelity, influence
from memscore.cli.app import run_command
from memscore.data.image_files import sort_class_names
from tests.fixtures import banks

ROOT = Path(__file__).parents[3]
COMMANDS = {"estimate": estimate, "attack": attack, "bank": bank}
IMPORTING = {
    "estimate": "--data no-such-data --pool serial",
    "attack": "--store no-such-store --model weights.safetensors --arch mlp",
    "bank": "verify no-such-store",
}
"""Arguments with which each goes on to its slow imports, and fails after them."""

ATTACKS = {
    "no store": ("{tmp}/none --model {tmp}/w --arch mlp-8", "no store at"),
    "no weights": ("{tmp}/bank --model {tmp}/w --arch mlp-8", "there are no weights at"),
    "no safetensors": (
        "{tmp}/bank --model {tmp}/text --arch mlp-8",
        "is no file of weights; give --model a .safetensors file",
    ),
    "mean": (
        "{tmp}/bank --model {tmp}/w --arch mlp-8 --mean 1 2",
        "--mean takes one number for each of 1 chan",
    ),
}


def raising(error):
    raise error


def test_the_command_s_own_code_is_the_code():
    assert [run_command(lambda: 0), run_command(lambda: 1)] == [0, 1]


@pytest.mark.parametrize(
    "error", [ValueError("two\n  lines"), FileNotFoundError("two\nlines"), RuntimeError("two lines")]
)
def test_an_error_of_the_user_s_is_one_line_and_2(error, capsys):
    assert run_command(lambda: raising(error)) == 2
    assert capsys.readouterr() == ("", "error: two lines\n")


def run_out_of_memory():
    yield np.empty((2**40, 2**20), np.uint8)


def test_memory_that_ran_out_is_one_line_and_2_with_the_place_and_the_amount(capsys):
    wanted = "Unable to allocate 1.00 EiB for an array with shape (1099511627776, 1048576) and data type uint8"
    assert run_command(lambda: len(sort_class_names(run_out_of_memory()))) == 2
    assert capsys.readouterr() == (
        "",
        "error: the memory of this machine ran out in memscore.data.image_files.sort_class_names "
        f"({wanted}); use smaller or fewer images, models or workers, or a machine with more memory; what is stored is "
        "kept\n",
    )


def test_torch_s_own_error_that_memory_ran_out_is_told_alike(capsys):
    assert run_command(lambda: int(torch.empty(2**50).sum())) == 2
    output = capsys.readouterr().err
    assert output.startswith("error: the memory of this machine ran out (")
    assert "4503599627370496 bytes" in output
    assert output.count("\n") == 1


def test_ctrl_c_is_one_line_and_130(capsys):
    assert run_command(lambda: raising(KeyboardInterrupt()), "stopped; go on") == 130
    assert capsys.readouterr() == ("", "stopped; go on\n")


def test_a_bug_is_not_dressed_up_as_bad_input():
    with pytest.raises(KeyError):
        run_command(lambda: raising(KeyError("oops")))


@pytest.mark.parametrize(("flags", "line"), ATTACKS.values(), ids=ATTACKS)
def test_the_audit_answers_bad_input_in_one_line(flags, line, tmp_path, capsys):
    banks.bank(tmp_path / "bank")
    (tmp_path / "text").write_text("no weights")
    assert attack.main(flags.format(tmp=tmp_path).split()) == 2
    output = capsys.readouterr().err
    assert output.startswith("error: ")
    assert line in output
    assert output.count("\n") == 1


def test_ctrl_c_while_a_bank_is_verified_is_130(tmp_path, monkeypatch, capsys):
    store = banks.bank(tmp_path / "bank")
    monkeypatch.setattr("memscore.store.verify.verify", lambda store: raising(KeyboardInterrupt()))
    assert bank.main(["verify", store.url, "--set-aside"]) == 130
    assert "interrupted" in capsys.readouterr().err
    with store.lock():
        """It was given back."""


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        *((module.main, []) for module in (estimate, attack, fidelity, influence)),
        *((bank.main, [command]) for command in ("verify", "import")),
    ],
)
def test_help_ends_in_no_default_that_says_nothing(main, arguments, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    output = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: " in output or "(required)" in output
    assert "(default: None)" not in output
    assert "(default: )" not in output


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_a_command_imports_is_one_line_and_130(name):
    process = subprocess.Popen(
        [sys.executable, "-m", f"memscore.{name}", *IMPORTING[name].split()],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while "numpy" not in maps.read_text():  # the first of the imports that take long
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted before anything was started\n")


TERM = """
import os, signal, sys, time
from memscore.cli.app import run_command
from memscore.data.image_files import sort_class_names
def work():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    finally:
        print("released", flush=True)
sys.exit(run_command(work, "on it goes"))
"""


def test_sigterm_comes_up_like_ctrl_c_and_is_one_line_and_143():
    done = subprocess.run(
        [sys.executable, "-c", TERM], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "released\n", "on it goes\n")


def test_sigterm_is_the_process_s_again_after_a_command():
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(lambda: 0) == 0
    assert signal.getsignal(signal.SIGTERM) is before


AGAIN = """
import os, signal, sys, time
from memscore.cli.app import run_command
from memscore.cli.stop_signals import quiet_interrupt
quiet_interrupt()
class Late:
    def __init__(self):
        self.kill, self.pid = os.kill, os.getpid()
    def __del__(self):  # of a module that Python clears as it ends
        self.kill(self.pid, signal.SIGINT)
        sum(range(1000))
late = Late()
def work():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    finally:
        time.sleep(PAUSE)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        print("released", flush=True)
sys.exit(run_command(work, "on it goes"))
"""


def run_python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_a_second_ctrl_c_within_a_second_is_ignored_and_one_while_python_ends_is_silent():
    done = run_python(AGAIN.replace("PAUSE", "0.05"))
    # in the last moments of a process the signal has its effect without Python; a shell reports that as 130 too
    assert done.returncode in {130, -signal.SIGINT}
    assert (done.stdout, done.stderr) == ("released\n", "on it goes\n")


def test_a_later_second_ctrl_c_ends_the_command_at_once():
    done = run_python(AGAIN.replace("PAUSE", "1.1"))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted again: ended at once\n")


LOST = """
import os, signal, sys, time
from memscore.cli.app import run_command
class Callback:
    def __del__(self):  # an exception here is only printed
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))
def work():
    callback = Callback()
    del callback
    time.sleep(30)
sys.exit(run_command(work, "on it goes"))
"""


def test_a_ctrl_c_that_python_could_only_print_is_not_lost():
    done = run_python(LOST)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "on it goes\n")


def test_sighup_comes_up_like_sigterm_and_is_one_line_and_129():
    done = run_python(TERM.replace("SIGTERM", "SIGHUP"))
    assert (done.returncode, done.stdout, done.stderr) == (129, "released\n", "on it goes\n")


def test_a_terminal_that_is_gone_ends_a_command_in_order(tmp_path):
    """Writing to it fails, so that not even an error could be printed."""
    code = f"""
import os, sys, time
from pathlib import Path
from memscore.cli.app import run_command
def work():
    try:
        print("ready", flush=True)
        time.sleep(30)
    finally:
        print("releasing", flush=True)
        Path({str(tmp_path / "released")!r}).touch()
Path({str(tmp_path / "code")!r}).write_text(str(run_command(work, "on it goes")))
"""
    pid, terminal = os.forkpty()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", code])
    read = b""
    while b"ready" not in read:
        read += os.read(terminal, 100)
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "released").exists()
    assert (tmp_path / "code").read_text() == "129"


def test_a_signal_that_is_ignored_stays_so():
    code = TERM.replace("SIGTERM", "SIGHUP").replace("time.sleep(30)", "return 0")
    done = run_python(code, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert (done.returncode, done.stdout, done.stderr) == (0, "released\n", "")
