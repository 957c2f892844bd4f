"""README and docs are true: blocks run, commands parse, and links, files, names, columns and tables exist."""

import contextlib
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import tyro

from benchmarks import experiments, unlearning_tables
from cluster.launch import PoolOptions
from cluster.submission import DASHBOARD
from memscore import attack, bank, banks, estimate, fidelity, influence, status, submit
from memscore.data.datasets import NAMED_DATASETS
from memscore.data.published_folders import PUBLISHED_FOLDERS
from memscore.pipeline.config import BankConfig, build_designs, build_manifest, load_splits
from memscore.report import __main__ as report
from memscore.store.manifest import build_default_url
from memscore.store.store import Store
from unlearn import experiment, sweep, trial
from unlearn.experiments.registry import EXPERIMENTS
from unlearn.tuning.config import SELECTIONS
from unlearn.tuning.methods import VARIANTS

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
]
DOCUMENTS = {name: (ROOT / name).read_text() for name in PAGES}
GUIDES = {name: text for name, text in DOCUMENTS.items() if name not in {"CONTRIBUTING.md", "CHANGELOG.md"}}
"""The pages for users: every Python block in them is run."""
DOCS = "\n".join(GUIDES.values())
LIMITS = {"README.md": 10_240, "CONTRIBUTING.md": 6_144}
"""Bytes that a page may have."""
FENCE = re.compile(r"^(<!-- run -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOP_FOLDERS = ("memscore/", "unlearn/", "cluster/", "tests/", "benchmarks/", "docs/", ".ci/")
NOT_THERE_WITHOUT_A_NETWORK = {"fashion-mnist", "cifar10", "./my-images"}


def blocks(text, language):
    """(marked to be run, content) of each fenced block in a language."""
    return [(bool(mark), code) for mark, found, code in FENCE.findall(text) if found == language]


@cache
def all_blocks(language, *, marked=None):
    """Every block of the users' pages in a language, once; marked: only those that are marked to be run, or are not."""
    found = [(mark, code) for text in GUIDES.values() for mark, code in blocks(text, language)]
    return tuple(dict.fromkeys(code for mark, code in found if marked in (None, mark)))


def python_block(containing):
    [code] = [code for code in all_blocks("python") if containing in code]
    return code


def write_modules():
    """Write the blocks that begin with a file's name as modules, as a user would."""
    for code in all_blocks("python"):
        if name := re.match(r"# (\w+\.py)\n", code):
            Path(name[1]).write_text(code)


@cache
def sh_lines():
    return [line for text in DOCUMENTS.values() for _, code in blocks(text, "sh") for line in code.splitlines()]


def table(first_header):
    """Cells of the table whose first column has this header, on whatever page, without the two head lines."""
    _, after = DOCS.split(f"\n| {first_header} |")
    lines = [line for line in after.split("\n\n", 1)[0].splitlines()[2:] if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]


@cache
def quoted(text):
    """Everything between backticks, fenced blocks left out."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def run(code):
    names = {"__name__": "docs"}
    exec(compile(code, "docs", "exec"), names)
    return names


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A user's home with the bank that the pages read: 16 models of 200 digits."""
    folder = tmp_path_factory.mktemp("home")
    small = {"train_limit": 200, "epochs": 2, "design": "exact", "block": 8, "models": 16}
    small |= {"proxies": ("all", "holdout-test"), "inversion_candidates": 8, "inversion_iterations": 2}
    config = BankConfig(store=str(folder / "memscore" / "digits"), **small)
    assert estimate.estimate_bank(config, PoolOptions(pool="serial")) == 0
    assert influence.main([str(folder / "memscore" / "digits")]) == 0
    return folder


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MEMSCORE_HOME", str(home / "memscore"))
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(home)


def test_the_fences_are_all_understood():
    for name, text in DOCUMENTS.items():
        assert text.count("```") == 2 * len(FENCE.findall(text)), name
        assert text.count("<!-- run -->") == sum(bool(mark) for mark, _, _ in FENCE.findall(text)), name
    for name, text in GUIDES.items():
        assert all(marked for marked, _ in blocks(text, "python")), name


@pytest.mark.parametrize("code", all_blocks("python", marked=True), ids=lambda code: code[:30].strip())
def test_a_python_block_runs_as_it_stands(code, capsys):
    write_modules()
    run(code)
    assert capsys.readouterr().out or "def " in code or "np.save" in code


SIGNS = {
    "memscore.report": ("page ",),
    "memscore.status": ("whole blocks",),
    "memscore.banks": ("1 bank in ",),
    "memscore.bank": (" 0 damaged", "RMSE of memorization", "the highest ", "became memorized"),
    "memscore.estimate": ("scores    one row per example",),
    "memscore.influence": ("strong ",),
    "memscore.attack": ("LiRA online",),
    "memscore.fidelity": ("proxies of ",),
    "unlearn.trial": ("oracle ",),
    "unlearn.sweep": ("every trial and what was chosen", "nothing was trained or written"),
}
"""What the marked commands say."""


@pytest.mark.parametrize("code", all_blocks("sh", marked=True), ids=str.strip)
def test_a_marked_shell_block_runs_as_it_stands(code, capsys):
    """In this process: to import torch once more for each takes longer than the commands."""
    write_modules()
    for made in ("masks.npy", "target.safetensors"):
        if made in code:
            run(python_block(made))
    for line in code.replace("\\\n", " ").splitlines():
        python, m, name, *words = shlex.split(line)
        assert (python, m) == ("python", "-m")
        door = importlib.import_module(name)
        if not hasattr(door, "main"):  # a command of several files is a package
            door = importlib.import_module(f"{name}.__main__")
        assert 'if __name__ == "__main__":\n    sys.exit(main())' in Path(door.__file__).read_text()
        assert door.main([os.path.expanduser(word) for word in words]) == 0
        said = capsys.readouterr().out
        assert any(sign in said for sign in SIGNS[name]), said


def test_a_command_of_the_pages_runs_in_a_shell():
    """The one that imports least; the others are called in this process."""
    [code] = [
        code
        for code in all_blocks("sh", marked=True)
        if code.startswith("python -m memscore.status") and code.count("\n") == 1
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", code], capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stderr
    assert SIGNS["memscore.status"][0] in done.stdout


def test_duckdb_pandas_and_polars_name_the_same_five():
    columns = ["id", "label", "memorization_k0.500"]
    from_duckdb = run(python_block("select id"))["top"].fetchall()
    from_pandas = run(python_block("scores.nlargest"))["top"]
    from_polars = run(python_block("scores.sort"))["top"]
    assert isinstance(from_pandas, pd.DataFrame)
    assert isinstance(from_polars, pl.DataFrame)
    assert len(from_duckdb) == 5
    assert from_duckdb == list(from_pandas[columns].itertuples(index=False, name=None))
    assert from_duckdb == from_polars.select(columns).rows()


def test_duckdb_and_the_store_name_the_same_influences(home):
    rows = run(python_block("/influence/"))["strongest"].fetchall()
    table = Store.open(str(home / "memscore" / "digits")).read_influence("test_k0.500").to_pandas()
    order = table.sort_values(["influence", "test_row", "train_row"], ascending=[False, True, True])
    best = order[order["memorization"] >= 0.25].head(5)
    columns = ["test_id", "train_id", "influence", "se", "memorization"]
    assert rows == list(best[columns].itertuples(index=False, name=None))
    assert len(rows) == 5


def test_memorization_made_again_from_the_shards_is_the_score(home):
    rows = run(python_block("/shards/"))["again"].fetchall()
    store = Store.open(str(home / "memscore" / "digits"))
    known = store.read_score("memorization_k0.500")["memorization_k0.500"].to_numpy()
    again = np.array([value for _, value in rows], float)
    assert [row for row, _ in rows] == list(range(store.manifest.split_sizes[0]))
    assert not np.isnan(again).any()
    np.testing.assert_allclose(again, known, rtol=1e-10, atol=1e-15)


def test_the_store_turns_the_c_score(home):
    names = run(python_block("ids, values"))
    column = Store.open(str(home / "memscore" / "digits")).read_score("cscore_k0.500")["cscore_k0.500"].to_numpy()
    np.testing.assert_array_equal(names["values"], -column)


@pytest.fixture
def parsed(monkeypatch):
    """The plan that a command line of estimate ends in, nothing trained."""

    class Parsed(Exception):
        pass

    def stop(plan, **_):
        raise Parsed(plan)

    def parse(arguments):
        with pytest.raises(Parsed) as caught:
            tyro.cli(estimate.estimate_bank, args=arguments)
        return caught.value.args[0]

    monkeypatch.setattr("memscore.pipeline.runner.prepare_bank", stop)
    return parse


@pytest.fixture(scope="module")
def written_data(home):
    """The data that the pages write, in the user's home."""
    with contextlib.chdir(home):
        write_modules()
        run(python_block("savez"))
        run(python_block("photos"))


SUBMIT = "python -m memscore.submit -- "


@pytest.mark.parametrize("line", [line.removeprefix(SUBMIT) for line in sh_lines() if "memscore.estimate" in line])
def test_an_estimate_command_asks_for_what_can_be(line, parsed, written_data):
    """Flags and values are known, the count is whole blocks, and where the data are at hand, so is all the rest."""
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "memscore.estimate"]
    plan = parsed(words[3:])
    build_designs(plan)
    if plan.data not in NOT_THERE_WITHOUT_A_NETWORK:
        # a stored bank would be read, at an address that is an example, and so would a file of another command
        plan = replace(plan, store=None, without=())
        build_manifest(plan, load_splits(plan), build_designs(plan)[0])


class Prepared(Exception):
    """Has the configuration that a command line of an experiment ends in."""


@pytest.mark.parametrize("line", [line for line in sh_lines() if "memscore.estimate" not in line])
def test_any_other_command_is_one_that_is_there(line, monkeypatch):
    def stop(config, **options):
        raise Prepared(config)

    monkeypatch.setattr("unlearn.experiments.prepare.prepare_experiment", stop)
    words = shlex.split(line)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(f"\n{target}:" in makefile for target in words[1:])
    elif words[0] == "export":
        assert f'"{words[1].split("=")[0]}"' in Path(inspect.getsourcefile(build_default_url)).read_text()
    elif words[0] == "source":
        assert f"VENV := {words[1].split('/')[0]}\n" in (ROOT / "Makefile").read_text()
        assert words[1] == ".venv/bin/activate"
    elif words[0] == "bash":
        assert f"{words[2]})" in (ROOT / words[1]).read_text()
    elif words[0] == "ssh":
        assert words[3] == f"8265:{DASHBOARD.removeprefix('http://')}"
    elif words[:2] == ["python", "-m"]:
        if words[2] == "pytest":
            assert all((ROOT / path).exists() for path in words[3:])
        elif (
            words[2] == "unlearn.experiment"
        ):  # each is a study of hours: its options are checked, its bank is not there
            assert words[words.index("--preset") + 1] in {"small", "paper"}
            with pytest.raises(Prepared) as caught:
                tyro.cli(experiment.run_experiment, args=words[3:])
            assert caught.value.args[0].name in EXPERIMENTS
        else:
            assert any(line in code for code in all_blocks("sh", marked=True)), f"{line!r} is not run"
    else:
        assert words == ["pip", "install", "."]


def test_every_flag_in_the_text_is_one_of_help(capsys):
    """Of all options that a page names; ray's own command has one."""
    known = "--working-dir"
    doors = [lambda command=command: bank.main([command, "--help"]) for command in ("verify", "duplicates", "import")]
    doors += [lambda: banks.main(["--help"]), lambda: banks.main(["remove", "--help"])]
    doors += [lambda: status.main(["--help"]), lambda: influence.main(["--help"])]
    doors += [lambda: estimate.main(["--help"]), lambda: report.main(["--help"])]
    doors += [lambda: submit.main(["--help"]), lambda: trial.main(["--help"]), lambda: sweep.main(["--help"])]
    doors += [
        lambda: experiment.main(["--help"]),
        lambda: attack.main(["--help"]),
        lambda: fidelity.main(["--help"]),
    ]
    for show in doors:
        with pytest.raises(SystemExit):
            show()
        known += capsys.readouterr().out
    flags = {flag for text in quoted(DOCS) for flag in re.findall(r"(?<!\S)--[a-z][a-z-]+", text)}
    assert len(flags) > 3
    assert flags <= set(re.findall(r"--[a-z][a-z-]+", known))


@cache
def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_no_relative_link_is_dead():
    """Of links to files and of their anchors; none leads out of the repository."""
    links = [
        (name, link) for name, text in DOCUMENTS.items() for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text))
    ]
    for name, link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.is_relative_to(ROOT), f"{name} links to {link}, which is no part of the repository"
        assert target.exists(), f"{name} links to {link}, which does not exist"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{name} links to {link}, which has no such heading"


