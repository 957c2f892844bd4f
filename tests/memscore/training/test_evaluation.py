"""How many images are evaluated at once: by architecture and device, the same wherever a network is evaluated."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from memscore.models.architectures import build_network
from memscore.pipeline.jobs import BankJob, OriginalJob, compute_job_key, run_job
from memscore.pipeline.proxy_jobs import build_proxy_jobs, run_proxy_job
from memscore.proxies.storage import InversionOptions
from memscore.training.evaluation import choose_evaluation_batch, evaluate_examples, predict_embeddings
from tests.fixtures.problems import make_tiny_problem
from tests.fixtures.proxied import SETTINGS, open_small_bank
from unlearn.measures.relearn import mean_loss
from unlearn.trials.measure import compute_outputs

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


def linear_network(shape, n_classes):
    """A network without convolutions that is no plain MLP."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 8), nn.Tanh(), nn.Linear(8, n_classes))


@pytest.mark.parametrize(
    ("arch", "on_cpu"),
    [("mlp-8", 1024), (f"{__name__}:linear_network", 1024), ("cnn-4-8", 64)],
)
def test_the_batch_follows_architecture_and_device(arch, on_cpu):
    model = build_network(arch, (1, 16, 16), 4, seed=0)
    assert choose_evaluation_batch(model, CPU) == on_cpu
    assert choose_evaluation_batch(model, GPU) == 1024


@pytest.fixture
def evaluated_batches():
    """How many images each first convolution got in evaluation mode, without gradients."""
    sizes = []

    def record(layer, inputs):
        if isinstance(layer, nn.Conv2d) and not layer.training and not torch.is_grad_enabled():
            sizes.append(len(inputs[0]))

    hook = nn.modules.module.register_module_forward_pre_hook(record)
    yield sizes
    hook.remove()


def test_a_cpu_evaluates_convolutions_in_batches_that_fit_its_cache_everywhere(tmp_path, evaluated_batches):
    bank, shared = open_small_bank(tmp_path, arch="cnn-4", recipe="digits", epochs=1, design="exact", block=2, models=2)
    arm, store = bank.arms[0], bank.store
    store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    jobs = {
        "bank": lambda: run_job(BankJob(store=store.url, arm=arm.name, models=(0,), events=True), shared),
        "original": lambda: run_job(
            OriginalJob(store=store.url, index=0, evaluate=True, proxies=("aum", "el2n")), shared
        ),
        "holdout": lambda: run_proxy_job(
            build_proxy_jobs(
                *(store, bank.splits, ["holdout"]),
                {0: compute_job_key(store, OriginalJob(store=store.url, index=0))},
                InversionOptions(**SETTINGS),
            )[0],
            shared,
        ),
    }
    for name, run in jobs.items():
        evaluated_batches.clear()
        run()
        assert max(evaluated_batches) == 64, name
    problem = make_tiny_problem("cnn")
    images = problem.train.images
    everything = replace(problem.train, rows=torch.arange(len(images)), labels=torch.zeros(len(images), dtype=int))
    for evaluate in (
        lambda: compute_outputs(problem.theta_o, problem.train.recipe, images, len(images)),
        lambda: mean_loss(problem.theta_o, everything),
        lambda: predict_embeddings(problem.theta_o, images, len(images)),
    ):
        evaluated_batches.clear()
        evaluate()
        assert max(evaluated_batches) == 64


def test_every_batch_size_gives_the_same_values_up_to_rounding():
    problem = make_tiny_problem("cnn")
    images, labels = problem.train.images, problem.train.labels
    with torch.no_grad():
        whole, parts = (evaluate_examples(problem.theta_o.eval(), images, labels, batch) for batch in (64, 24))
    for column in ("logit_confidence", "gap", "top_gap"):
        np.testing.assert_allclose(parts[column], whole[column], rtol=1e-4, atol=1e-4)
