"""Sequential requests, each arm with its own sequence: from sweep to verdicts on a small bank."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from cluster.pool import SerialPool
from cluster.search import SerialSearch
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import OriginalJob, compute_job_key
from memscore.pipeline.runner import estimate
from memscore.statistics.inequality import gini
from memscore.store.trial_files import read_cost
from memscore.store.verify import verify
from tests.fixtures import tiny
from tests.fixtures.opened import open_bank
from unlearn.experiments.base import SweepRunner
from unlearn.experiments.five_requests import (
    ARM_LABELS,
    EXPERIMENT,
    REFINED,
    VANILLA,
    check_claims,
    plot_histograms,
    run,
)
from unlearn.experiments.sequential_requests import (
    HISTOGRAM_EDGES,
    RecomputeProxyJob,
    RequestSequence,
    compute_skew,
    read_recomputed_proxy,
    read_rows,
    recompute_proxy,
    run_rounds,
    select_next_forget_set,
)
from unlearn.oracles import build_trial_data
from unlearn.trials.config import model_key
from unlearn.tuning.methods import Method
from unlearn.tuning.prepare import prepare_sweep
from unlearn.tuning.results import select_rows

SIZE = 15
PLAN = BankConfig(
    data="digits",
    train_limit=240,
    validation=0.2,
    epochs=6,
    batch=20,
    design="exact",
    block=8,
    models=8,
    originals=2,
    proxies=("holdout",),
)
KEPT = ("trials", "weights", "events", "receipts", "attempts")


class RecordingPool(SerialPool):
    """A pool that knows what it was asked to do."""

    def __init__(self):
        super().__init__()
        self.done = []

    def run(self, fn, jobs, shared=None):
        for job, result in super().run(fn, jobs, shared):
            self.done.append((fn.__name__, job, result))
            yield job, result


def make_config(store):
    return tiny.make_config("neggrad-plus", store=store.url, size=SIZE, seeds=2, tunings=1)


def make_runner(pool):
    return SweepRunner(pool=pool, backend=SerialSearch(), device="cpu")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    bank = open_bank(replace(PLAN, store=str(tmp_path_factory.mktemp("lab") / "store")))
    estimate(bank, SerialPool())
    pool = RecordingPool()
    result = run(make_config(bank.store), make_runner(pool), rounds=2)
    assert not result.incomplete, result.remarks
    return bank, result, pool


def open_unlearning_context(bank):
    return prepare_sweep(EXPERIMENT.make_sweeps(make_config(bank.store))["tuning"]).context


def find_trial(pool, arm, index, number):
    """The trial of a round, as the pool was handed it."""
    done = dict.fromkeys(job for fn, job, _ in pool.done if fn == "run_trial" and job.save_model)
    return [job for job in done if job.variant == arm and job.index == index][number - 1]


def test_every_arm_of_every_original_has_a_row_a_round_beside_its_oracle(lab):
    _, result, _ = lab
    rows = result.results["rounds"]
    for arm in ARM_LABELS:
        for number in (1, 2):
            arm_rows = select_rows(rows, contender="neggrad-plus", arm=arm, round=number)
            assert [row["index"] for row in arm_rows] == [1, 2]
            assert all(row["n_forget"] == SIZE and 0 < row["tow_test"] <= 1 for row in arm_rows)
            assert all(0 < row["gini"] < 1 and row["round_examples"] > 0 for row in arm_rows)
            oracles = select_rows(rows, contender="oracle", arm=arm, round=number)
            assert [row["tow_test"] for row in oracles] == [1, 1]
            for row, oracle in zip(arm_rows, oracles, strict=True):
                assert row["forget_accuracy_gap"] == abs(row["forget_accuracy"] - oracle["forget_accuracy"])
    baseline_rows = select_rows(rows, round=0)
    assert [(row["contender"], row["index"], row["round_examples"]) for row in baseline_rows] == [
        ("original", 1, 0),
        ("original", 2, 0),
    ]
    assert len(rows) == 2 + 2 * 2 * 2 * 2


def test_a_round_forgets_nothing_twice_and_goes_on_from_the_round_before(lab):
    bank, result, pool = lab
    for arm, parts in ((VANILLA, 1), (REFINED, 3)):
        for index in (1, 2):
            first, second = (find_trial(pool, arm, index, number) for number in (1, 2))
            assert not set(first.forget) & set(second.judged)
            assert set(second.forget) == {*first.forget, *second.judged}
            assert len(second.steps) == 2 * parts
            assert second.steps[:parts] == first.steps
            assert {row for step in second.steps[parts:] for row in step.rows} == set(second.judged)
            assert model_key(bank.store, second.truncate(parts)) == model_key(bank.store, first)
            assert read_cost(bank.store, model_key(bank.store, first))["status"] == "ok"
    assert (
        find_trial(pool, VANILLA, 1, 1).forget == find_trial(pool, REFINED, 1, 1).forget
    )  # one theta_o chose for both
    rows = select_rows(result.results["rounds"], arm=VANILLA, contender="neggrad-plus", index=1)
    assert rows[1]["round_examples"] == rows[1]["examples"] - rows[0]["examples"]


def test_no_round_takes_what_parameters_were_chosen_on(lab):
    _, result, pool = lab
    chosen_on = {row for one in result.sweeps["tuning"].tuning_sets for row in one.rows}
    assert len(chosen_on) == SIZE
    assert all(chosen_on.isdisjoint(find_trial(pool, arm, index, 2).forget) for arm in ARM_LABELS for index in (1, 2))


def test_the_coefficient_is_that_of_the_proxy_over_what_is_left(lab):
    bank, result, pool = lab
    store, rows, trial_data = (
        bank.store,
        result.results["rounds"],
        build_trial_data(bank.splits, bank.store.manifest.seed),
    )
    original = RecomputeProxyJob(
        store=store.url, key=compute_job_key(store, OriginalJob(store=store.url, index=1)), index=1
    )
    assert select_rows(rows, round=0, index=1)[0]["gini"] == gini(read_recomputed_proxy(store, original))
    for arm in ARM_LABELS:
        for number in (1, 2):
            trial = find_trial(pool, arm, 1, number)
            job = RecomputeProxyJob(store=store.url, key=model_key(store, trial), index=1)
            assert not recompute_proxy(job, trial_data)  # it is there
            remaining = [
                value for row, value in enumerate(read_recomputed_proxy(store, job)) if row not in trial.forget
            ]
            assert len(remaining) == 240 - number * SIZE
            row = select_rows(rows, arm=arm, contender="neggrad-plus", index=1, round=number)[0]
            assert row["gini"] == pytest.approx(gini(np.array(remaining)), rel=1e-12)
            assert (row["lorenz_0.00"], row["lorenz_1.00"]) == (0, pytest.approx(1))
            expected, _ = np.histogram(np.log10(remaining), HISTOGRAM_EDGES)
            shares = [row[f"histogram_{edge:.2f}"] for edge in HISTOGRAM_EDGES[:-1]]
            assert shares == pytest.approx(expected / len(remaining), abs=1e-12)


def test_a_histogram_counts_what_is_beyond_its_ends_too():
    skew = compute_skew(np.array([0.0, 1e-9, 1.0, 1.5, 500.0, 7.0]), forgotten=[5])
    shares = {edge: skew[f"histogram_{edge:.2f}"] for edge in HISTOGRAM_EDGES[:-1]}
    assert {edge: share for edge, share in shares.items() if share} == {-6.0: 0.4, 0.0: 0.4, 1.75: 0.2}


def test_the_proxy_of_an_original_is_that_of_the_bank_to_the_bit(lab):
    bank, _, _ = lab
    store, key = bank.store, compute_job_key(bank.store, OriginalJob(store=bank.store.url, index=1))
    proxy = read_recomputed_proxy(store, RecomputeProxyJob(store=store.url, key=key, index=1))
    np.testing.assert_array_equal(proxy, store.read_events(f"{key}-holdout")["holdout"])


def test_a_round_takes_the_ends_and_the_middle_of_what_is_left(lab):
    bank, _, _ = lab
    forgotten = [*range(5), 237, 238, 239]
    rows = select_next_forget_set(open_unlearning_context(bank), np.arange(240, dtype=np.float64), forgotten, 9).rows
    assert rows == (5, 6, 7, 119, 120, 121, 234, 235, 236)  # of 5 to 236 the median is 120.5; the lower comes first


def test_a_second_run_trains_nothing_and_gives_the_same_rows(lab):
    bank, result, _ = lab
    before = {name: bank.store.folder.names(name) for name in KEPT}
    pool = RecordingPool()
    again = run(make_config(bank.store), make_runner(pool), rounds=2)
    assert {name: bank.store.folder.names(name) for name in before} == before
    assert not [job for fn, job, result in pool.done if fn == "work" or (fn == "rescore" and result)]
    np.testing.assert_equal(again.results, result.results)
    verdict = verify(bank.store)
    assert not verdict.damaged
    assert not verdict.missing


def test_a_walk_that_diverges_ends_and_another_goes_on(lab):
    bank, _, _ = lab
    steep, flat = (("epochs", 1), ("lr", 1e30)), (("epochs", 1), ("lr", 1e-4))
    method = Method(plan=("gradient-ascent",), variant="vanilla")
    sequences = [RequestSequence(method=method, params=(params,), index=1) for params in (steep, flat)]
    ended = run_rounds(open_unlearning_context(bank), sequences, 2, SIZE, make_runner(SerialPool()))
    assert ended == ["gradient-ascent vanilla on original 1 ended early: it diverged in round 1"]
    rows = [select_rows(read_rows(bank.store, sequence), contender="gradient-ascent") for sequence in sequences]
    assert [row["status"] for row in rows[0]] == ["diverged"]
    assert np.isnan([rows[0][0]["tow_test"], rows[0][0]["gini"]]).all()
    assert [row["status"] for row in rows[1]] == ["ok", "ok"]


def test_a_walk_without_enough_examples_left_ends(lab):
    bank, _, _ = lab
    method = Method(plan=("original",), variant="vanilla")
    ended = run_rounds(
        open_unlearning_context(bank),
        [RequestSequence(method=method, params=((),), index=1)],
        1,
        237,
        make_runner(SerialPool()),
    )
    assert len(ended) == 1
    assert "round 1: --size 237: low, medium and high holdout share examples at 79 each" in ended[0]


def test_more_rounds_than_there_are_examples_are_refused_before_anything_is_trained(lab):
    bank, _, _ = lab
    pool = RecordingPool()
    with pytest.raises(
        ValueError, match=r"--size 15: 16 rounds and the sets .* up to 270 of the 240 .* use 13 or less"
    ):
        run(make_config(bank.store), make_runner(pool), rounds=16)
    assert not pool.done


def test_the_figure_is_drawn_from_the_rows(lab):
    bank, result, _ = lab
    assert EXPERIMENT.draw_figure(result.results, make_config(bank.store)).startswith(b"\x89PNG")


def test_histograms_are_means_over_originals_a_line_a_round():
    rounds = [
        [{f"histogram_{edge:.2f}": share * (edge == place) for edge in HISTOGRAM_EDGES} for share in shares]
        for place, shares in ((-2.0, (0.4, 0.6)), (1.0, (1.0, np.nan)))
    ]
    axis = Figure().subplots()
    plot_histograms(axis, rounds)
    for patch, place, share in zip(axis.patches, (-2.0, 1.0), (0.5, 1.0), strict=True):
        values, edges, _ = patch.get_data()
        assert edges[values.argmax()] == pytest.approx(10**place)
        assert values.max() == pytest.approx(share)
        assert values.sum() == pytest.approx(share)


def make_rows(refined, vanilla, skew, originals=8):
    """ToW of each arm in rounds 1 and 5; Gini coefficients before, at the end of RUM^F, at the end of vanilla."""
    rng, rows = np.random.default_rng(0), []
    for index in range(originals):
        rows.append({"index": index, "contender": "original", "arm": "", "round": 0, "gini": skew[0]})
        for arm, tow, end in ((REFINED, refined, skew[1]), (VANILLA, vanilla, skew[2])):
            noise = rng.normal(0, 0.001)
            for number, value, remaining in zip((1, 5), tow, (skew[0], end), strict=True):
                values = {"tow_test": value + noise * number, "tow_mia_test": value + noise, "gini": remaining + noise}
                rows.append({"index": index, "contender": "neggrad-plus", "arm": arm, "round": number, **values})
    return {"rounds": rows}


def test_verdicts_follow_the_rows():
    config = tiny.make_config(*EXPERIMENT.small_preset.algorithms)
    as_printed = check_claims(make_rows((0.901, 0.893), (0.771, 0.890), (0.788, 0.642, 0.723)), config)
    assert [claim.verdict for claim in as_printed] == ["holds"] * 8
    values = [0.13, 0.13, 0.127, 0.119, -0.008, 0.146, 0.065, 0.081]
    assert [claim.value.value for claim in as_printed] == pytest.approx(values, abs=0.01)
    turned = check_claims(make_rows((0.771, 0.690), (0.901, 0.600), (0.6, 0.8, 0.7)), config)
    assert [claim.verdict for claim in turned] == ["fails"] * 8
    # a sequence that diverged in the first round ends there, and counts in the last one too
    rows = make_rows((0.901, 0.893), (0.771, 0.890), (0.788, 0.642, 0.723))["rounds"]
    ended = [row for row in rows if (row["index"], row["arm"]) == (0, REFINED)]
    rows.remove(ended[1])
    ended[0] |= {"status": "diverged"} | dict.fromkeys(("tow_test", "tow_mia_test", "gini"), float("nan"))
    claims = check_claims({"rounds": rows}, config)
    [first, _, _, _, similar, *gini] = claims
    assert first.value.value == pytest.approx(0.13 - 0.901 / 8, abs=0.005)
    assert similar.value.value == pytest.approx(-0.008 * 7 / 8, abs=0.006)
    assert [claim.verdict for claim in gini] == [
        "no verdict: 1 of 16 runs diverged",
        "holds",
        "no verdict: 1 of 16 runs diverged",
    ]
    single = check_claims(make_rows((0.9, 0.8), (0.8, 0.9), (0.7, 0.6, 0.65), originals=1), config)
    assert {claim.verdict for claim in single} == {"undecided"}  # one original has no interval