@pytest.mark.parametrize("name", LIMITS)
def test_a_page_is_short(name):
    assert (ROOT / name).stat().st_size <= LIMITS[name]


def test_every_test_that_a_page_names_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCS)
    assert named
    for path, name in named:
        assert f"\ndef {name}(" in (ROOT / path).read_text(), f"there is no {name} in {path}"


def test_every_page_is_linked_from_another():
    linked = set()
    for name, text in DOCUMENTS.items():
        for link in re.findall(r"\]\(([^)#\s]+)", FENCE.sub("", text)):
            if "://" not in link:
                linked.add(((ROOT / name).parent / link).resolve())
    lost = [name for name in DOCUMENTS if name != "README.md" and (ROOT / name).resolve() not in linked]
    assert not lost


def test_every_file_in_the_text_is_there():
    everywhere = {path.name for folder in TOP_FOLDERS[:4] for path in (ROOT / folder).rglob("*.py")}
    for name, page in DOCUMENTS.items():
        for text in quoted(page):
            if text.startswith(TOP_FOLDERS):
                assert (ROOT / text.partition("::")[0]).exists(), f"{name} names {text}, which does not exist"
            elif re.fullmatch(r"\w+\.py", text):
                assert text in everywhere, f"{name} names {text}, which does not exist"


