"""Files that a submitted command names and that do not go along with it."""

import pytest

from cluster.needed_files import require_needed_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with data, modules and lists, of which nothing is ignored yet."""
    project = tmp_path / "my project"
    for name in (
        "mine.npz",
        "ids.txt",
        "nets/own.py",
        "nets/__init__.py",
        "images/cat/1.png",
        "runs/bank/manifest.json",
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x = 1\n")
    (project / "mine.py").write_text("import numpy\nfrom nets.own import x\n")
    (tmp_path / "beside.npz").write_text("x")
    monkeypatch.chdir(project)
    return project


COMMANDS = {
    "python -m memscore.estimate --data ./mine.npz": ("*.npz", "mine.npz"),
    "python -m memscore.estimate --data=mine.npz": ("*.npz", "mine.npz"),
    "python -m memscore.bank import ./b --member mine.npz:masks": ("mine.*\n!mine.py", "mine.npz"),
    "python -m memscore.estimate --data mine:data": ("/mine.py", "mine.py"),
    "python -m memscore.estimate --arch nets.own:Net": ("nets/", "nets/own.py"),
    "python -m memscore.estimate --recipe mine:recipe": ("own.py", "nets/own.py"),
    "python -m memscore.estimate --data images --arch resnet18": ("*.png", "images/cat/1.png"),
    "python -m unlearn.trial s3://bucket/bank --forget ids:ids.txt": ("ids.txt", "ids.txt"),
    "python mine.py": ("mine.py", "mine.py"),
    "python -m nets.own": ("own.py", "nets/own.py"),
}


@pytest.mark.parametrize("ignore_file", [".gitignore", ".rayignore"])
@pytest.mark.parametrize("line", COMMANDS)
def test_a_needed_file_that_is_left_out_is_named_with_its_rule(folder, line, ignore_file):
    rules, name = COMMANDS[line]
    require_needed_files(line.split(), folder)
    (folder / ignore_file).write_text(f"# mine\n{rules}\n")
    rule = rules.partition("\n")[0]
    with pytest.raises(ValueError, match=rf"^{name}.* is needed by the command, and {ignore_file} line 2, ") as caught:
        require_needed_files(line.split(), folder)
    assert f"line 2, {rule!r}, leaves it out" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_job_does_not_read_here_may_be_left_out(folder):
    (folder / ".gitignore").write_text("*.npz\nruns/\nids.txt\n")
    words = [
        "--data",
        str(folder / "mine.npz"),
        "--store",
        "runs/bank",
        "--out",
        "ids.txt",
        "--lr",
        "0.1",
        "--arm",
        "a",
    ]
    require_needed_files(["python", "-m", "memscore.estimate", *words], folder)


def test_a_file_outside_of_the_folder_is_refused(folder):
    with pytest.raises(ValueError, match=r"beside\.npz lies outside of .*my project, the folder that is sent"):
        require_needed_files(["python", "-m", "memscore.estimate", "--data", "../beside.npz"], folder)


def test_a_rule_of_a_folder_below_and_a_name_that_is_never_sent_are_found(folder):
    (folder / "nets" / ".gitignore").write_text("*.py\n!__init__.py\n")
    with pytest.raises(ValueError, match=r"^nets/own\.py .*nets/\.gitignore line 1, '\*\.py'"):
        require_needed_files(["python", "-m", "nets.own"], folder)
    (folder / "venv").mkdir()
    (folder / "venv" / "x.npz").write_text("x")
    with pytest.raises(ValueError, match=r"^venv/x\.npz .* the name 'venv', which is never sent, leaves"):
        require_needed_files(["python", "-m", "memscore.estimate", "--data", "venv/x.npz"], folder)
