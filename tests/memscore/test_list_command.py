"""memscore list and unlearn list: the names of the tables, each with a line."""

from importlib import import_module

import pytest

from memscore.cli.name_list import LISTED
from memscore.data.published import TORCHVISION_CLASSES
from memscore.models.architectures import ARCHITECTURES
from memscore.pipeline.attacks import ATTACKS
from memscore.proxies.registry import PROXIES
from memscore.training.recipes import RECIPES
from unlearn.algorithms import ALGORITHMS
from unlearn.measures import MEASURES

TABLES = {
    "data": TORCHVISION_CLASSES,
    "architectures": ARCHITECTURES,
    "recipes": RECIPES,
    "attacks": ATTACKS,
    "proxies": PROXIES,
    "algorithms": ALGORITHMS,
    "measures": MEASURES,
}


@pytest.mark.parametrize("program", LISTED)
def test_names_are_listed_at_80_columns(program, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main = import_module(f"{program}.list").main
    for kind in LISTED[program]:
        assert main([kind]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        names = {line.split()[0] for line in lines[1:] if line.startswith("  ") and line[2:3].strip()}
        assert set(TABLES.get(kind, ())) <= names
    assert main(["recipies"]) == 2
    assert f"{program} list has no 'recipies'" in capsys.readouterr().err


def test_what_the_other_program_lists_is_said(capsys):
    assert import_module("memscore.list").main(["algorithms"]) == 2
    assert "algorithms are in `unlearn list algorithms`" in capsys.readouterr().err


def test_the_help_of_estimate_names_every_architecture(capsys):
    from memscore import estimate

    with pytest.raises(SystemExit):
        estimate.main(["--help"])
    words = set(capsys.readouterr().out.replace(",", " ").split())
    assert words >= set(ARCHITECTURES) | set(PROXIES) | set(ATTACKS)
