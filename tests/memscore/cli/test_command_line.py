"""What may be typed after a command: help that fits and says it, and one line about what cannot be parsed."""

import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from memscore import attack, bank, banks, estimate, fidelity, influence, status, submit
from memscore.cli.command_line import call_command, check_words, get_command_line
from memscore.cli.help_page import GROUPS, OTHER, find_group
from memscore.cli.option_list import list_options
from memscore.cli.program import PROGRAMS, run_program
from memscore.reading_limit import get_max_bytes
from unlearn import experiment, sweep, trial

ROOT = Path(__file__).parents[3]
PAGES = {
    **{module.__name__: (module.main, []) for module in (attack, banks, estimate, fidelity, influence, status, submit)},
    **{module.__name__: (module.main, []) for module in (experiment, sweep, trial)},
    **{f"memscore.bank {name}": (bank.main, [name]) for name in bank.SUMMARIES},
    "memscore.banks remove": (banks.main, ["remove"]),
    "memscore.report": (import_module("memscore.report.__main__").main, []),
    "memscore.list": (import_module("memscore.list").main, []),
    "unlearn.list": (import_module("unlearn.list").main, []),
}


@pytest.mark.parametrize("page", PAGES)
def test_a_help_page_fits_into_80_columns_and_says_what_may_be_typed(page, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main, words = PAGES[page]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert not re.search(r"\{None\}|\bSTR\b|\bINT\b|\bFLOAT\b", text)
    assert OTHER not in text, "an option has no group in GROUPS"
    assert text.startswith("usage: python -m ")
    assert "\nExample:\n  python -m " in text


@pytest.mark.parametrize(
    ("function", "example"),
    [
        (estimate.estimate_bank, estimate.EXAMPLE),
        (attack.audit_model, attack.EXAMPLE),
        (influence.find_bank_influence, influence.EXAMPLE),
        (trial.unlearn_and_compare, trial.EXAMPLE),
        (sweep.run_sweep, sweep.EXAMPLE),
        (experiment.run_experiment, experiment.EXAMPLE),
        (bank.import_source, bank.EXAMPLES["import"]),
        (banks.remove_bank, banks.REMOVE_EXAMPLE),
    ],
)
def test_the_example_of_a_page_can_be_typed_and_every_option_has_a_text(function, example):
    options = list_options(function)
    check_words(example.split(), options, "it")
    assert all(option.text for option in options)
    assert {find_group(option) for option in options if not option.positional} <= GROUPS.keys()


WRONG = {
    "--models ten": "--models takes a whole number, got 'ten'",
    "--lr=high": "--lr takes a number, got 'high'",
    "--modles 3": "unknown option --modles; did you mean --models?; it --help lists all",
    "--pool seriel": "--pool takes auto, serial or ray, got 'seriel'; did you mean serial?",
    "--models": "--models needs a value: a whole number",
    "--models --seed 1": "--models needs a value: a whole number",
    "stray": "it takes no word 'stray' here; it --help lists what it takes",
}


@pytest.mark.parametrize("words", WRONG)
def test_words_that_cannot_be_parsed_are_one_line(words):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        check_words(words.split(), list_options(estimate.estimate_bank), "it")
    assert str(caught.value) == WRONG[words]


def test_what_is_missing_is_named_with_the_usage():
    with pytest.raises(ValueError, match=r"^it needs a name and a store: it NAME STORE"):
        check_words([], list_options(experiment.run_experiment), "it")


def test_plain_words_come_first_wherever_they_were_typed():
    options = list_options(attack.audit_model)
    words = ["--model", "m", "--arch", "mlp", "--mean", ".5", "-1", "--std=.2", "bank", "--rmia", "offline"]
    assert check_words(words, options, "it")[0] == "bank"
    words = ["--member", "a", "--correct", "b", "c", "bank"]
    assert check_words(words, list_options(bank.import_source), "it") == ["bank", *words[:-1]]
    assert check_words(["--train_limit", "None"], list_options(estimate.estimate_bank), "it")


def test_what_only_tyro_knows_is_one_line_too():
    def take(pair: tuple[int, int], word: str = "") -> int:
        """Take two numbers."""
        return 0

    with pytest.raises(ValueError, match=r"^[^\n│╭]*--pair[^\n│╭]*; it --help lists what it takes$"):
        call_command(take, "it", ["--pair", "1"], "")


@pytest.mark.parametrize(
    "words", [["--max-bytes", "2kB"], ["--max_bytes=2kB"], ["--max-bytes", "1kB", "--max-bytes=2kB"]]
)
def test_the_limit_of_files_holds_while_a_command_runs(words, monkeypatch):
    monkeypatch.delenv("MEMSCORE_MAX_BYTES", raising=False)
    seen = []

    def read(data: str = "digits", seed: int = 0) -> int:
        """Read.

        Args:
            data: a name.
            seed: a number.
        """
        seen.append((data, seed, get_max_bytes()))
        return 0

    assert call_command(read, "it", ["--data", "mine", *words, "--seed", "3"], "") == 0
    assert seen == [("mine", 3, 2000)]
    assert "MEMSCORE_MAX_BYTES" not in os.environ
    with pytest.raises(ValueError, match=r"--max-bytes is a number of bytes, got 'much'; write 64GB"):
        call_command(read, "it", ["--max-bytes", "much"], "")


def test_commands_that_read_no_files_of_a_user_s_have_no_limit():
    with pytest.raises(ValueError, match="unknown option --max-bytes"):
        call_command(status.show_status, "it", ["somewhere", "--max-bytes", "2kB"], "")


def test_a_command_knows_what_was_typed():
    def take(number: int = 1) -> int:
        """Take a number."""
        assert get_command_line() == ("it", "--number", "3")
        return number

    assert call_command(take, "it", ["--number", "3"], "") == 3


def test_a_script_finds_modules_of_the_current_folder_as_python_m_does(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    monkeypatch.setattr(sys, "argv", ["/home/ann/.venv/bin/memscore", "--version"])
    assert run_program("memscore") == 0
    assert sys.path == [str(tmp_path), "elsewhere"]
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    monkeypatch.setattr(sys, "argv", ["/home/ann/memscore/__main__.py", "--version"])  # python -m has added it itself
    assert run_program("memscore") == 0
    assert sys.path == ["elsewhere"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_lists_its_commands_and_those_of_the_other(program, capsys):
    assert run_program(program, []) == 2
    text = capsys.readouterr().err
    assert max(map(len, text.splitlines())) <= 80
    for name in {*PROGRAMS["memscore"], *PROGRAMS["unlearn"]}:
        assert f"\n  {name} " in text
    assert run_program(program, ["--help"]) == 0
    assert capsys.readouterr().out == text
    # `python -m memscore.NAME` and `memscore NAME` are the same commands
    files = {p.stem: p for p in (ROOT / program).glob("[!_]*.py")}
    files |= {p.parent.name: p for p in (ROOT / program).glob("*/__main__.py")}  # a command of several files
    with_main = {name for name, p in files.items() if '__name__ == "__main__"' in p.read_text()}
    assert with_main == PROGRAMS[program].keys()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["estimat"], "has no command 'estimat'; did you mean estimate?; `python -m memscore --help` lists all"),
        (["trial"], "has no command 'trial'; it is `python -m unlearn trial`"),
        (["estimate", "--modles"], "unknown option --modles; did you mean --models?; python -m memscore estimate"),
        (["bank", "verfy"], "python -m memscore bank has no command 'verfy'; did you mean verify?"),
    ],
)
def test_a_wrong_name_is_one_line(words, line, capsys):
    assert run_program("memscore", words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert line in error
    assert error.count("\n") == 1


def test_the_version_is_there_everywhere(capsys):
    assert run_program("unlearn", ["--version"]) == 0
    for main, words in PAGES.values():
        with pytest.raises(SystemExit):
            main([*words, "--version"])
    assert set(capsys.readouterr().out.splitlines()) == {f"memscore {version('memscore')}"}


def test_the_scripts_are_the_programs():
    scripts = re.findall(r'^(\w+) = "(\w+)\.__main__:main"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert scripts == [(program, program) for program in PROGRAMS]
    assert all(callable(import_module(f"{program}.__main__").main) for program in PROGRAMS)


def test_a_reader_that_wants_no_more_is_no_error():
    code = "import sys; from memscore.cli.app import run_command; sys.exit(run_command(lambda: print('x\\n' * 10**6)))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout.readline() == b"x\n"
    process.stdout.close()
    assert (process.stderr.read(), process.wait(30)) == (b"", 141)
