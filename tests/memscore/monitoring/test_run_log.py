"""run.log: lines as they were written, whole and in order, bounded, without what acts on a terminal or is secret."""

import io
import re
import sys

import pytest

from memscore.monitoring import run_log
from memscore.monitoring.run_log import RunLog, record_run
from memscore.store.filesystem import Folder
from memscore.tables.progress_bar import ProgressBar
from tests.fixtures import banks

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \d+ (.*)")


def read_lines(folder, name="run.log"):
    return [LINE.fullmatch(line)[1] for line in (folder / name).read_text().splitlines()]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_run_is_recorded_from_begin_to_end(tmp_path, capsys):
    store = banks.bank(tmp_path / "bank")
    with record_run(store.folder, ("memscore estimate", "--store", "s3://me:hush@bucket/x?secret_key=hush")):
        sys.stderr.write("warning one\nhalf ")
        sys.stderr.write("a line\n\n")
    assert capsys.readouterr().err == "warning one\nhalf a line\n\n"
    began, versions, *others = read_lines(tmp_path / "bank")
    assert began == "began: memscore estimate --store s3://***@bucket/x?secret_key=***"
    assert re.match(r"on host \S+: Python \S+, memscore \S+, torch ", versions)
    assert others == ["warning one", "half a line", "ended"]
    with pytest.raises(ValueError, match="bad"), record_run(store.folder, ()):
        raise ValueError("bad\x1b[2J\nvalue")
    assert read_lines(tmp_path / "bank")[-1] == r"failed: ValueError: bad\x1b[2J value"
    assert (tmp_path / "bank" / "run.log").stat().st_mode & 0o77 == 0


def test_a_bar_is_kept_as_lines(tmp_path):
    store, terminal = banks.bank(tmp_path / "bank"), Terminal()
    log = RunLog(store.folder, terminal)
    with ProgressBar("models", log) as bar:
        bar(1, 2, "first")
        bar(2, 2, "second\u202e")
    assert "\x1b" in terminal.getvalue()
    [line] = read_lines(tmp_path / "bank")
    assert re.fullmatch(r"models 2/2, [\d.]+ a second; second\\u202e", line)


def test_nothing_is_written_into_a_folder_that_is_no_store(tmp_path):
    with record_run(Folder.from_url(str(tmp_path)), ()):
        sys.stderr.write("it will be one\n")
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "manifest.json").touch()
    assert read_lines(tmp_path)[-2:] == ["it will be one", "ended"]


def test_the_log_is_bounded(tmp_path, monkeypatch):
    store = banks.bank(tmp_path / "bank")
    monkeypatch.setattr(run_log, "MAX_BYTES", 1000)
    log = RunLog(store.folder, io.StringIO())
    for number in range(100):
        log.keep_lines(f"line {number}")
    assert (tmp_path / "bank" / "run.log").stat().st_size < 1100
    lines = read_lines(tmp_path / "bank", "run.old.log") + read_lines(tmp_path / "bank")
    assert lines[-1] == "line 99"
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers == list(range(numbers[0], 100))
    log.keep_lines("x" * 10_000)
    assert len(read_lines(tmp_path / "bank")[-1]) < 2100


def test_a_log_that_cannot_be_written_is_one_warning(tmp_path):
    store, terminal = banks.bank(tmp_path / "bank"), io.StringIO()
    (tmp_path / "bank" / "run.log").symlink_to(tmp_path / "elsewhere")
    log = RunLog(store.folder, terminal)
    log.write("one\ntwo\n")
    log.write("three\n")
    assert not (tmp_path / "elsewhere").exists()
    assert terminal.getvalue().count("run.log is not written") == 1
