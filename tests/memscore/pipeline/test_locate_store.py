"""Which store a bank has, and the precision of its models: resolved once, and taken from the store ever after."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cluster.pool import SerialPool
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import BankJob, OriginalJob, run_job
from memscore.pipeline.proxy_job import ProxyJob
from memscore.pipeline.runner import estimate, prepare_arms, prepare_bank
from memscore.pipeline.train_bank import build_shared_data, compute_missing_proxies
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.subsets.designs import draw_membership
from memscore.training import precision as rules
from tests.fixtures.command import here
from tests.fixtures.opened import open_bank

MLP = BankConfig(data="digits", train_limit=200, validation=0.2, epochs=1, batch=20, design="exact", block=8, models=8)
CNN = replace(MLP, arch="cnn-4", recipe="digits", originals=0)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Default stores are made here."""
    monkeypatch.setenv("MEMSCORE_HOME", str(tmp_path / "home"))


def precision_of(bank):
    """The precision, which stands in the manifest and in its recipe."""
    assert bank.store.manifest.recipe["precision"] == bank.store.manifest.precision
    return bank.store.manifest.precision


@pytest.mark.parametrize(
    ("config", "device", "expected"),
    [(MLP, "cpu", "float32"), (CNN, "cpu", "float32"), (MLP, "cuda", "float32"), (CNN, "cuda", "tf32")],
)
def test_a_new_bank_has_tf32_for_convolutions_on_a_gpu_alone(config, device, expected):
    assert precision_of(prepare_bank(config, device=device)) == expected


def test_a_bank_on_cpus_is_the_same_as_before_there_was_a_choice():
    """The name of the store of a recipe's own precision, and every byte of its manifest."""
    automatic, named = (prepare_bank(replace(CNN, precision=name)).store for name in ("auto", "float32"))
    assert automatic.url == named.url
    assert automatic.manifest.to_json() == named.manifest.to_json()


def test_a_bank_on_cpus_looks_for_no_convolutions(monkeypatch):
    monkeypatch.setattr(rules, "list_convolutions", lambda *_: 1 / 0)
    prepare_bank(CNN)
    with pytest.raises(ZeroDivisionError):
        prepare_bank(CNN, device="cuda")


def write_shards(bank):
    """Write the shards of all models, with numbers that were never trained."""
    prepare_arms(bank, SerialPool())
    [arm] = bank.arms
    n, n_train, rng = bank.store.manifest.n_rows, len(bank.splits.train), np.random.default_rng(0)
    for index, is_member in enumerate(draw_membership(arm, range(bank.count), n_train, seed=0)):
        member = np.pad(is_member, (0, n - n_train))
        numbers = {name: rng.normal(size=n).astype(np.float32) for name in ("logit_confidence", "gap", "top_gap")}
        columns = {"row": np.arange(n, dtype=np.int32), "member": member, "correct": numbers["gap"] > 0, **numbers}
        bank.store.write_shard(format_model_name(arm.name, index), arm.name, columns)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("first", "second", "expected"), [("cpu", "cuda", "float32"), ("cuda", "cpu", "tf32")])
def test_a_store_keeps_its_precision_on_any_device(tmp_path, named, first, second, expected):
    config = replace(CNN, store=str(tmp_path / "bank")) if named else CNN
    made, later = open_bank(config, first), prepare_bank(config, device=second)
    assert later.store.url == made.store.url
    assert later.store.is_created
    assert precision_of(later) == expected
    new = {"cpu": "float32", "cuda": "tf32"}[second]
    assert f"precision {expected}, as the stored models; a new bank for this device would have {new}" in later.notes
    assert not [note for note in made.notes if "as the stored models" in note]


def test_a_store_that_lost_its_manifest_keeps_its_precision(tmp_path):
    config = replace(CNN, store=str(tmp_path / "bank"))
    bank = open_bank(config, "cuda")
    write_shards(bank)
    (tmp_path / "bank" / "manifest.json").unlink()
    assert precision_of(prepare_bank(config, device="cpu")) == "tf32"


