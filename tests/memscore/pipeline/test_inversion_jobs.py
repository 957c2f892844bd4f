"""Inversions of originals and of models of halves: who holds an example, what is kept, and stores from before that."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from memscore.pipeline import inversion_jobs
from memscore.pipeline.inversion_jobs import compute_half_keys, draw_halves, load_model
from memscore.pipeline.jobs import OriginalJob, load_on_device, read_recipe, run_job
from memscore.pipeline.proxy_jobs import build_proxy_jobs, run_proxy_job
from memscore.pipeline.train_bank import build_shared_data
from memscore.proxies.gradient_inversion import gradient_inversion
from memscore.proxies.image_similarity import find_among_images, psnr_fitted, ssim_fitted
from memscore.proxies.scores import score_proxies
from memscore.proxies.storage import read_proxy, read_rebuilt_images, read_stored_inversions
from memscore.seeds import generator
from memscore.store.store import Store
from memscore.store.verify import verify
from memscore.training.numerics import float32_matmul, single_threaded
from tests.fixtures.proxied import (
    CPU,
    compute_original_keys,
    copy_bank,
    make_inversion_options,
    open_small_bank,
    read_files,
    train_and_score_proxies,
)


def rows_of(bank):
    return make_inversion_options(bank).rows(bank.config.seed or 0, 200)


def attack_by_hand(bank, index, key, part):
    """The attack on one part of the candidates of a model, without any job; what is rebuilt, [n, C, H, W]."""
    store, rows = bank.store, rows_of(bank)[64 * part : 64 * (part + 1)]
    shared, model = build_shared_data(bank.splits, None), load_model(store, index, key, CPU)
    images, labels = load_on_device(store, shared.images, shared.labels, model, read_recipe(store), CPU)
    rng = generator(store.manifest.seed, "proxies", f"inversion-{index:05d}", 64 * part)
    normalisation, config = (store.manifest.mean, store.manifest.std), make_inversion_options(bank).config
    chosen = torch.from_numpy(rows)
    with single_threaded(), float32_matmul(CPU):
        return gradient_inversion(model, images.take(chosen), labels[chosen], normalisation, config, rng)["rebuilt"]


def test_each_example_is_held_by_one_model_of_a_pair_which_is_the_oracle_without_the_other_half(made, tmp_path):
    bank, _ = made
    halves = draw_halves(bank.store, 1)
    assert halves.sum(1).tolist() == [100, 100]
    assert (halves[0] ^ halves[1]).all()
    assert (halves != draw_halves(bank.store, 0)).any()
    fresh, shared = open_small_bank(tmp_path, proxies=())
    removed = tuple(np.flatnonzero(~halves[1]).tolist())
    [receipt] = run_job(OriginalJob(store=fresh.store.url, index=1, removed=removed), shared)
    key = compute_half_keys(bank.store, 1)[1]
    assert receipt["key"] == key
    stored, oracle = bank.store.read_weights(key), fresh.store.read_weights(key)
    assert all(torch.equal(value, oracle[name]) for name, value in stored.items())


def test_the_gain_is_the_fitted_psnr_with_the_model_that_held_the_example_less_that_with_the_other(made):
    bank, _ = made
    for index, key in enumerate(compute_original_keys(bank)):
        gain = read_proxy(bank.store, key, "inversion-gain", make_inversion_options(bank))["inversion_gain"]
        rows, in_first = rows_of(bank)[64:], draw_halves(bank.store, index)[0]
        first, second = (attack_by_hand(bank, index, half, 1) for half in compute_half_keys(bank.store, index))
        original = bank.splits.train.images[rows] / 255
        difference = psnr_fitted(original, first) - psnr_fitted(original, second)
        np.testing.assert_allclose(gain[rows], np.where(in_first[rows], difference, -difference), atol=1e-4)
        assert {*in_first[rows]} == {True, False}


def test_what_is_rebuilt_from_an_original_is_compared_with_the_training_set(made):
    bank, outcome = made
    [key, _] = compute_original_keys(bank)
    rows, images = rows_of(bank)[64:], bank.splits.train.images
    rebuilt = attack_by_hand(bank, 0, key, 1)
    scores = read_proxy(bank.store, key, "inversion", make_inversion_options(bank))
    original = images[rows] / 255
    np.testing.assert_allclose(scores["inversion_psnr_fitted"][rows], psnr_fitted(original, rebuilt), atol=1e-4)
    np.testing.assert_allclose(scores["inversion_ssim_fitted"][rows], ssim_fitted(original, rebuilt), atol=1e-5)
    nearest, percentile = find_among_images(rebuilt, rows, images, np.arange(200))
    np.testing.assert_array_equal(scores["inversion_retrieval"][rows], nearest)
    np.testing.assert_allclose(scores["inversion_percentile"][rows], percentile)
    metadata = bank.store.read_score("inversion_retrieval").schema.metadata
    assert metadata[b"compared_images"] == b"200"
    summary = outcome.inversion
    assert summary.examples == 70
    assert summary.compared_images == 200
    assert summary.retrieval.value == pytest.approx(np.nanmean(outcome.table["inversion_retrieval"].to_numpy()))
    written = json.loads(bank.store.folder.read("reports/summary.json"))["inversion"]
    assert written["means"]["inversion_gain"]["value"] == pytest.approx(summary.means["inversion_gain"].value)


def test_the_images_of_the_first_original_are_kept_and_drawn(made):
    bank, _ = made
    keys, inversions = compute_original_keys(bank), read_stored_inversions(bank.store)
    images = read_rebuilt_images(bank.store, keys, inversions)
    assert list(images) == ["row", "rebuilt", "rebuilt_held", "rebuilt_left_out"]  # in the order of the figure
    np.testing.assert_array_equal(images["row"], rows_of(bank))
    by_hand = attack_by_hand(bank, 0, keys[0], 1).reshape(6, -1)
    assert np.abs(images["rebuilt"][64:] - 255 * by_hand).max() < 1  # whole bytes
    assert (images["rebuilt_held"] != images["rebuilt_left_out"]).any()
    assert read_rebuilt_images(bank.store, keys[1:], inversions) == {}
    few = read_rebuilt_images(bank.store, keys, {"inversion": inversions["inversion"]})
    assert set(few) == {"row", "rebuilt"}
    assert bank.store.folder.exists("reports/inversion.png")


def test_attacks_wait_for_both_models_of_halves_and_a_failed_one_is_named(tmp_path, monkeypatch):
    bank, _ = open_small_bank(tmp_path, proxies=("inversion-gain",), originals=1)
    with monkeypatch.context() as at_first:
        at_first.setattr(inversion_jobs, "is_finite", lambda model: False)
        summary, scores = train_and_score_proxies(bank)
    assert set(summary.failed) == {"original-00000-inversion-half-0", "original-00000-inversion-half-1"}
    assert "training on a half of the training set diverged" in summary.failed["original-00000-inversion-half-0"]
    assert scores == {}
    summary, scores = train_and_score_proxies(bank)
    assert (summary.failed, set(scores)) == ({}, {"inversion_gain"})
    # weights that were lost are trained again, though the file of the memberships is there
    key = compute_half_keys(bank.store, 0)[0]
    before = bank.store.folder.read(f"weights/{key}.safetensors")
    bank.store.folder.remove(f"weights/{key}.safetensors")
    train_and_score_proxies(bank)
    assert bank.store.folder.read(f"weights/{key}.safetensors") == before


def test_an_inversion_from_before_its_images_were_kept_stays_and_is_completed_when_it_is_asked_for(made, tmp_path):
    bank = copy_bank(made[0], tmp_path)
    before, old = read_files(bank.store, ("events", "rebuilt")), ("inversion_psnr", "inversion_ssim")
    for name in bank.store.folder.names("rebuilt"):
        bank.store.folder.remove(f"rebuilt/{name}")
    [key, _] = compute_original_keys(bank)
    options = make_inversion_options(bank)
    without = read_proxy(bank.store, key, "inversion", options)
    assert set(without) == {*old, "inversion_success"}
    np.testing.assert_array_equal(
        without["inversion_psnr"], read_proxy(made[0].store, key, "inversion", options)[old[0]]
    )
    train_and_score_proxies(bank)
    assert read_files(bank.store, ("events", "rebuilt")) == before


def test_lost_files_of_an_inversion_are_missed_and_the_bank_s_own_command_is_named(made, tmp_path):
    bank = copy_bank(made[0], tmp_path)
    key = compute_half_keys(bank.store, 1)[0]
    lost = [f"weights/{key}.safetensors", f"rebuilt/{bank.store.folder.names('rebuilt')[0]}", "reports/inversion.png"]
    assert verify(bank.store).missing == {}
    for path in lost:
        bank.store.folder.remove(path)
    missing = verify(Store.open(bank.store.url)).missing
    assert set(missing) == set(lost)
    assert all("memscore.estimate" in advice and "unlearn" not in advice for advice in missing.values())


def test_both_inversions_keep_their_own_settings(made, tmp_path):
    """A later run with fewer candidates for one of them changes nothing of the other."""
    bank = copy_bank(made[0], tmp_path)
    kept = bank.store.read_score("inversion_gain")
    options = replace(make_inversion_options(bank), candidates=5)
    shared, keys = build_shared_data(bank.splits, None), dict(enumerate(compute_original_keys(bank)))
    for job in build_proxy_jobs(bank.store, bank.splits, ["inversion"], keys, options):
        run_proxy_job(job, shared)
    score_proxies(bank.store, [*keys.values()], read_stored_inversions(bank.store) | {"inversion": options})
    assert read_stored_inversions(bank.store) == {"inversion": options, "inversion-gain": make_inversion_options(bank)}
    assert bank.store.read_score("inversion_gain").equals(kept)
    assert bank.store.read_score("inversion_psnr")["inversion_psnr"].null_count == 195
    images = read_rebuilt_images(bank.store, [*keys.values()], read_stored_inversions(bank.store))
    np.testing.assert_array_equal(images["row"], rows_of(bank)[:5])
    assert images["rebuilt_held"].shape == (5, 64)
