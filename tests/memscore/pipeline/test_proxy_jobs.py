"""Proxies of the originals, from the flag to the column: values, refusals, and cost estimates."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from cluster.pool import SerialPool
from memscore import estimate as estimate_command
from memscore.data.splits import split_halves
from memscore.pipeline.cards import CardOptions
from memscore.pipeline.dry_run import estimate_cost
from memscore.pipeline.jobs import build_model, load_on_device, make_training_run, read_recipe
from memscore.pipeline.proxy_jobs import build_proxy_jobs
from memscore.pipeline.runner import estimate
from memscore.pipeline.train_bank import build_shared_data
from memscore.proxies.collectors import ProxyCollector
from memscore.proxies.epoch_mean import EpochMean
from memscore.proxies.registry import ALL_PROXIES, PROXIES, select_proxies, select_training_proxies
from memscore.proxies.scores import write_mean_score
from memscore.proxies.storage import INVERSIONS, InversionOptions
from memscore.score_registry import SCORES
from memscore.tables import bank_tables
from memscore.tables.cost_table import print_cost
from memscore.training.evaluation import predict_logits
from memscore.training.loop import train
from memscore.training.numerics import float32_matmul, single_threaded
from tests.fixtures.opened import open_bank
from tests.fixtures.proxied import (
    CPU,
    SETTINGS,
    SMALL,
    compute_original_keys,
    copy_bank,
    open_small_bank,
    train_and_score_proxies,
)


def trained_by_hand(bank, index, at_epoch):
    """The original's training without any job; gives its network, its images and labels."""
    store = bank.store
    shared, recipe = build_shared_data(bank.splits, None), read_recipe(store)
    model = build_model(store, "original", index, CPU)
    data, labels = load_on_device(store, shared.images, shared.labels, model, recipe, CPU)
    with single_threaded(), float32_matmul(CPU):
        assignment = make_training_run(store, "original", index, model, np.ones(200, bool))
        steps = round(recipe.epochs * 200 / recipe.batch)
        train(
            [assignment], data, labels, recipe, steps, on_epoch_end=lambda epoch: at_epoch(epoch, model, data, labels)
        )


def test_every_proxy_is_a_column_with_its_error_its_count_and_its_direction(made):
    bank, outcome = made
    schema = outcome.table.schema
    for name, proxy in PROXIES.items():
        for score in proxy.scores:
            column = {end: np.array(outcome.table[score + end].to_numpy(), float) for end in ("", "_se", "_n")}
            defined = ~np.isnan(column[""])
            assert defined.sum() == (70 if name in INVERSIONS else 200)
            assert (column["_n"] == np.where(defined, 2, 0)).all()
            assert (column["_se"][defined] > 0).mean() > 0.9  # it is undefined where both agree to the bit
            assert not (column["_se"] == 0).any()
            assert int(schema.field(score).metadata[b"direction"]) == SCORES[score][2] != 0
            assert {int(schema.field(score + end).metadata[b"direction"]) for end in ("_se", "_n")} == {0}
    assert outcome.training.failed == {}
    assert (np.array(outcome.table["inversion_success_se"].drop_null()) > 0).all()
    leaks = {score: bank.store.read_score(score).schema.metadata[b"leaks"] for score in ("holdout", "holdout_test")}
    assert leaks == {"holdout": b"nothing", "holdout_test": b"test"}


def test_proxies_from_training_are_computed_from_its_logits(made):
    """EL2N at the first of three epochs and the margin's mean over all, from logits read by hand."""
    bank, _ = made
    for index, key in enumerate(compute_original_keys(bank)):
        logits = {}

        def look(epoch, model, data, labels, logits=logits):
            logits[epoch] = predict_logits(model, read_recipe(bank.store), data, 200).double().numpy()

        trained_by_hand(bank, index, look)
        y = bank.splits.train.labels
        z = logits[1]
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        error = np.linalg.norm(p - np.eye(10)[y], axis=1)
        np.testing.assert_allclose(bank.store.read_events(f"{key}-el2n")["el2n"], error, rtol=1e-6)
        margins = []
        for z in logits.values():
            label_logit = z[np.arange(200), y].copy()
            z[np.arange(200), y] = -np.inf
            margins.append(label_logit - z.max(1))
        assert len(margins) == 3
        np.testing.assert_allclose(
            bank.store.read_events(f"{key}-aum")["aum"], np.mean(margins, 0), rtol=1e-5, atol=1e-5
        )


