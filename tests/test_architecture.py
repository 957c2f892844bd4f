"""The import rules, and where weights, generators, pickles, commands and classes may stand. Read from the source."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("memscore", "unlearn", "cluster")
COMMANDS = {
    *(
        f"memscore/{name}.py"
        for name in ("estimate", "attack", "fidelity", "status", "bank", "banks", "influence", "submit", "list")
    ),
    "memscore/report/__main__.py",
    *(f"unlearn/{name}.py" for name in ("sweep", "experiment", "trial", "list")),
}
MAY_HAVE_MAIN = COMMANDS | {f"{folder}/__main__.py" for folder in ("memscore", "memscore/report", "unlearn")}
LEVELS = (
    ("memscore/choices.py",),
    ("memscore/units.py",),
    ("memscore/reading_limit.py",),
    ("memscore/visible_text.py",),
    (
        "memscore/cli",
        "memscore/seeds.py",
        "memscore/user_functions.py",
        "memscore/score_registry.py",
    ),
    ("memscore/statistics", "memscore/data", "memscore/store", "memscore/models"),
    ("memscore/estimators", "memscore/training", "memscore/subsets", "memscore/plots"),
    ("memscore/proxies",),
    ("memscore/pipeline",),
    ("memscore/analysis", "memscore/monitoring"),
    ("memscore/tables",),
    ("memscore/report",),
    ("unlearn/problem.py", "unlearn/oracles.py", "unlearn/search_space.py", "unlearn/class_arguments.py"),
    ("unlearn/optimization", "unlearn/data_changes.py"),
    ("unlearn/algorithms", "unlearn/measures", "unlearn/meta"),
    ("unlearn/forget_sets.py",),
    ("unlearn/trials",),
    ("unlearn/tuning", "unlearn/difficulty"),
    ("unlearn/experiments",),
)
"""Packages and the modules beside them, the lowest level first; each imports only itself and lower levels."""

FOR_EVERYBODY = {
    *("cluster/device_errors.py", "cluster/leftovers.py", "cluster/pool.py", "cluster/search_space.py"),
}
"""What memscore and unlearn may import of cluster; only commands import the rest."""

WITHOUT_RAY = FOR_EVERYBODY | {
    *("cluster/__init__.py", "cluster/search.py", "cluster/auto_pool.py", "cluster/auto_search.py"),
}

WEIGHTS_CHANGE_IN = ("memscore/training/", "unlearn/optimization/", "unlearn/algorithms/")
SEEDS_A_GLOBAL_GENERATOR = (
    *("random.seed", "manual_seed", "manual_seed_all", "torch.seed"),
    *("set_rng_state", "set_state", "setstate", "set_bit_generator"),
)
RESTORES_GLOBAL_GENERATORS = "memscore/models/random_state.py"
"""Seeds all of them for one network and restores them; test_random_state.py tests that."""

WRITES_OWN_TEXT = {
    "memscore/cli/program.py",
    "memscore/cli/command_line.py",
    "memscore/cli/name_list.py",
    "memscore/tables/console.py",
}
"""Print help, versions and names of this program, nothing that was read; console.py escapes what it prints."""


@cache
def source_files(*, with_cluster=True):
    """Every file of the product. A test checks all of them: one test for each file takes longer than the check."""
    packages = [name for name in PACKAGES if with_cluster or name != "cluster"]
    return sorted(path.relative_to(ROOT).as_posix() for name in packages for path in (ROOT / name).rglob("*.py"))


@cache
def read_tree(path):
    return ast.parse((ROOT / path).read_text())


@cache
def walk_file(path):
    return list(ast.walk(read_tree(path)))


@cache
def find_imports(path):
    """Every module a file imports, imports inside functions included."""
    return list(iterate_imports(path))


def iterate_imports(path):
    for node in walk_file(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the whole path"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if file_of_module(full) else node.module


@cache
def file_of_module(module):
    """The product's file with this dotted name, or None."""
    stem = module.replace(".", "/")
    return next((name for name in (f"{stem}.py", f"{stem}/__init__.py") if (ROOT / name).is_file()), None)


@cache
def find_imported_files(path):
    return {
        name for module in find_imports(path) if (name := file_of_module(module)) and name.split("/")[0] in PACKAGES
    }


@cache
def find_calls(path):
    """Dotted name and node of every call in a file."""
    return [(ast.unparse(node.func), node) for node in walk_file(path) if isinstance(node, ast.Call)]


