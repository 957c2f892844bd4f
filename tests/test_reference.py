"""The tables of docs/reference are what the code gives today; `make reference` writes them."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
HANDWRITTEN = {"commands.md", "intervals.md", "python.md"}
"""Pages without a generated table; test_docs.py compares their names and flags with the code."""


def load_generator():
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generator = load_generator()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_holds_the_tables_of_the_code(page):
    text = page.read_text()
    assert generator.fill_in_tables(text) == text, f"{page.name} is not what the code gives; run: make reference"
    assert text.count("<!-- generated: ") == text.count("<!-- end of ") == len(generator.REGION.findall(text))
    assert bool(generator.REGION.search(text)) == (page.name not in HANDWRITTEN)


def test_every_table_stands_on_one_page():
    shown = [name for page in PAGES for _, name, _ in generator.REGION.findall(page.read_text())]
    assert sorted(shown) == sorted(generator.TABLES)


def test_a_changed_table_changes_the_page_and_an_unknown_name_is_an_error(monkeypatch):
    page = ROOT / "docs" / "reference" / "algorithms.md"
    monkeypatch.setitem(generator.TABLES, "algorithms", lambda: ["| another |"])
    assert "<!-- generated: algorithms -->\n| another |\n<!-- end of" in generator.fill_in_tables(page.read_text())
    with pytest.raises(ValueError, match="'algorithmz'; known: algorithms"):
        generator.fill_in_tables("<!-- generated: algorithmz -->\n<!-- end of algorithmz -->\n")


def test_every_parameter_of_every_algorithm_has_a_meaning():
    text = "\n".join(generator.describe_algorithms())
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    without = [row for row in rows if row.endswith(" | |")]
    assert not without


def test_a_bar_in_a_cell_stays_in_its_cell():
    assert generator.format_table(("a", "b"), [("x|y", "")])[2] == r"| x\|y | |"
