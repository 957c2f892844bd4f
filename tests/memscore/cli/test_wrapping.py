"""What is written to a terminal of 80 columns is wrapped between words; a pipe gets it as it is."""

import io
import logging
import re
import sys

import pytest

from memscore.cli.app import run_command
from memscore.cli.program import run_program
from memscore.cli.wrapping import WrappingStream, find_breaks, wrap_lines
from memscore.tables.progress_bar import ProgressBar

MESSAGE = (
    "--models must be at least one block, and this design trains whole blocks of 64 models, each in about 12 min "
    "on one core; use 64"
)
COMMAND = "`python -m memscore.estimate --data digits --models 64 --store ~/memscore/a-very-long-name-of-a-bank`"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def open_terminal(monkeypatch):
    """Called in the test, because pytest itself sets stderr between fixtures and tests."""

    def open_stderr():
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return open_stderr


def fail():
    raise ValueError(MESSAGE)


def check_wrapped(written, text):
    lines = written.splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 80
    assert " ".join(lines) == text


def test_an_error_fits_a_terminal_and_loses_no_word(open_terminal):
    terminal = open_terminal()
    assert run_command(fail) == 2
    check_wrapped(terminal.getvalue(), f"error: {MESSAGE}")
    assert "12 min" in terminal.getvalue()
    assert sys.stderr is terminal


def test_an_error_in_a_pipe_is_one_line(capsys):
    assert run_command(fail) == 2
    assert capsys.readouterr().err == f"error: {MESSAGE}\n"


def test_warnings_of_a_command_are_wrapped_too(open_terminal):
    terminal = open_terminal()

    def warn():
        logger = logging.Logger("a")
        logger.addHandler(logging.StreamHandler(sys.stderr))
        logger.warning("%s", MESSAGE)
        return 0

    assert run_command(warn) == 0
    check_wrapped(terminal.getvalue(), MESSAGE)


def test_a_misspelt_command_is_wrapped(open_terminal):
    terminal = open_terminal()
    name = "estimate" * 3 + "-with-a-long-name-that-nobody-would-type-into-a-terminal"
    assert run_program("memscore", [name]) == 2
    assert max(map(len, terminal.getvalue().splitlines())) <= 120
    assert len(terminal.getvalue().splitlines()) > 1


def test_what_is_to_be_copied_stays_whole():
    assert wrap_lines(f"  {MESSAGE}\n", 80) == f"  {MESSAGE}\n"
    assert COMMAND in wrap_lines(f"there is no bank; run {COMMAND} again\n", 80).splitlines()
    assert wrap_lines(f"\x1b[1m{MESSAGE}\n", 80) == f"\x1b[1m{MESSAGE}\n"


def test_lines_of_one_write_are_wrapped_one_by_one():
    assert wrap_lines("a b\n\nc d e f\n", 20) == "a b\n\nc d e f\n"
    text = "one two three four five six seven\neight"
    assert wrap_lines(text, 20) == "one two three four\nfive six seven\neight"


def test_wide_characters_count_two_columns():
    assert find_breaks("\u732b\u732b\u732b \u72ac\u72ac", 10) == [4]
    assert find_breaks("cat cat", 10) == []


def test_a_stream_that_wraps_is_still_the_terminal(open_terminal):
    terminal = open_terminal()
    stream = WrappingStream(terminal)
    assert stream.isatty()
    assert stream.write(f"{MESSAGE}\n") == len(MESSAGE) + 1


def test_a_bar_shows_all_of_its_line(open_terminal, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setenv("TERM", "xterm")
    line = "median accuracy on members 0.997, left out 0.934; the largest standard error of memorization is 0.0213"
    with ProgressBar("models") as bar:
        bar(2, 256, line)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n")
    assert "\u2026" not in shown
    assert "models 2/256" in shown
    last = shown.rpartition("models 2/256")[2]
    assert " ".join(last.split()).endswith(line)
    assert max(map(len, shown.splitlines())) <= 80