def test_what_is_written_for_the_user_has_its_control_characters_escaped():
    raw = {
        f"{path}: {ast.unparse(node)}"
        for path in source_files()
        if not path.startswith("cluster/") and path not in WRITES_OWN_TEXT
        for name, node in find_calls(path)
        if name in {"print", "sys.stdout.write", "sys.stderr.write", "console.print"}
        and not re.search(
            r"\bescape_controls|\(dumps\(|\.print\((table|examples|scores|tails|same_models)?\)$", ast.unparse(node)
        )
    }
    assert not raw, "use memscore.visible_text.write_line, or tables.console.print_line"


def find_unit(path):
    """The package or module of LEVELS that a file belongs to: its first two parts."""
    return "/".join(path.split("/")[:2])


def find_level(path):
    return next((number for number, units in enumerate(LEVELS, start=1) if find_unit(path) in units), None)


def is_above_the_levels(path):
    """Commands, lists of commands, and the packages' own __init__."""
    return path in MAY_HAVE_MAIN or path in {"memscore/__init__.py", "unlearn/__init__.py"}


def test_a_file_has_a_level_and_imports_only_from_lower_ones():
    for path in source_files(with_cluster=False):
        if is_above_the_levels(path):
            continue
        level = find_level(path)
        assert level, f"{find_unit(path)} has no level; give it one in LEVELS"
        for imported in find_imported_files(path):
            if imported.startswith("cluster/") or find_unit(imported) == find_unit(path):
                continue
            assert not is_above_the_levels(imported), f"{path} imports the command {imported}"
            of_imported = find_level(imported)
            assert of_imported < level, f"{path} (level {level}) imports {imported} (level {of_imported})"


def test_no_two_files_import_each_other_in_a_circle():
    graph = {path: find_imported_files(path) - {path} for path in source_files() if not path.endswith("__init__.py")}
    while leaves := {path for path, imported in graph.items() if not imported & graph.keys()}:
        graph = {path: imported for path, imported in graph.items() if path not in leaves}
    assert not graph, f"files that import each other, or one that does: {sorted(graph)}"


def test_every_level_names_what_exists():
    units = {find_unit(path) for path in source_files()}
    assert {unit for level in LEVELS for unit in level} <= units
    assert len([unit for level in LEVELS for unit in level]) == len({unit for level in LEVELS for unit in level})


def test_memscore_never_imports_unlearn_and_cluster_imports_neither():
    allowed_in = {"memscore": {"memscore", "cluster"}, "unlearn": set(PACKAGES), "cluster": {"cluster"}}
    for path in source_files():
        allowed = allowed_in[path.split("/")[0]]
        imported = {name.split("/")[0] for name in find_imported_files(path)}
        assert imported <= allowed, f"{path} imports {sorted(imported - allowed)}; it may import {sorted(allowed)} only"


def test_only_commands_import_more_of_cluster_than_what_is_for_everybody():
    for path in source_files(with_cluster=False):
        imported = {name for name in find_imported_files(path) if name.startswith("cluster/")}
        assert path in COMMANDS or imported <= FOR_EVERYBODY, f"{path} imports {sorted(imported - FOR_EVERYBODY)}"


def test_ray_is_imported_only_under_cluster():
    with_ray = {path for path in source_files() if any(name.split(".")[0] == "ray" for name in find_imports(path))}
    assert with_ray, "cluster imports it"
    assert not {path for path in with_ray if not path.startswith("cluster/") or path in WITHOUT_RAY}


def test_ray_tune_stands_in_one_file():
    assert {path for path in source_files() for name in find_imports(path) if name.startswith("ray.tune")} == {
        "cluster/tune/tune_search.py"
    }


def test_cluster_itself_imports_nothing():
    assert find_imports("cluster/__init__.py") == []


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_a_command_defines_no_class(path):
    """What a command defines lives in `__main__`, where no worker can find it."""
    assert not any(isinstance(node, ast.ClassDef) for node in walk_file(path))


def test_help_of_a_command_waits_for_no_slow_import():
    """Importing torch, SciPy's statistics or matplotlib takes seconds; a command does so inside its function."""
    modules = ", ".join(sorted(path.removesuffix(".py").replace("/", ".") for path in COMMANDS))
    slow = ("torch", "scipy.stats", "matplotlib", "sklearn", "pandas", "ray", "optuna")
    code = f"import sys, {modules}; print([name for name in {slow} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_only_commands_can_be_run():
    with_main = {path for path in source_files() if '__name__ == "__main__"' in (ROOT / path).read_text()}
    assert with_main | {path for path in source_files() if path.endswith("__main__.py")} <= MAY_HAVE_MAIN
    assert with_main >= COMMANDS


