"""A user's network that returns probabilities is warned of before and after its bank is trained."""

import json
from dataclasses import replace

import pytest

from memscore import estimate
from memscore.models.output_kinds import PROBABILITIES, SIGMOIDS
from memscore.pipeline.config import BankConfig
from memscore.pipeline.runner import prepare_bank

NETWORKS = """
from torch import nn

def logits(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

def softmax(shape, classes):
    return nn.Sequential(*logits(shape, classes), nn.Softmax(1))

def log_softmax(shape, classes):
    return nn.Sequential(*logits(shape, classes), nn.LogSoftmax(1))

def sigmoid(shape, classes):
    return nn.Sequential(*logits(shape, classes), nn.Sigmoid())

def zeros(shape, classes):
    network = logits(shape, classes)
    nn.init.zeros_(network[1].weight)
    nn.init.constant_(network[1].bias, 0.5)
    return network

def timid(shape, classes):
    network = logits(shape, classes)
    nn.init.normal_(network[1].weight, std=0.01)
    nn.init.constant_(network[1].bias, 0.5)
    return network

class SoftmaxWhereItIsEvaluated(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.network = logits(None, classes)

    def forward(self, x):
        return self.network(x) if self.training else self.network(x).softmax(1)

def at_evaluation(shape, classes):
    return SoftmaxWhereItIsEvaluated(classes)
"""
PLAN = BankConfig(
    data="digits", train_limit=100, recipe="digits", design="exact", block=4, models=4, originals=0, epochs=1, batch=10
)


@pytest.fixture
def networks(tmp_path, monkeypatch):
    (tmp_path / "output_nets.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("softmax", PROBABILITIES),
        ("at_evaluation", PROBABILITIES),
        ("sigmoid", SIGMOIDS),
        ("logits", ""),
        ("log_softmax", ""),
        ("zeros", ""),
        ("timid", ""),  # all logits of real images lie between 0 and 1
    ],
)
def test_the_kind_of_outputs_is_known_before_training(networks, tmp_path, name, kind):
    config = replace(PLAN, arch=f"output_nets:{name}", store=str(tmp_path / "store"))
    assert prepare_bank(config).output_kind == kind


def test_the_page_and_the_summary_say_so(networks, tmp_path, capsys):
    words = (
        "--data digits --train-limit 100 --recipe digits --design exact --block 4 --models 4 --originals 0 --epochs 1"
    )
    words += " --batch 10 --pool serial --device cpu"
    for name in ("softmax", "logits"):
        store = tmp_path / name
        assert estimate.main([*words.split(), "--arch", f"output_nets:{name}", "--store", str(store)]) == 0
        page = capsys.readouterr().out
        summary = json.loads((store / "reports" / "summary.json").read_text())
        assert page.count("already probabilities") == (2 if name == "softmax" else 0)
        assert summary.get("outputs_are") == (PROBABILITIES if name == "softmax" else None)
