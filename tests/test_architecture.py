"""The walls: which room may import which, and where a pickle, a process or a print may stand. Read from the source."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("memscore", "unlearn", "cluster")
MAY_ENTER = {"memscore": {"memscore"}, "unlearn": {"unlearn", "memscore"}, "cluster": {"cluster", "ray"}}
DOORS = {
    *(
        f"memscore/{name}.py"
        for name in ("estimate", "attack", "fidelity", "status", "bank", "influence", "submit", "__main__")
    ),
    *(f"unlearn/{name}.py" for name in ("sweep", "experiment", "trial", "audit")),
}
WITHOUT_RAY = {"cluster/__init__.py", "cluster/pool.py", "cluster/search_space.py", "cluster/search.py"}
DOOR_LINES = 80


def source_files():
    return sorted(path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported(path):
    """Every module a file imports, lazy imports inside functions included."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the whole path"
            yield node.module


def called(path):
    """Dotted names of every call in a file."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", source_files(), ids=str)
def test_a_file_imports_only_from_rooms_it_may_enter(path):
    room = path.parts[0]
    allowed = MAY_ENTER[room] | ({"cluster"} if path.as_posix() in DOORS else set())
    if path.as_posix() in WITHOUT_RAY:
        allowed = allowed - {"ray"}
    entered = {name.split(".")[0] for name in imported(path)} & {*ROOMS, "ray"}
    assert entered <= allowed, f"{path} imports {sorted(entered - allowed)}; it may enter {sorted(allowed)} only"


def test_ray_tune_stands_in_one_file():
    found = {path.as_posix() for path in source_files() for name in imported(path) if name.startswith("ray.tune")}
    assert found == {"cluster/ray_tune.py"}


@pytest.mark.parametrize("path", sorted(p for p in source_files() if p.as_posix() in DOORS), ids=str)
def test_a_door_is_short_and_defines_no_class(path):
    text = (ROOT / path).read_text()
    assert len(text.splitlines()) <= DOOR_LINES
    assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(ast.parse(text)))


def test_every_door_that_is_there_is_known_as_one():
    with_main = {p.as_posix() for p in source_files() if '__name__ == "__main__"' in (ROOT / p).read_text()}
    assert with_main <= DOORS


def test_cluster_itself_imports_nothing():
    assert list(imported(Path("cluster/__init__.py"))) == []


@pytest.mark.parametrize("path", source_files(), ids=str)
def test_no_weights_come_out_of_a_pickle(path):
    for name, node in called(path):
        assert name not in {"pickle.load", "torch.load", "joblib.load"}, f"{path}:{node.lineno} reads a pickle"
        if name.endswith("np.load"):
            assert any(k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords)


@pytest.mark.parametrize("path", [p for p in source_files() if p.parts[0] != "cluster"], ids=str)
def test_weights_change_only_where_training_is(path):
    places = {
        "memscore/training/loop.py",
        "memscore/training/stacked_mlp.py",
        "memscore/training/cuda_graphs.py",
        "unlearn/optimization/loop.py",
    }
    if path.as_posix() in places or "algorithms" in path.parts:
        return
    steps = [node.lineno for name, node in called(path) if name.endswith((".backward", "optimizer.step"))]
    assert not steps, f"{path} takes a gradient step on lines {steps}; weights change only in {sorted(places)}"


@pytest.mark.parametrize("path", source_files(), ids=str)
def test_random_streams_are_derived_never_global(path):
    for name, node in called(path):
        assert not name.startswith(("np.random.seed", "random.seed", "torch.manual_seed")), f"{path}:{node.lineno}"


def test_the_wheel_holds_the_three_rooms_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == [f"{room}*" for room in ROOMS]


def test_every_dependency_says_what_it_is_for():
    lines = (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("\n]")[0].strip().splitlines()
    assert len(lines) > 10
    assert all("#" in line for line in lines)