@pytest.mark.parametrize("name", ["pickle.load", "joblib.load"])
def test_no_pickle_is_read(name):
    assert not [
        f"{path}:{node.lineno}" for path in source_files() for called, node in find_calls(path) if called == name
    ]


def test_nothing_is_loaded_that_could_run_code():
    loads = [
        (path, name, node)
        for path in source_files()
        for name, node in find_calls(path)
        if name == "torch.load" or name.endswith("np.load")
    ]
    assert loads
    for path, name, node in loads:
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", f"{path}:{node.lineno} loads without weights_only=True"
        if name.endswith("np.load"):
            assert keywords.get("allow_pickle") == "False", f"{path}:{node.lineno} loads without allow_pickle=False"


def test_weights_change_only_in_training_optimization_and_algorithms():
    steps = [
        f"{path}:{node.lineno}"
        for path in source_files(with_cluster=False)
        for name, node in find_calls(path)
        if name.endswith((".backward", "optimizer.step"))
    ]
    assert steps
    elsewhere = [step for step in steps if not step.startswith(WEIGHTS_CHANGE_IN)]
    assert not elsewhere, f"{elsewhere} take a gradient step; weights change only in {WEIGHTS_CHANGE_IN}"


def test_no_optimizer_of_torch_is_built():
    built = [f"{path}:{node.lineno}" for path in source_files() for name, node in find_calls(path) if "optim." in name]
    assert not built, f"{built} import torch's compiler, for .8 s; use training/optimizers.py"


def forks_generators(node):
    return isinstance(node, ast.With) and any(
        ast.unparse(item.context_expr).split("(")[0].endswith("fork_rng") for item in node.items
    )


def find_global_seeds(tree):
    """Lines that seed a global generator outside of `with fork_rng(...)` and of functions nested beside one."""
    inside = set()
    for node in ast.walk(tree):
        if forks_generators(node):
            inside |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.FunctionDef) and any(forks_generators(inner) for inner in ast.walk(node)):
            nested = [inner for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef) and inner is not node]
            inside |= {id(inner) for function in nested for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and id(node) not in inside:
            name = ast.unparse(node.func)
            is_global = name.startswith(("np.", "numpy.", "random.", "torch.")) and "Generator(" not in name
            if is_global and name.endswith(SEEDS_A_GLOBAL_GENERATOR):
                yield node.lineno


def test_a_global_generator_is_seeded_only_inside_fork_rng():
    assert list(find_global_seeds(read_tree(RESTORES_GLOBAL_GENERATORS)))
    for path in source_files():
        lines = list(find_global_seeds(read_tree(path)))
        assert path == RESTORES_GLOBAL_GENERATORS or not lines, (
            f"{path} seeds a global generator on lines {lines}; use `with seed_generators(...)` of "
            f"{RESTORES_GLOBAL_GENERATORS}, or `with torch.random.fork_rng(...)`"
        )


def test_seeds_for_one_network_are_contexts_that_end():
    for path in source_files():
        contexts = {
            id(item.context_expr) for node in walk_file(path) if isinstance(node, ast.With) for item in node.items
        }
        for name, node in find_calls(path):
            if name.endswith(("seed_generators", "restore_generators")):
                assert id(node) in contexts, f"{path}:{node.lineno} seeds generators outside of a `with`"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("torch.manual_seed(0)", [1]),
        ("np.random.seed(0)\nrandom.seed(1)", [1, 2]),
        ("with torch.random.fork_rng(devices=[]):\n    torch.manual_seed(0)", []),
        ("np.random.set_state(a)\nrandom.setstate(b)\ntorch.default_generator.set_state(c)", [1, 2, 3]),
        ("torch.Generator().manual_seed(0)", []),
        ("def run():\n    torch.manual_seed(0)\n    with fork_rng():\n        pass", [2]),
        ("def run():\n    def step():\n        torch.manual_seed(0)\n    with fork_rng():\n        step()", []),
    ],
)
def test_a_global_seed_is_found_unless_it_is_forked(code, lines):
    assert list(find_global_seeds(ast.parse(code))) == lines


def test_the_wheel_holds_the_three_packages_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == [f"{name}*" for name in PACKAGES]


def test_every_dependency_says_what_it_is_for():
    lines = (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("\n]")[0].strip().splitlines()
    assert len(lines) > 10
    assert all("#" in line for line in lines)
