"""The oldest torch that is allowed: which one it is, and the tests of training with it."""

from pathlib import Path

import pytest

from tests.oldest_torch import ROOT, find_oldest, main


def test_the_oldest_versions_are_those_of_the_dependencies():
    assert find_oldest((ROOT / "pyproject.toml").read_text()) == ["torch==2.11.0", "torchvision==0.26.0"]
    with pytest.raises(KeyError):
        find_oldest('[project]\ndependencies = ["torch"]')  # without a lowest version there is nothing to test


def test_a_folder_with_anything_else_in_it_is_neither_used_nor_deleted(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert main([str(tmp_path)]) == 2
    assert "name a new one" in capsys.readouterr().err
    assert Path(tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.slow
def test_the_tests_of_training_pass_with_the_oldest_torch(tmp_path):
    assert main([str(tmp_path / "torch")]) == 0
