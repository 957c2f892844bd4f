"""The comparison of two checkouts: which code runs, in which order, and what the ratios are."""

import pytest

from benchmarks.engine_levers import COMMANDS, ROOT, Checkout, compare


def test_sides_take_turns_and_ratios_are_round_by_round_without_the_first():
    seconds = {"before": iter([100.0, 4.0, 6.0]), "now": iter([1.0, 2.0, 2.0])}
    order = []

    def timer(side):
        order.append(side.name)
        return next(seconds[side.name])

    sides = [Checkout(name, ROOT, ROOT) for name in ("before", "now")]
    result = compare(sides, timer, 2)
    assert order == ["now", "before", "before", "now", "now", "before"]
    assert result["before_over_now"] == {"n": 2, "median": 2.5, "min": 2.0, "max": 3.0}
    assert result["before_s"]["median"] == 5.0


def test_a_folder_without_the_code_is_refused(tmp_path):
    side = Checkout("before", tmp_path / "elsewhere", tmp_path)
    with pytest.raises(RuntimeError, match=r"not the code in .*elsewhere|No module named"):
        side.require_own_code()


@pytest.mark.slow
def test_an_operation_is_timed_in_a_process_of_its_own_and_a_failing_command_is_an_error(tmp_path):
    side = Checkout("now", ROOT, tmp_path)
    assert len(side.require_own_code()) == 40
    assert 0 < side.time_operation("masked step") < 60
    with pytest.raises(RuntimeError, match=r"now .* ended with 2"):
        side.time_command("memscore.estimate --no-such-option")


def test_commands_that_need_a_store_name_it():
    assert [" store " in words for words in COMMANDS.values()] == [False, False, True, True, True]
