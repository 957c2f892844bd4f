"""What a sweep leaves, from made rows: tables, regret, automatic RUM's distance, remarks, and a folder of its own."""

import io
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy.stats import t as student

from memscore.store.store import Store
from tests.fixtures.tiny import COSTS
from unlearn.forget_sets import ForgetSet
from unlearn.meta.partition import Partition
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.methods import Method, build_methods
from unlearn.tuning.results import (
    claim_sweep_folder,
    compare_automatic,
    compute_regrets,
    mean_or_minus_infinity,
    resolve_sweep_folder,
    write_sweep,
)
from unlearn.tuning.state import MethodProgress, SweepResult, explain_no_choice
from unlearn.tuning.tables import list_remarks, print_sweep

CUT = Partition(kind="score", score="mine", k=2)
RUM = "rum mine"


def make_judged_rows(name, variant, select, tows, *, level=1, levels=1, status="ok"):
    """A row for each value of ToW, original after original."""
    return [
        {
            "trial": f"{name}-{variant}-{select}-{level}-{index}",
            "contender": name,
            "variant": variant,
            "select": select,
            "level": level,
            "levels": levels,
            "attempt": 0,
            "index": index,
            "status": status,
            "tow_test": tow,
            "forget_accuracy": 0.5 + 0.01 * index,
            "retain_accuracy": 1.0,
            "accuracy_test": 0.9,
            "mia_test_gap": 0.1,
        }
        | COSTS
        for index, tow in enumerate(tows, start=2)
    ]


ROWS = [
    *make_judged_rows("oracle", "", "", [1.0, 1.0, 1.0], level=0, levels=0),
    *make_judged_rows("original", "", "", [0.3, 0.4, 0.5], level=0, levels=0),
    *make_judged_rows("finetune", "vanilla", "oracle", [0.9, 0.8, 0.7]),
    *make_judged_rows("finetune", "vanilla", "blind", [0.6, 0.6, 0.6]),
    *make_judged_rows("salun", RUM, "oracle", [0.1, 0.1, 0.1], level=1, levels=2),
    *make_judged_rows("salun", RUM, "oracle", [0.95, 0.85, 0.6], level=2, levels=2),
    *make_judged_rows("automatic", "auto mine", "oracle", [0.7, 0.7, 0.7], level=2, levels=2),
]


def make_config_results(*tows):
    return [{"values": {"lr": t}, "tow": t, "blind": t, "diverged": 0, "trials": ["t"], "wall_s": 1.5} for t in tows]


def make_state(method, select="oracle", *, steps=(("finetune", (("lr", 0.5),)),), at_boundary=(), end_reason=""):
    results = make_config_results(0.5, 0.25)
    return MethodProgress(
        method=method,
        select=select,
        steps=list(steps),
        chosen=results[:1],
        searches=[(0, "finetune", results)],
        at_boundary=list(at_boundary),
        end_reason=end_reason,
    )


def make_result(*states, rows=ROWS, tuning_rows=(), failed=(), tuned=(1, 2, 3), reported=(4, 5, 6), notes=()):
    return SweepResult(
        states=list(states),
        tuning_rows=list(tuning_rows),
        judged_rows=list(rows),
        failed=list(failed),
        tuning_sets=[ForgetSet(name="theirs", rows=tuned)],
        judged_set=ForgetSet(name="mine", rows=reported),
        notes=notes,
    )


VANILLA = Method(plan=("finetune",), variant="vanilla")
AUTO = Method(plan=("original", "finetune"), variant="auto mine", partition=CUT, automatic=True)


def print_and_capture(result):
    text = io.StringIO()
    code = print_sweep(Console(file=text, width=140), result, "here")
    return code, text.getvalue()


def test_regret_is_the_paired_difference_of_the_two_choices():
    found = compute_regrets(ROWS)
    assert list(found) == [("finetune", "vanilla")]
    differences = np.array([0.3, 0.2, 0.1])
    half = student.ppf(0.975, 2) * differences.std(ddof=1) / np.sqrt(3)
    regret = found["finetune", "vanilla"]
    assert (regret.value, regret.lo, regret.hi) == pytest.approx((0.2, 0.2 - half, 0.2 + half))


def test_automatic_rum_is_held_against_the_best_fixed_plan_of_the_same_selection():
    [(variant, select, best, above)] = compare_automatic(ROWS)
    assert (variant, select, best) == ("auto mine", "oracle", ("finetune", "vanilla"))  # both have the mean .8
    assert above.value == pytest.approx(0.1)
    better = [*ROWS, *make_judged_rows("scrub", "vanilla", "blind", [1.0, 1.0, 1.0])]
    assert compare_automatic(better)[0][2] == ("finetune", "vanilla")  # chosen by the other selection: no match


