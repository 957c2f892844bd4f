"""Outputs that cannot be logits are told from those that can."""

import pytest
import torch

from memscore.models.output_kinds import CONSTANT, DESCRIPTIONS, PROBABILITIES, SIGMOIDS, find_output_kind

LOGITS = torch.randn(200, 10, generator=torch.Generator().manual_seed(0)) * 4


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        (LOGITS.softmax(1), PROBABILITIES),
        (LOGITS.half().softmax(1), PROBABILITIES),
        (100 * LOGITS.softmax(1), PROBABILITIES),
        (torch.full((20, 4), 0.25), PROBABILITIES),
        (LOGITS[:, :2].softmax(1), PROBABILITIES),
        (LOGITS.sigmoid(), SIGMOIDS),
        (torch.arange(10.0).expand(20, 10), CONSTANT),
        (torch.zeros(20, 10), CONSTANT),
        (LOGITS, ""),
        (LOGITS.log_softmax(1), ""),
        (0.1 * LOGITS, ""),
        (10 * LOGITS, ""),
        (LOGITS.relu(), ""),
        (LOGITS - LOGITS.mean(1, keepdim=True), ""),
        (LOGITS.log_softmax(1).exp()[:1], ""),  # of one image nothing is known
        (LOGITS * torch.nan, ""),
    ],
)
def test_each_kind_of_outputs_is_found(outputs, kind):
    assert find_output_kind(outputs) == kind
    assert not kind or kind in DESCRIPTIONS