def test_of_two_stores_this_device_s_is_opened_and_the_other_named():
    banks = {
        "cpu": open_bank(replace(CNN, precision="float32"), "cpu"),
        "cuda": open_bank(replace(CNN, precision="tf32"), "cuda"),
    }
    for device, other in (("cpu", "cuda"), ("cuda", "cpu")):
        opened = prepare_bank(CNN, device=device)
        assert opened.store.url == banks[device].store.url
        note = (
            f"a bank of these options in precision {precision_of(banks[other])} is stored too: {banks[other].store.url}"
        )
        assert note in opened.notes


def test_a_store_of_a_precision_that_was_named_is_opened_by_its_name_without_it(tmp_path):
    config = replace(CNN, store=str(tmp_path / "bank"))
    open_bank(replace(config, precision="bfloat16"), "cpu")
    assert precision_of(prepare_bank(config, device="cuda")) == "bfloat16"


@pytest.mark.parametrize(("first", "named"), [("cuda", "float32"), ("cpu", "tf32"), ("cpu", "bfloat16")])
def test_a_named_precision_that_contradicts_the_store_is_refused(tmp_path, first, named):
    config = replace(CNN, store=str(tmp_path / "bank"))
    stored = precision_of(open_bank(config, first))
    with pytest.raises(ValueError, match=f"recipe.precision.*{stored}.*{named}"):
        prepare_bank(replace(config, precision=named), device="cuda")


def test_a_named_precision_has_a_store_of_its_own_by_default():
    stored = open_bank(CNN, "cuda")
    assert prepare_bank(replace(CNN, precision="float32"), device="cuda").store.url != stored.store.url


@pytest.mark.parametrize(
    ("config", "device", "named", "reason"),
    [
        (
            CNN,
            "cpu",
            "tf32",
            "^precision tf32 .* a CPU has none; train on a GPU, or use a bank with --precision float32",
        ),
        (
            CNN,
            "cpu",
            "bfloat16-products",
            "^--precision bfloat16-products is of the hidden layers of fully connected networks .*, and cnn-4.* is no",
        ),
        (
            MLP,
            "cuda",
            "bfloat16-products",
            "^precision bfloat16-products is of products on CPUs; .* --precision float32, in which a GPU trains",
        ),
        (
            replace(MLP, optimizer="adam", lr=0.001),
            "cpu",
            "bfloat16-products",
            "^precision bfloat16-products is of stacks, .* got optimizer adam, .* use precision float32$",
        ),
        (MLP, "cuda", "tf32", "^--precision tf32 is of convolutions, and mlp has none; use --precision float32, which"),
        (
            replace(CNN, arch=f"{__name__}:build_narrow"),
            "cpu",
            "bfloat16",
            "^--precision bfloat16 on a CPU: oneDNN computes .* wrongly there",
        ),
        (
            replace(CNN, arch=f"{__name__}:build_sequential"),
            "cpu",
            "bfloat16",
            "^--precision bfloat16 leaves the last layer in float32, and .* returns a Sequential, which does not show",
        ),
    ],
)
def test_a_bank_that_cannot_be_trained_is_refused_before_its_store_is_made(tmp_path, config, device, named, reason):
    with pytest.raises(ValueError, match=reason):
        prepare_bank(replace(config, precision=named), device=device)
    assert not (tmp_path / "home").exists()


def build_sequential(shape, classes):
    """A network that does not show its last layer; named as "module:function"."""
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def build_narrow(shape, classes):
    """A network whose second convolution reads images of one pixel with a stride of 2; named as "module:function"."""
    from torch import nn

    from memscore.models.architectures import Classifier

    body = nn.Sequential(nn.Conv2d(1, 4, 8), nn.Conv2d(4, 4, 3, 2, 1), nn.Flatten())
    return Classifier(body, nn.Linear(4, classes))