def test_a_plan_that_always_diverged_is_not_the_best_one():
    diverged = make_judged_rows("scrub", "vanilla", "oracle", [math.nan] * 3, status="diverged")
    assert compare_automatic([*diverged, *ROWS])[0][2] == ("finetune", "vanilla")
    assert mean_or_minus_infinity(diverged, "tow_test") == 0
    assert mean_or_minus_infinity(diverged, "mia_test_gap") == pytest.approx(0.1)
    assert mean_or_minus_infinity([], "tow_test") == -math.inf


def test_the_table_has_the_oracle_on_top_the_original_beneath_and_the_best_first():
    code, output = print_and_capture(make_result(make_state(VANILLA), make_state(AUTO)))
    first = [line.split()[0] for line in output.splitlines() if line.split()[:1]]
    order = [name for name in first if name in {"oracle", "original", "finetune", "salun", "automatic"}]
    assert order[:6] == ["oracle", "finetune", "salun", "automatic", "finetune", "original"]
    assert "0.800 [0.552, 1.000]" in output
    assert "+0.200 [-0.048, +0.448]" in output
    assert "every trial and what was chosen: here" in output
    assert "auto mine by oracle: finetune, after 2 configurations, 3 s; finetune vanilla, the best fixed plan" in output
    assert "above it (picked on these rows, which flatters it)" in output
    assert "this forget set is unable to tell" not in output
    assert "doing nothing has a tow_test of 0.400, a second oracle 0.987" in output
    assert " diverged" not in output
    assert code == 0


def test_an_optimum_at_an_end_of_its_space_is_said():
    output = list_remarks(make_result(make_state(VANILLA, at_boundary=["1.finetune.lr"])))
    assert any(
        line.startswith("finetune, vanilla, chosen by oracle: the best 1.finetune.lr lies at an end of its space")
        for line in output
    )
    assert not any("an end of its space" in line for line in list_remarks(make_result(make_state(VANILLA))))


@pytest.mark.parametrize(
    ("reported", "message"),
    [
        ((4, 5, 6), "parameters were chosen on theirs (no example of it is reported on)"),
        ((1, 2, 3), "parameters were chosen on theirs which is the reported set itself: only the originals are unseen"),
        ((3, 4, 5), "parameters were chosen on theirs which has 1 of the 3 reported examples"),
    ],
)
def test_how_unseen_the_reported_set_is_is_said(reported, message):
    assert message in list_remarks(make_result(make_state(VANILLA), reported=reported))


def test_what_ended_early_failed_or_diverged_is_said_and_is_the_exit_code():
    plain = ROWS[:-3]
    assert print_and_capture(make_result(make_state(VANILLA), rows=plain))[0] == 0
    code, output = print_and_capture(
        make_result(make_state(VANILLA), make_state(AUTO, end_reason=explain_no_choice(1, [[]])), rows=plain)
    )
    assert code == 1
    assert "automatic, auto mine, chosen by oracle: ended early, every configuration at step 1 failed" in output
    assert "no method is left" not in output
    code, output = print_and_capture(
        make_result(make_state(VANILLA), rows=plain, failed=["finetune lr=1 failed: out of luck"])
    )
    assert code == 1
    assert "out of luck" in output
    diverged = make_judged_rows("finetune", "vanilla", "oracle", [math.nan], status="diverged")
    code, output = print_and_capture(make_result(make_state(VANILLA), rows=[*ROWS[:6], *diverged]))
    assert code == 1
    line = "finetune vanilla, chosen by oracle: 1 of 1 judged runs diverged; they count 0 in tow and tow_mia, and its"
    assert line in output
    cells, *_ = [line.split() for line in output.splitlines() if line.split()[:1] == ["finetune"]]
    assert cells[:6] == ["finetune", "vanilla", "oracle", "1", "1", "0.000"]
    code, output = print_and_capture(
        make_result(make_state(VANILLA, end_reason="x"), rows=ROWS[:6], tuning_rows=diverged)
    )
    assert code == 1
    assert "no method is left to be judged; finished trials are stored" in output
    assert "1 of 1 tuning run diverged" in output


def test_why_nothing_could_be_chosen():
    diverged = [method | {"diverged": 1} for method in make_config_results(0.0, 0.0)]
    assert (
        explain_no_choice(2, [diverged, []])
        == "no configuration at step 2 can be chosen: 2 of 2 diverged on every original"
    )
    assert explain_no_choice(1, [[], []]) == "every configuration at step 1 failed"


@pytest.fixture
def open_store(store):
    return Store.open(store)