def test_the_scores_are_means_over_the_originals(made):
    bank, outcome = made
    each = np.stack([bank.store.read_events(f"{key}-holdout")["holdout"] for key in compute_original_keys(bank)])
    np.testing.assert_allclose(outcome.table["holdout"].to_numpy(), each.mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        outcome.table["holdout_se"].to_numpy(), each.std(0, ddof=1) / np.sqrt(2), rtol=1e-9, atol=1e-15
    )
    assert (each[0] != each[1]).any()


def test_distances_are_between_the_embeddings_of_the_stored_training_set(made):
    bank, _ = made
    [key, _] = compute_original_keys(bank)
    e, y = bank.store.read_outputs(key)[1][:200].astype(float), bank.splits.train.labels
    by_hand = [np.linalg.norm(e[i] - e[y == y[i]].mean(0)) for i in range(200)]
    np.testing.assert_allclose(bank.store.read_events(f"{key}-centroid-distance")["centroid_distance"], by_hand)


def test_holdout_retraining_uses_the_half_of_validation_that_training_may_use(made):
    bank, _ = made
    [job, _] = build_proxy_jobs(
        bank.store, bank.splits, ["holdout"], dict(enumerate(compute_original_keys(bank))), InversionOptions(**SETTINGS)
    )
    first, second = split_halves(bank.splits.validation, bank.store.manifest.seed)
    ids = np.array(bank.store.examples()["id"].to_pylist())[list(job.rows)]
    assert set(ids) == set(first.ids)
    assert not set(ids) & (set(second.ids) | set(bank.splits.test.ids) | set(bank.splits.train.ids))
    [spent, _] = build_proxy_jobs(
        bank.store, bank.splits, ["holdout-test"], {0: "a", 1: "b"}, InversionOptions(**SETTINGS)
    )
    assert set(np.array(bank.store.examples()["id"].to_pylist())[list(spent.rows)]) == set(bank.splits.test.ids)


def test_collecting_calls_each_at_every_epoch_and_counts_its_own_time():
    takers = {"a": EpochMean(lambda: np.ones(2)), "b": EpochMean(lambda: np.zeros(2), {2})}
    collecting = ProxyCollector(takers, CPU)
    for epoch in (1, 2, 3):
        collecting(epoch)
    assert [taker.count for taker in takers.values()] == [3, 1]
    assert all(seconds > 0 for seconds in collecting.seconds.values())


def test_one_original_gives_no_error_and_prints_a_line(tmp_path):
    bank, _ = open_small_bank(tmp_path, originals=1, proxies=("aum", "inversion"))
    outcome = estimate(bank, SerialPool(), lambda done, total, line: None)
    for score in ("aum", "inversion_psnr", "inversion_success", "final_loss"):
        assert outcome.table[f"{score}_se"].null_count == 200
        assert outcome.table[score].null_count == (130 if score.startswith("inversion") else 0)
    console = Console(width=200, record=True, file=io.StringIO())
    bank_tables.print_result(console, outcome, "store")
    output = console.export_text()
    assert "one original: learning events, final loss and proxies have no standard error; --originals 3" in output
    assert "proxies, median of 1 original;" in output
    assert (
        "time: one worker's wall clock as measured, whatever the machine and its load; median over originals"
        in " ".join(output.split())
    )


def test_a_perfect_copy_has_an_infinite_psnr_and_no_error(made, tmp_path):
    bank = copy_bank(made[0], tmp_path)
    values = [np.full(200, value) for value in (np.inf, 30.0)]
    write_mean_score(bank.store, "inversion_psnr", "inversion_psnr", values, "originals", ["a", "b"])
    score = bank.store.read_score("inversion_psnr")
    assert np.isinf(score["inversion_psnr"].to_numpy()).all()
    assert score["inversion_psnr_se"].null_count == 200


