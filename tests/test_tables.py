"""No table of any command cuts a number, however narrow the terminal: each table of the product is rendered here."""

import ast
import io
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.torch import save_file

from memscore import attack, estimate, fidelity, influence, status
from memscore import bank as bank_command
from memscore.models.architectures import build_network
from memscore.statistics.claims import judge_claim
from memscore.statistics.intervals import Interval
from memscore.store.store import Store
from memscore.tables.console import NumberTable, make_table
from tests.fixtures import tiny
from tests.fixtures.populations import make_population
from unlearn import sweep
from unlearn.experiments.base import ExperimentResult
from unlearn.experiments.registry import EXPERIMENTS
from unlearn.experiments.tables import COLUMNS, print_experiment
from unlearn.measures.epsilon import epsilon
from unlearn.trials import tables as trial_tables
from unlearn.trials.prepare import TrialResults
from unlearn.trials.request import TrialRequest

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
    assert influence.main([store, "--pictures", "0"]) == 0
    assert fidelity.main([store]) == 0
    assert status.main([store]) == 0
    save_file(build_network("mlp-32", (1, 8, 8), 10, 0).state_dict(), folder / "own.safetensors")
    ids = Store.open(store).examples()["id"].to_pylist()[:200:2]
    (folder / "members.txt").write_text("\n".join(ids))
    model = (
        f"--model {folder}/own.safetensors --arch mlp-32 --members {folder}/members.txt --out {folder}/audit.parquet"
    )
    assert attack.main([store, *model.split()]) == 0
    forget = f"--forget {SCORE}:high --size 20 --pool serial"
    variants = f"--algorithms finetune --variants vanilla rum --scores {SCORE} --budget 1 --seeds 2 --tune-seeds 1"
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
    names = (("original>finetune>salun", f"rum-reversed {SCORE}"), ("finetune", "vanilla"))
    rows = [row | {"forget_set": "union of 12"} for pair in names for row in tiny.make_rows(*pair, **values)]
    claim = "nothing, fine-tuning, SalUn has a higher ToW than RUM^F of finetune, mean of the paper's algorithms"
    claims = [judge_claim(claim, "CIFAR-10 .937 and .942", Interval(value=0.1234, lo=-0.0123, hi=0.2591))]
    print_experiment(Console(), entry, ExperimentResult(results={"union": rows}, claims=claims), "here")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Every table that the commands print, and the places in the code that made them."""
    printed, places = [], set()
    make, render = NumberTable.__init__, NumberTable.__rich_console__

    def note_place(self, title):
        frame = sys._getframe(2)  # of whoever called make_table
        places.add((str(Path(frame.f_code.co_filename).relative_to(ROOT)), frame.f_lineno))
        make(self, title)

    def note_table(self, *terminal):
        printed.append(self)
        return render(self, *terminal)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NumberTable, "__init__", note_place)
        patch.setattr(NumberTable, "__rich_console__", note_table)
        run_commands(tmp_path_factory.mktemp("tables"))
        print_copies(tmp_path_factory.mktemp("copies"))
        print_trials()
        print_an_experiment()
    return printed, places


def test_every_place_that_makes_a_table_was_reached(tables):
    _, places = tables
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
    printed, _ = tables
    assert len(printed) > 20
    for table in printed:
        wide = numbers(table, WIDE)
        cut = wide - numbers(table, width)
        assert not cut, f"{table.title!r} at {width} columns lacks {dict(cut)}"


def test_columns_that_do_not_fit_stand_below_with_the_names_of_their_rows():
    table = make_table("title", ("", "variant", *(f"measure_{i}" for i in range(9))))
    table.add_row("finetune", "rum memorization", *(f"0.{i}23 ±0.{i}45" for i in range(9)))
    text = io.StringIO()
    Console(file=text, width=60).print(table)
    lines = text.getvalue().splitlines()
    rows = [line for line in lines if "±" in line]
    assert len(rows) > 2
    assert all(line.split()[0] == "finetune" for line in rows)
    assert text.getvalue().count("title") == 1
    assert max(map(len, lines)) <= 60


def test_a_table_that_fits_is_as_rich_makes_it():
    table = make_table("title", ("name", "value"))
    table.add_row("a", "0.5 [0.4, 0.6]")
    text = io.StringIO()
    Console(file=text, width=60).print(table)
    assert [line.rstrip() for line in text.getvalue().splitlines()] == [
        "title",
        "",
        " name            value",
        " ─────────────────────",
        " a      0.5 [0.4, 0.6]",
        "",
    ]