def test_every_public_name_is_there():
    names = [text for text in quoted(DOCS) if re.fullmatch(r"(memscore|unlearn|cluster)(\.[A-Za-z_]\w*)+", text)]
    assert len(names) >= 10
    for name in names:
        module, _, last = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), last, None)), f"a page names {name}"


def test_every_column_is_explained_and_points_where_the_readme_says(home):
    """The sign of the table is the direction in the field; any other column is an ending of an explained one."""
    schema = pq.read_schema(home / "memscore" / "digits" / "scores.parquet")
    said = {quoted(cells[0])[0]: cells[2] for cells in table("column")}
    signs = {"+": 1, "-": -1}
    for name, up in said.items():
        if name in schema.names:  # others need options that the bank does not have
            assert signs[up] == int(schema.field(name).metadata[b"direction"]), name
    assert len(set(said) & set(schema.names)) > 20
    examples = set(quoted(DOCS.split("Before the scores stand ")[1].split("\n\n")[0]))
    assert examples <= set(schema.names)
    endings = [text for text in quoted(DOCS.split("Endings:")[1].split("\n\n")[0]) if text.startswith("_")]
    explained = {name + ending for name in said for ending in endings} | set(said)
    assert set(schema.names) <= explained | examples


def test_the_names_of_data_sets_are_those_of_the_code():
    names = {*NAMED_DATASETS, *PUBLISHED_FOLDERS}
    assert names == set(quoted(DOCS.split("- **Names**: ")[1].split("All but")[0]))
    assert names == {quoted(cells[0])[0] for cells in table("read by name")}


