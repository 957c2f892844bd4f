"""No control character of an id, a name, a message or a record reaches a terminal or the log of a store raw."""

import logging
import re
import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from memscore import attack, bank, banks, estimate, fidelity, influence, status
from memscore.cli.app import run_command
from memscore.models.architectures import build_network
from memscore.store.store import Store
from memscore.tables.console import make_table, print_line
from memscore.tables.progress_bar import ProgressBar
from memscore.visible_text import CONTROL, escape_controls
from tests.fixtures import banks as small_banks
from unlearn import trial

ACTING = "\x1b[2J\x07\n\r\t\x0b\x9b31m\x7f\u2028\u202e\u2066[red]"
"""Clears a terminal, rings, breaks a line, turns what follows; and what rich would read as a colour."""
RAW = re.compile(CONTROL.pattern.replace(r"[\x00-\x1f", r"[\x00-\x09\x0b-\x1f"))


def name(text):
    """Return a name with the characters, which an escaped text shows behind it."""
    return f"{text}{ACTING}"


def require_visible(said):
    """Assert that no control character is raw but the line feed of a line's end."""
    found = RAW.search(said)
    assert not found, f"{said[max(found.start() - 80, 0) : found.end() + 80]!r}"


def require_shown(said, *texts):
    """Assert that each of these names stands whole in one line, escaped."""
    for text in texts:
        assert escape_controls(name(text)) in said, text


def make_folder(folder):
    """Make a data set of two classes in a folder, whose names and whose images' names are hostile."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for label, colour in (("cat", 40), ("dog", 200)):
            place = folder / split / name(label)
            place.mkdir(parents=True)
            for k in range(count):
                pixels = rng.normal(colour, 30, (8, 8)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{k:02}{ACTING}.png")
        first = sorted((folder / split / name("cat")).iterdir())
        first[1].write_bytes(first[0].read_bytes())  # an exact copy
    return folder


@pytest.mark.slow
def test_no_page_of_hostile_images_acts_on_the_terminal(tmp_path, capsys, monkeypatch):
    data, store, own = (
        make_folder(tmp_path / name("images")),
        tmp_path / "store",
        tmp_path / f"{name('own')}.safetensors",
    )
    monkeypatch.setenv("MEMSCORE_HOME", str(tmp_path))
    save_file(build_network("mlp-4", (1, 8, 8), 2, 0).state_dict(), own)

    def run(command, *words):
        capsys.readouterr()
        assert command.main([str(word) for word in words]) == 0
        said = "".join(capsys.readouterr())
        require_visible(said)
        return said

    training = (
        "--validation 0.25 --arch mlp-4 --recipe digits --epochs 2 --batch 8 --design exact --block 4 --models 16"
    )
    said = run(estimate, "--data", data, *training.split(), "--pool", "serial", "--store", store)
    require_shown(said, "images", "cat", "dog")
    require_shown(run(influence, store), "train/cat", "dog")
    run(fidelity, store)
    require_shown(run(bank, "duplicates", store, "--near", "pixels", "--threshold", "0.5"), "train/cat", "test/cat")
    require_shown(run(attack, "--model", own, "--arch", "mlp-4", store), "train/dog", "dog")
    forget = "--forget memorization_k0.500:high --size 4 --pool serial --seeds 1"
    require_shown(run(trial, store, "--algorithm", "finetune", *forget.split()), "train/cat")
    run(bank, "verify", store)
    require_shown(run(banks, tmp_path), "images")
    require_shown(run(status, store), "images")
    require_visible((store / "run.log").read_text())
    require_shown((store / "run.log").read_text(), "images")


def test_no_record_acts_on_the_terminal(tmp_path, capsys):
    manifest = small_banks.manifest(data=name("data"), architecture=name("net"))
    store = Store.create(tmp_path / "store", manifest, small_banks.examples())
    store.add_arm(small_banks.ARM)
    store.write_failure("iid-k0.700-00000", {"kind": name("kind"), "error": name("boom"), "attempts": 1})
    store.write_origin({"name": name("data"), "class_names": [name(str(k)) for k in range(10)]})
    for command, words in ((status, [store.url]), (banks, [str(tmp_path)]), (bank, ["verify", store.url])):
        command.main(words)
        said = "".join(capsys.readouterr())
        require_visible(said)
        if command is not bank:
            require_shown(said, "data", "net")
        if command is status:
            require_shown(said, "kind", "boom")


def test_a_cell_is_one_line_of_plain_text(capsys):
    table = make_table(name("title"), (name("head"), "b"))
    table.add_row(name("cell"), "[red]1[/]")
    Console(width=500).print(table)
    said = capsys.readouterr().out
    require_visible(said)
    require_shown(said, "title", "head", "cell")
    assert "[red]1[/]" in said


def test_only_the_beginning_of_a_line_is_markup(capsys):
    print_line(Console(width=500, force_terminal=True), f"[red]a[/] {name('b')} [/] [yellow]c[/]", markup=True)
    assert capsys.readouterr().out == f"\x1b[31ma\x1b[0m {escape_controls(name('b'))} [/] [yellow]c[/]\n"


def test_a_line_of_progress_is_one_line(capsys):
    with ProgressBar("models") as show:
        show(1, 1, name("last model"))
    said = capsys.readouterr().err
    require_visible(said)
    require_shown(said, "last model")
    assert said.count("\n") == 1


@pytest.mark.parametrize("fails", [False, True])
def test_errors_and_warnings_of_a_command_are_visible(fails, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def command():
        logging.getLogger("memscore").warning("%s", name("log"))
        sys.stderr.write(warnings.formatwarning(name("warning"), UserWarning, "here.py", 1))  # pytest takes warn()
        if fails:
            raise ValueError(name("error"))
        return 0

    assert run_command(command) == (2 if fails else 0)
    said = capsys.readouterr().err
    require_visible(said)
    assert "log\\x1b[2J" in said
    assert "warning\\x1b[2J" in said
    assert ("error: error\\x1b[2J" in said) == fails
