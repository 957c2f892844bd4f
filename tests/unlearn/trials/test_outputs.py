"""What a network says of every example, in one pass or in two."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from memscore.models.architectures import build, embed
from memscore.training.device_data import Images
from memscore.training.evaluation import everything, parts
from memscore.training.recipes import recipe
from unlearn.trials.measure import views_of


@pytest.mark.parametrize("arch", ["mlp-32", "cnn-4-8"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_logits_and_embeddings_are_those_of_a_pass_each(arch, precision, monkeypatch):
    model, usual = build(arch, (1, 16, 16), 4, seed=0), replace(recipe("small-mlp"), precision=precision)
    pixels = torch.randint(0, 256, (2100, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(
        pixels=pixels.float().permute(0, 2, 3, 1) / 255,
        shape=(1, 16, 16),
        flat=False,
        black=torch.zeros(1),
        white=torch.ones(1),
    )
    found = views_of(model.train(), usual, images, 2050)
    assert not model.training
    with torch.no_grad():
        np.testing.assert_array_equal(found.logits, everything(model, usual, images, 2050).numpy())
        apart = torch.cat([embed(model, part).float() for part in parts(images, 2050)])
    np.testing.assert_array_equal(found.embeddings, apart.numpy())