def test_the_tables_of_variants_and_selections_are_those_of_the_code():
    assert [quoted(cells[0]) for cells in table("variant")] == [[name] for name in VARIANTS]
    assert [quoted(cells[0]) for cells in table("selection")] == [[name] for name in SELECTIONS]


def test_the_table_of_experiments_is_that_of_the_code():
    said = {quoted(cells[0])[0]: cells[1:] for cells in table("experiment")}
    assert said == {name: [entry.source, entry.question] for name, entry in EXPERIMENTS.items()}


def results():
    """Page, name of the results and cell of every number that is marked as one of a benchmark."""
    for page, text in DOCUMENTS.items():
        for name, cell in re.findall(r"<!-- results:(\w+) -->([^|]*)\|", text):
            yield page, name, cell.strip()


def test_a_result_has_its_script_and_its_file():
    marked = list(results())
    assert len({name for _, name, _ in marked}) >= 20
    for page, name, _ in marked:
        scripts = [ROOT / "benchmarks" / f"{stem}.py" for stem in (name, name.rpartition("_")[0])]  # one for many data
        assert any(script.exists() for script in scripts), f"{page} has results of {name}, which is no script"
        assert (ROOT / "benchmarks" / "results" / f"{name}.json").exists(), f"{page}: {name} was not measured"


