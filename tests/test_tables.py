"""No page of any command cuts a number, breaks a word or leaves its terminal: each is rendered here at four widths."""

import ast
import importlib
import io
import math
import re
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.torch import save_file

from memscore import attack, banks, estimate, fidelity, influence, status
from memscore import bank as bank_command
from memscore.models.architectures import build_network
from memscore.statistics.claims import judge_claim
from memscore.statistics.means import estimate_mean
from memscore.store.store import Store
from memscore.tables.console import NumberTable, make_table, open_console, print_line
from tests.fixtures import tiny
from tests.fixtures.populations import make_population
from tests.unlearn.tuning.test_results import ROWS, VANILLA, make_judged_rows, make_result, make_state
from unlearn import sweep
from unlearn.experiments import tables as experiment_tables
from unlearn.experiments.base import ExperimentResult
from unlearn.experiments.registry import EXPERIMENTS
from unlearn.experiments.tables import COLUMNS
from unlearn.measures.epsilon import epsilon
from unlearn.trials import tables as trial_tables
from unlearn.trials.prepare import TrialResults
from unlearn.trials.request import TrialRequest
from unlearn.tuning import tables as sweep_tables

ROOT = Path(__file__).parents[1]
WIDE = 200
NUMBER = re.compile(r"[\[(]?[-+±]?\d*\.?\d[\d.,]*(e[-+]?\d+)?[\]),;:]*")
"""A word that is a number, with the sign, bracket and punctuation beside it."""
SCORE = "memorization_k0.500"


def numbers(table, width):
    """How often each number stands in a table as it is rendered in a terminal of this width."""
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    assert max(map(len, text.getvalue().splitlines())) <= width
    assert "…" not in text.getvalue()
    return Counter(word for word in text.getvalue().split() if NUMBER.fullmatch(word))


