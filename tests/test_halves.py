"""The two halves of the tests together run every test."""

from tests.halves import TESTS, find_ray_files, name_tests


def test_whatever_starts_the_cluster_is_in_a_file_of_the_half_on_ray():
    with_cluster = {str(path) for path in TESTS.rglob("test_*.py") if "ray_cluster" in path.read_text()}
    assert len(with_cluster) > 5
    assert with_cluster <= {*find_ray_files(), __file__}


def test_named_files_are_run_instead_of_all(monkeypatch):
    monkeypatch.chdir(TESTS.parent)
    assert name_tests(["-x", "tests/test_halves.py::test_named_files_are_run_instead_of_all"])
    assert not name_tests(["-x", "--durations=5", "-k", "no_such_name"])
