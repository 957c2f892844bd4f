"""The direction of each proxy, on wrong labels planted in digits, which a network can only memorize."""

import numpy as np
import pytest
import torch

from memscore.data.datasets import load_dataset
from memscore.models.architectures import build_network, embed
from memscore.proxies.aum import track_area_under_margin
from memscore.proxies.centroid_distance import centroid_distance
from memscore.proxies.el2n_grand import el2n, grand
from memscore.proxies.epoch_mean import EpochMean
from memscore.proxies.holdout_retraining import HoldoutConfig, holdout_retraining, select_held_out_rows
from memscore.proxies.loss_curvature import CURVATURES, track_curvature
from memscore.training.device_data import to_device
from memscore.training.loop import TrainingRun, train
from memscore.training.recipes import count_steps, get_recipe

DIRECTIONS = {
    "aum": -1,
    "curvature-sign": 1,
    "curvature-rademacher": 1,
    "el2n": 1,
    "grand": 1,
    "holdout": 1,
    "centroid": 1,
}


@pytest.fixture(scope="module")
def proxy_scores():
    splits = load_dataset("digits", label_noise=0.1)
    parts = (splits.train, splits.validation, splits.test)
    raw, truth = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    images = to_device(raw, splits.mean, splits.std, torch.device("cpu"), flat=True)
    labels, n = torch.from_numpy(truth), len(splits.train)
    model, train_labels = build_network("mlp-128", splits.input_shape, 10, 0), labels[:n]
    pixels = images.take(torch.arange(n))
    epoch_means = {
        "aum": track_area_under_margin(model, images, train_labels),
        "grand": EpochMean(lambda: grand(model, images, train_labels), epochs=(3,)),
        "el2n": EpochMean(lambda: el2n(model(pixels).detach().numpy(), train_labels.numpy()), epochs=(3,)),
    }
    epoch_means |= {
        f"curvature-{name}": track_curvature(model, images, train_labels, config, np.random.default_rng(4))
        for name, config in CURVATURES.items()
    }

    def on_epoch_end(epoch):
        for each in epoch_means.values():
            each(epoch)

    order_rng, augmentation_rng = np.random.default_rng(0).spawn(2)
    run = TrainingRun(model=model, rows=np.arange(n), order_rng=order_rng, augmentation_rng=augmentation_rng)
    train(
        [run], images, labels, get_recipe("digits"), count_steps(get_recipe("digits"), 1, n), on_epoch_end=on_epoch_end
    )
    scores = {name: each.mean() for name, each in epoch_means.items()}
    config = HoldoutConfig()
    rows = select_held_out_rows(splits, config, 0)
    scores["holdout"] = holdout_retraining(model, images, labels, n, rows, config, np.random.default_rng(1))
    scores["centroid"] = centroid_distance(embed(model, pixels).detach().numpy(), train_labels.numpy())
    return scores, splits.train.labels != splits.train.labels_true


@pytest.mark.parametrize("name", DIRECTIONS)
def test_planted_wrong_labels_score_as_more_memorized(proxy_scores, name):
    scores, wrong = proxy_scores
    oriented = DIRECTIONS[name] * scores[name]
    above = (oriented[wrong][:, None] > oriented[~wrong]).mean()
    chance_se = np.sqrt((len(wrong) + 1) / (12 * wrong.sum() * (~wrong).sum()))
    assert above > 0.5 + 4 * chance_se  # 4 s.e. of the AUC of a score that knows nothing