def test_what_the_paper_s_code_ran_and_what_float32_costs_on_a_gpu_is_noted():
    paper, own = replace(CNN, recipe="rsu-mnist"), CNN
    told = "the paper's code ran float32 as torch's default: TF32 in convolutions on the paper's GPU"
    assert prepare_bank(paper, device="cuda").notes == (told,)
    assert prepare_bank(own, device="cuda").notes == ()
    for config, device, costs in (
        (own, "cuda", True),
        (own, "cpu", False),
        (replace(MLP, originals=0), "cuda", False),
    ):
        notes = prepare_bank(replace(config, precision="float32"), device=device).notes
        assert [
            note.startswith("precision float32 takes about 3 times as long as --precision tf32") for note in notes
        ] == ([True] if costs else [])


class Untouched:
    """A pool to which nothing may come."""

    workers = 1

    def run(self, fn, jobs, shared=None):
        assert not list(jobs)
        return iter(())


def test_a_gpu_s_bank_is_scored_on_a_cpu_and_not_trained_there(tmp_path):
    """What is missing is named before it becomes a failure on file."""
    config = replace(CNN, store=str(tmp_path / "bank"))
    write_shards(open_bank(config, "cuda"))
    bank = prepare_bank(config)
    assert precision_of(bank) == "tf32"
    assert len(estimate(bank, Untouched()).arms) == 1
    assert (tmp_path / "bank" / "scores.parquet").exists()
    for changes in ({"models": 16}, {"originals": 1}):
        with pytest.raises(
            ValueError, match=r"^precision tf32 is TF32 in the convolutions of a GPU, and a CPU has none"
        ):
            estimate(prepare_bank(replace(config, **changes)), Untouched())
    proxy = ProxyJob(store=bank.store.url, index=0, key="k", proxy="centroid-distance", ending="centroid-distance")
    with pytest.raises(ValueError, match="a CPU has none"):
        compute_missing_proxies(bank.store, [proxy], build_shared_data(bank.splits, None), Untouched())
    assert bank.store.failures() == {}


@pytest.mark.parametrize("arch", ["cnn-4", f"{__name__}:build_narrow"])
def test_a_worker_refuses_too(tmp_path, arch):
    """A worker may have another device than the driver thinks, and a store another maker."""
    named = "tf32" if arch == "cnn-4" else "bfloat16"
    config = replace(CNN, arch=arch, precision=named, store=str(tmp_path / "bank"))
    bank = open_bank(config, "cuda")
    prepare_arms(bank, SerialPool())
    [arm] = bank.store.arms()
    shared = build_shared_data(bank.splits, None)
    for job in (BankJob(store=bank.store.url, arm=arm, models=(0,)), OriginalJob(store=bank.store.url, index=0)):
        with pytest.raises(ValueError, match="CPU"):
            run_job(job, shared)
    assert not torch.cuda.is_initialized()
    assert Store.open(bank.store.url).failures() == {}


def test_the_command_plans_for_the_workers_device(monkeypatch, capsys):
    """On a machine with a GPU; nothing is trained."""
    monkeypatch.setattr("memscore.training.numerics.resolve_device", lambda requested: "cuda")
    monkeypatch.setattr("memscore.tables.cost_table.print_cost", lambda *_: None)
    flags = "--pool serial --dry-run --train-limit 200 --originals 0 --arch cnn-4 --recipe rsu-mnist --batch 20"
    code, said = here(flags, capsys)
    assert code == 0
    assert "sgd lr 0.1, tf32\nnote   the paper's code ran float32 as torch's default: TF32 in convolutions" in said
    code, said = here(f"{flags} --precision float32", capsys)
    assert "sgd lr 0.1, float32\nnote   precision float32 takes about 3 times as long as --precision tf32" in said
