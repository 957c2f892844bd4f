"""Outputs of a network for every example, in one pass or in two."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from memscore.models.architectures import build_network, embed
from memscore.training.device_data import DeviceImages
from memscore.training.evaluation import choose_evaluation_batch, iterate_batches, predict_logits
from memscore.training.recipes import get_recipe
from unlearn.trials.measure import compute_outputs


@pytest.mark.parametrize("arch", ["mlp-32", "cnn-4-8"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_logits_and_embeddings_are_those_of_a_pass_each(arch, precision, monkeypatch):
    model, options = build_network(arch, (1, 16, 16), 4, seed=0), replace(get_recipe("small-mlp"), precision=precision)
    pixels = torch.randint(0, 256, (2100, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = DeviceImages(
        pixels=pixels.float().permute(0, 2, 3, 1) / 255,
        shape=(1, 16, 16),
        flat=False,
        black=torch.zeros(1),
        white=torch.ones(1),
    )
    outputs = compute_outputs(model.train(), options, images, 2050)
    assert not model.training
    with torch.no_grad():
        np.testing.assert_array_equal(outputs.logits, predict_logits(model, options, images, 2050).numpy())
        batch = choose_evaluation_batch(model, torch.device("cpu"))
        apart = torch.cat([embed(model, part).float() for part in iterate_batches(images, 2050, batch)])
    np.testing.assert_array_equal(outputs.embeddings, apart.numpy())
