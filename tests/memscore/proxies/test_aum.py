"""Area under the margin."""

import numpy as np
import torch

from memscore.models.architectures import build_network
from memscore.proxies.aum import compute_margins, track_area_under_margin
from memscore.training.device_data import to_device
from memscore.training.loop import TrainingRun, train
from memscore.training.recipes import Recipe

N, SHAPE, K = 30, (1, 4, 4), 3


def test_it_is_the_mean_over_epochs_of_the_label_s_logit_minus_the_largest_other():
    raw = np.random.default_rng(0).integers(0, 256, (N, *SHAPE), dtype=np.uint8)
    images = to_device(raw, (0.5,), (0.3,), torch.device("cpu"), flat=True)
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, K, N))
    model = build_network("mlp-6", SHAPE, K, 0)
    area, by_hand = track_area_under_margin(model, images, labels), []

    def both(epoch):
        area(epoch)
        logits = model(images.take(torch.arange(N))).detach().numpy()
        by_hand.append([z[y] - max(np.delete(z, y)) for z, y in zip(logits, labels.tolist(), strict=True)])

    order_rng, augmentation_rng = np.random.default_rng(2).spawn(2)
    each = TrainingRun(model=model, rows=np.arange(N), order_rng=order_rng, augmentation_rng=augmentation_rng)
    train([each], images, labels, Recipe(epochs=4, batch=10, lr=0.1), 12, on_epoch_end=both)
    assert len(by_hand) == 4
    np.testing.assert_allclose(area.mean(), np.mean(by_hand, 0), rtol=1.3e-6, atol=1e-5)  # float32 logits
    np.testing.assert_allclose(compute_margins(model, images, labels), by_hand[-1], rtol=1.3e-6, atol=1e-5)