def test_models_that_agree_exactly_leave_the_error_undefined_and_the_file_has_the_reason(made, tmp_path):
    """The trap: the mean of three times 0.1 is not 0.1, so the spread of equal numbers is no clean 0 either."""
    bank = copy_bank(made[0], tmp_path)
    values = np.tile([[0.1], [0.1], [0.1]], 200)
    values[2, :2] = (0.4, np.nan)
    write_mean_score(bank.store, "aum", "aum", list(values), "originals", ["a", "b", "c"])
    score = bank.store.read_score("aum")
    assert score["aum_se"].null_count == 199
    assert score["aum_se"][0].as_py() == pytest.approx(0.1)  # sd sqrt(.03), over sqrt 3
    assert score["aum_n"].to_pylist()[:3] == [3, 2, 3]
    assert b"null of one model" in score.schema.field("aum_se").metadata[b"source"]


def test_a_bank_without_validation_refuses_proxies_that_need_it_by_name(tmp_path, capsys):
    for proxy in ("holdout", "all"):
        assert (
            estimate_command.main(
                f"{SMALL} --validation 0 --proxies {proxy} --store {tmp_path}/no --pool serial".split()
            )
            == 2
        )
        output = capsys.readouterr().err
        assert "--proxies holdout fine-tunes on one half of the validation images, and this bank has 0" in output
        assert "--proxies holdout-test" in output
    assert not (tmp_path / "no").exists()
    bank, _ = open_small_bank(tmp_path, validation=0.0, proxies=("holdout-test", "aum"))
    assert set(train_and_score_proxies(bank)[1]) == {"holdout_test", "aum"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--proxies curvature-sing", "unknown proxy 'curvature-sing'; did you mean 'curvature-sign'?"),
        ("--proxies aum --originals 0", "--proxies are computed on the originals, and --originals is 0"),
        ("--proxies inversion --inversion-candidates 0", "--inversion-candidates must be 1 or more, got 0"),
        ("--inversion-iterations -1", "--inversion-iterations must be 1 or more, got -1; 250 is the default"),
        ("--inversion-tv -1", "--inversion-tv must be 0 or more and finite, got -1.0; leave it out for the default"),
        ("--inversion-tv nan", "--inversion-tv must be 0 or more and finite, got nan"),
    ],
)
def test_an_impossible_option_is_one_line(tmp_path, capsys, flags, message):
    assert estimate_command.main(f"--pool serial --store {tmp_path}/no {flags}".split()) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_the_cost_estimate_has_every_proxy_and_adds_its_time(made):
    bank, _ = made
    with_all, without = (
        estimate_cost(open_bank(replace(bank.config, proxies=names, dry_run=True)), 1)
        for names in (bank.config.proxies, ("none",))
    )
    assert list(with_all.proxies) == list(PROXIES)
    assert all(work.core_s > 0 for name, work in with_all.proxies.items() if name != "centroid-distance")
    assert (with_all.originals, with_all.trained.core_s) == (0, 0)  # models and originals are stored
    both = 2 * (with_all.original.core_s + sum(work.core_s for work in with_all.proxies.values()))
    assert replace(with_all, originals=2).trained.core_s == pytest.approx(both)
    assert without.proxies == {}
    console = Console(width=200, record=True, file=io.StringIO())
    print_cost(console, with_all, CardOptions())
    output = console.export_text()
    assert all(f"proxy  {name}: about " in output for name in PROXIES)


def test_networks_that_are_not_stacked_have_proxies_too(tmp_path):
    """Convolutions are trained one at a time, from images in another layout than a fully connected network's."""
    change = {"arch": "cnn-4-8", "recipe": "digits", "epochs": 1, "precision": "bfloat16"}
    bank, _ = open_small_bank(tmp_path, inversion_candidates=3, **change)
    summary, scores = train_and_score_proxies(bank)
    assert summary.failed == {}
    assert set(scores) == {score for proxy in PROXIES.values() for score in proxy.scores}


def test_all_is_every_proxy_but_the_one_that_uses_the_test_set():
    assert set(select_proxies([ALL_PROXIES])) == set(PROXIES) - {"holdout-test"}
    assert select_proxies([ALL_PROXIES, "holdout-test", "aum"]) == tuple(PROXIES)
    assert select_proxies([]) == ()
    assert select_training_proxies(PROXIES) == ("curvature-sign", "curvature-rademacher", "aum", "el2n", "grand")
    assert all(score in SCORES for proxy in PROXIES.values() for score in proxy.scores)