def test_a_marked_cell_holds_one_number():
    for page, name, cell in results():
        assert re.fullmatch(r"[-+]?(\d{1,3}(,\d{3})+|\d*\.?\d+)( %)?", cell), f"{page}, {name}: {cell!r}"


def test_every_file_of_results_is_on_a_page():
    written = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert written - {"unlearning_cnn_many"} <= {name for _, name, _ in results()}


def test_the_pages_of_results_are_what_the_scripts_write(tmp_path, monkeypatch):
    monkeypatch.setattr(unlearning_tables, "PAGE", tmp_path / "unlearning.md")
    unlearning_tables.main()
    assert (tmp_path / "unlearning.md").read_text() == DOCUMENTS["docs/results/unlearning.md"]
    records = experiments.earlier().values()
    every = sorted(records, key=lambda record: (list(EXPERIMENTS).index(record["experiment"]), record["bank"]))
    parts = (experiments.trends(every), experiments.of_tables(), experiments.of_proxies(), experiments.contents(every))
    text = "\n".join([experiments.TOP, *(line for part in parts for line in part)]) + "\n"
    assert text == DOCUMENTS["docs/results/experiments.md"]


@pytest.mark.parametrize(
    ("memscore_home", "arguments", "store"),
    [
        ("/data/banks", "", "/data/banks/digits"),
        ("/data/banks/", "--models 64", "/data/banks/digits"),
        ("s3://bucket/banks?region=x", "", "s3://bucket/banks/digits?region=x"),
        ("", "", "/home/ann/memscore/digits"),
        ("", "--store /data/mine", "/data/mine"),
        ("", "--data fashion-mnist", ""),
    ],
)
def test_make_run_writes_the_store_that_the_pages_name(memscore_home, arguments, store):
    environment = {**os.environ, "HOME": "/home/ann", "MEMSCORE_HOME": memscore_home}
    command = ["make", "--dry-run", "--assume-old=.venv/.done", "run", f"ARGS={arguments}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    [words] = [shlex.split(line) for line in done.stdout.splitlines() if "memscore.estimate" in line]
    assert words[1:3] == ["-m", "memscore.estimate"]
    given = [words[i + 1] for i, word in enumerate(words) if word == "--store"]
    assert given == ([store] if store else [])