def test_everything_is_on_file(open_store):
    where = claim_sweep_folder(open_store, "kept", {"budget": 2})
    tuning_rows = [{"trial": "a", "contender": "finetune", "select": "oracle", "level": 0, "tow_validation": 0.5}]
    write_sweep(
        open_store,
        where,
        make_result(make_state(VANILLA, at_boundary=["1.finetune.lr"]), tuning_rows=tuning_rows, notes=("mind this",)),
    )
    rows = pq.read_table(f"{open_store.url}/{where}/trials.parquet").to_pylist()
    assert [row["role"] for row in rows] == ["tuning"] + ["judged"] * len(ROWS)
    assert rows[0]["tow_test"] is None
    assert rows[1]["tow_validation"] is None
    record = json.loads(bytes(open_store.folder.read(f"{where}/chosen.json")))
    [method] = record["chosen"]
    assert method["steps"] == [{"algorithm": "finetune", "params": {"lr": 0.5}}]
    assert method["at_boundary"] == ["1.finetune.lr"]
    assert method["objective"] == [0.5]
    assert (method["attempts"], method["runs"], method["tuning_s"]) == (2, 2, 3.0)
    assert record["notes"] == ["mind this"]
    assert record["second_oracle"]["tells_apart"]
    assert record["populations"] == []
    assert record["judged_on"] == {"forget_set": "mine", "n": 3}
    [regret] = record["regret"]
    assert regret["of"] == ["finetune", "vanilla"]
    assert regret["value"] == pytest.approx(0.2)


def test_a_folder_is_one_sweeps(open_store):
    identity = {"budget": 2, "scores": ("a",), "forget": "random", "seeds": 2}
    assert (
        claim_sweep_folder(open_store, "own", identity)
        == claim_sweep_folder(open_store, "own", identity)
        == "sweeps/own"
    )
    with pytest.raises(ValueError, match=r"scores is a, requested b; give this one another --name"):
        claim_sweep_folder(open_store, "own", identity | {"scores": ("b",)})


def test_a_larger_budget_goes_on_in_its_folder_and_a_smaller_one_does_not(open_store):
    identity = {"budget": 2, "scores": ("a",), "forget": "random", "seeds": 2}
    claim_sweep_folder(open_store, "grown", identity)
    claim_sweep_folder(open_store, "grown", identity | {"budget": 3})
    assert json.loads(bytes(open_store.folder.read("sweeps/grown/sweep.json")))["budget"] == 3
    with pytest.raises(ValueError, match=r"budget is 3, requested 2"):
        claim_sweep_folder(open_store, "grown", identity)


def test_to_ask_for_a_folder_takes_no_name(open_store):
    assert resolve_sweep_folder(open_store, "free", {"budget": 2}) == "sweeps/free"
    assert not open_store.folder.exists("sweeps/free/sweep.json")
    claim_sweep_folder(open_store, "free", {"budget": 1})


@pytest.mark.parametrize("name", ["", ".", "a/b", "..", "a\nb", 'a"b'])
def test_a_folder_has_a_name_of_its_own(open_store, name):
    with pytest.raises(ValueError, match="is not a valid folder name"):
        claim_sweep_folder(open_store, name, {})


def test_contenders_of_a_sweep_have_names_of_their_own():
    """Rows are told apart by these alone."""
    variants = ("vanilla", "shuffle", "rum", "rum-reversed", "rsu", "rsu-reversed", "auto", "auto-reversed")
    plans = ("finetune>salun", "salun>finetune", "finetune>finetune")
    algorithms, scores = ("finetune", "salun"), ("a", "b", "centroid")
    config = SweepConfig(store="", algorithms=algorithms, variants=variants, plans=plans, scores=scores, parts=2)
    found = build_methods(config, "mlp-8")
    assert len({(method.name, method.variant) for method in found}) == len(found)


def test_where_one_has_more_originals_the_order_and_the_best_plan_are_those_of_the_same_ones():
    few = make_judged_rows("finetune", "vanilla", "oracle", [0.5, 0.5, 0.5])
    many = make_judged_rows("salun", "vanilla", "oracle", [0.4, 0.4, 0.4, 0.9, 0.9, 0.9])
    auto = make_judged_rows("automatic", "auto mine", "oracle", [0.3, 0.3, 0.3])
    rows = [*few, *many, *auto]
    [(*_, best, above)] = compare_automatic(rows)
    assert best == ("finetune", "vanilla")
    assert above.value == pytest.approx(0.2)
    _, output = print_and_capture(make_result(make_state(VANILLA), rows=rows))
    names = [line.split()[0] for line in output.splitlines() if line.split()[:1]]
    assert [name for name in names if name in {"finetune", "salun"}][:2] == ["finetune", "salun"]
    assert "tow_test of the same 3" in output
    assert "0.650 ±" in output
    assert "0.400 ±0.000" in output
    assert "twice the originals, where a trial failed there are fewer: compare by the last column" in output
    assert "of the same" not in print_and_capture(make_result(make_state(VANILLA), rows=[*few, *auto]))[1]


def test_what_an_automatic_plan_chose_is_said_without_a_fixed_one_too():
    alone = [row for row in ROWS if row["contender"] in {"automatic", "oracle", "original"}]
    _, output = print_and_capture(make_result(make_state(AUTO), rows=alone))
    assert "auto mine by oracle: finetune, after 2 configurations, 3 s" in output
    assert "best fixed plan" not in output