def calls_of_make_table():
    """File and lines of every place in the product that makes a table."""
    for path in (path for name in ("memscore", "unlearn") for path in sorted((ROOT / name).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "make_table":
                yield str(path.relative_to(ROOT)), node.lineno, node.end_lineno


def run_commands(folder):
    """Run every command that prints tables, on a bank of 40 small models."""
    store = str(folder / "store")
    bank = f"--train-limit 200 --epochs 6 --batch 20 --arch mlp-32 --design exact --block 8 --models 40 --store {store}"
    proxies = "--proxies all --inversion-candidates 4 --inversion-iterations 2"
    assert estimate.main(f"{bank} --label-noise 0.1 {proxies} --pool serial".split()) == 0
    assert estimate.main(f"{bank} --label-noise 0.1 --models 48 --dry-run --price 2".split()) == 0
    assert influence.main([store, "--pictures", "0"]) == 0
    assert fidelity.main([store]) == 0
    assert status.main([store]) == 0
    assert banks.main([str(folder)]) == 0
    assert bank_command.main(["compare", store, store]) == 0
    save_file(build_network("mlp-32", (1, 8, 8), 10, 0).state_dict(), folder / "own.safetensors")
    ids = Store.open(store).examples()["id"].to_pylist()[:200:2]
    (folder / "members.txt").write_text("\n".join(ids))
    model = (
        f"--model {folder}/own.safetensors --arch mlp-32 --members {folder}/members.txt --out {folder}/audit.parquet"
    )
    assert attack.main([store, *model.split()]) == 0
    forget = f"--forget {SCORE}:high --size 20 --pool serial"
    variants = (
        f"--algorithms finetune --variants vanilla rum --scores {SCORE} --tunings 2 --budget 1 --seeds 2 --tune-seeds 1"
    )
    assert sweep.main(f"{store} {forget} {variants} --dry-run".split()) == 0
    assert sweep.main(f"{store} {forget} {variants}".split()) == 0


def print_copies(folder):
    """Print the exact and near copies of a small bank whose images are all there twice."""
    images, labels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8), np.arange(20) % 2
    twice = {"train_images": np.tile(images, (2, 1, 1)), "train_labels": np.tile(labels, 2)}
    np.savez(folder / "copies.npz", **twice, test_images=images, test_labels=labels)
    data = f"--data {folder}/copies.npz --validation 0 --arch mlp-4 --recipe digits --epochs 1 --batch 10"
    store = str(folder / "copies")
    assert estimate.main(f"{data} --design iid --models 4 --originals 1 --pool serial --store {store}".split()) == 0
    assert (
        bank_command.main([
            "duplicates",
            store,
            "--data",
            f"{folder}/copies.npz",
            "--near",
            "pixels",
            "--threshold",
            "0.1",
        ])
        == 0
    )


class Row(dict):
    """A row that has a value in every column."""

    def __missing__(self, column):
        return False if column == "beyond_its_purpose" else 0.4321 + 0.1 * self["index"]


def print_trials():
    """Print made-up rows of three algorithms, with a measure beyond the core ones and measures of many models."""
    usual = {"forget_set": "random of 120", "n_forget": 120, "status": "ok", "mia_threshold_test": 0.5}
    rows = [
        Row(usual, algorithm=name, index=i) for name in ("oracle", "boundary-expand-plus", "original") for i in (0, 1)
    ]
    request = TrialRequest(store="s", size=120, algorithm="boundary-expand-plus", measures=("mia-threshold", "epsilon"))
    results = TrialResults(rows=rows, failed=[], population_values=epsilon(make_population(9.0, models=(32, 32))))
    assert trial_tables.print_trials(Console(), results, request) == 0


def print_an_experiment():
    """Print made-up rows of the longest names, and a claim, as an experiment does."""
    entry = EXPERIMENTS["rum"]
    values = dict.fromkeys((*COLUMNS[0], *COLUMNS[1], *entry.columns), 0.4321)
    names = (("nothing>finetune>salun", f"rum-reversed {SCORE}"), ("finetune", "vanilla"))
    rows = [row | {"forget_set": "union of 12"} for pair in names for row in tiny.make_rows(*pair, **values)]
    claim = "nothing>finetune>salun has a higher ToW than RUM^F of finetune, mean of the paper's algorithms"
    value = estimate_mean([0.1234, -0.0123, 0.2591], ["a"] * 3)
    claims = [judge_claim(claim, "CIFAR-10 .937 and .942", value, family=family) for family in ("plans", "plans", "b")]
    experiment_tables.print_experiment(
        Console(), entry, ExperimentResult(results={"union": rows}, claims=claims), "here"
    )


def print_single_examples():
    """Print made-up rank correlations of two algorithms, as the experiment on single examples does."""
    found = {"rho": -0.1234, "lo": -0.4321, "hi": 0.0123}
    rows = [
        {"algorithm": algorithm, "factor": factor, "title": f"{factor}, of the bank or theta_o"} | found
        for algorithm in ("gradient-ascent", "neggrad-plus")
        for factor in (SCORE, "theta_o_centroid_distance")
    ]
    result = ExperimentResult(results={"examples": []}, claims=[], tables={"correlations": rows})
    experiment_tables.print_experiment(Console(), EXPERIMENTS["difficulty"], result, "here")


def print_a_sweep():
    """Print made-up rows of a sweep with measures of many models, one of whose judged runs diverged."""
    values = epsilon(make_population(9.0, models=(32, 32)))
    method = {"contender": "nothing>finetune>salun", "variant": f"rum-reversed {SCORE}", "select": "oracle"}
    diverged = make_judged_rows("scrub", "vanilla", "oracle", [math.nan] * 3, status="diverged")
    result = replace(make_result(make_state(VANILLA), rows=[*ROWS, *diverged]), populations=(method | values,))
    assert sweep_tables.print_sweep(Console(), result, "here") == 1


PAGES = (
    *("memscore.tables.bank_tables.print_heading", "memscore.tables.cost_table.print_cost"),
    *("memscore.tables.bank_tables.print_forecast", "memscore.tables.bank_tables.print_result"),
    *("memscore.tables.influence_table.print_influence", "memscore.tables.fidelity_tables.print_fidelity"),
    *("memscore.status.print_status", "memscore.tables.audit_table.print_audit"),
    *("memscore.tables.duplicates_tables.print_copies_table", "memscore.tables.duplicates_tables.print_near_copies"),
    *("unlearn.tuning.cost_tables.print_sweep_cost", "unlearn.tuning.tables.print_sweep"),
    "unlearn.trials.tables.print_trials",
    "unlearn.experiments.tables.print_experiment",
)
"""Every function that prints a page, or a part of one, under the name by which commands call it."""
LONG = 40
"""Length of a word that may stand beyond the terminal's width, as paths do."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Every table that the commands print, the places in the code that made them, and how to print each page again."""
    printed, places, pages = [], set(), []
    make, render = NumberTable.__init__, NumberTable.__rich_console__

    def note_place(self, title):
        frame = sys._getframe(2)  # of whoever called make_table
        places.add((str(Path(frame.f_code.co_filename).relative_to(ROOT)), frame.f_lineno))
        make(self, title)

    def note_table(self, *terminal):
        printed.append(self)
        return render(self, *terminal)

    def note_page(function, console, *arguments, **options):
        pages.append(lambda console: function(console, *arguments, **options))
        return function(console, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in PAGES:
            module, _, function = name.rpartition(".")
            module = importlib.import_module(module)
            patch.setattr(module, function, partial(note_page, getattr(module, function)))
        patch.setattr(NumberTable, "__init__", note_place)
        patch.setattr(NumberTable, "__rich_console__", note_table)
        run_commands(tmp_path_factory.mktemp("tables"))
        print_copies(tmp_path_factory.mktemp("copies"))
        print_trials()
        print_an_experiment()
        print_single_examples()
        print_a_sweep()
    return printed, places, pages


def test_every_place_that_makes_a_table_was_reached(tables):
    _, places, _ = tables
    missed = [
        call
        for call in calls_of_make_table()
        if not any(file == call[0] and call[1] <= line <= call[2] for file, line in places)
    ]
    assert places
    assert list(calls_of_make_table())
    assert not missed


@pytest.mark.parametrize("width", [80, 60])
def test_a_narrow_terminal_shows_every_number_whole(tables, width):
    printed, *_ = tables
    assert len(printed) > 20
    for table in printed:
        wide = numbers(table, WIDE)
        cut = wide - numbers(table, width)
        assert not cut, f"{table.heading!r} at {width} columns lacks {dict(cut)}"


def render(page, width):
    text = io.StringIO()
    page(Console(file=text, width=width))
    return text.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_page_stays_in_its_terminal_with_every_word_and_number_whole(tables, width):
    *_, pages = tables
    assert len(pages) >= len(PAGES)
    for page in pages:
        text, wide = render(page, width), render(page, 3000)
        lines = text.splitlines()
        cut = [line for line in lines if len(line) > width and max(map(len, line.split())) < LONG]
        assert not [line for line in cut if not line.startswith("  python -m")]
        assert not [line for line in lines if line != line.rstrip()]
        assert "\n\n\n" not in text
        assert "…" not in text
        broken = set(text.split()) - set(wide.split())
        assert not [word for word in broken if set(word) != {"─"}]
        lost = Counter(filter(NUMBER.fullmatch, wide.split())) - Counter(filter(NUMBER.fullmatch, text.split()))
        assert not lost


def test_a_pipe_has_the_width_of_a_page_and_columns_another(monkeypatch):
    monkeypatch.setattr("memscore.tables.console.PIPED_WIDTH", 120)
    assert open_console().width == 120
    monkeypatch.setenv("COLUMNS", "77")
    assert open_console().width == 77


def test_a_line_is_wrapped_below_its_label_and_a_path_stays_whole():
    path = "/a/" + "path/" * 20
    lines = render(lambda console: print_line(console, f"store  of 3.5 MB in {path} here", indent=7), 30).splitlines()
    assert lines == ["store  of 3.5 MB in", f"       {path}", "       here"]


def test_no_number_is_parted_from_its_unit():
    text = render(lambda console: print_line(console, "about 12.6 h, 95 % of it"), 13)
    assert text.splitlines() == ["about 12.6 h,", "95 % of it"]


def test_columns_that_do_not_fit_stand_below_with_the_names_of_their_rows():
    table = make_table("title", ("method", "variant", *(f"measure_{i}" for i in range(9))))
    table.add_row("finetune", "rum memorization", *(f"0.{i}23 ±0.{i}45" for i in range(9)))
    text = io.StringIO()
    Console(file=text, width=60).print(table)
    lines = text.getvalue().splitlines()
    rows = [line for line in lines if "±" in line]
    assert len(rows) > 2
    assert all(line.split()[0] == "finetune" for line in rows)
    assert text.getvalue().count("title") == 1
    assert max(map(len, lines)) <= 60


def test_a_column_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r"each column of a table needs a name, got \['', 'n'\]"):
        make_table("title", ("", "n"))


def test_a_table_that_fits_has_a_blank_line_above_it_alone():
    table = make_table("title", ("name", "value"))
    table.add_row("a", "0.5 [0.4, 0.6]")
    text = io.StringIO()
    Console(file=text, width=60).print(table)
    assert text.getvalue().splitlines() == [
        "",
        "title",
        " name           value",
        " ────────────────────",
        " a     0.5 [0.4, 0.6]",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_ids_with_blanks_are_not_broken(width):
    table = make_table("title", ("id", "label", *(f"measure_{i}" for i in range(5))), whole=("id",))
    table.add_row("cats/my first photo (2).png", "a very long name of a class", *(f"0.{i}23" for i in range(5)))
    text = render(lambda console: console.print(table), width)
    assert "cats/my first photo (2).png" in text
    assert max(map(len, text.splitlines())) <= width
