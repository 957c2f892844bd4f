"""A model trained by plain torch against a small bank: evidence, how well it separates, the null control, errors."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from scipy import stats

from memscore import attack
from memscore.analysis.arms import select_arm
from memscore.analysis.audit import compute_roc_summary, run_audit
from memscore.analysis.user_model import build_member_mask, load_user_model, resolve_normalization
from memscore.data.id_lists import read_id_list
from memscore.models.architectures import build_network
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import BankJob, OriginalJob, run_job
from memscore.pipeline.reload_data import reload_splits
from memscore.pipeline.train_bank import build_shared_data, train_missing
from memscore.statistics.epsilon_bound import clopper_pearson, epsilon_lower_bound
from memscore.store.parquet import check_content, decode
from memscore.store.store import Store
from memscore.tables.audit_table import print_audit
from memscore.training.evaluation import logit_confidence
from tests.fixtures.opened import open_bank

PLAN = BankConfig(
    data="digits", arch="mlp-32", train_limit=400, label_noise=0.25, epochs=40, lr=0.1, batch=20, design="exact",
    block=16, models=16, originals=0,
)  # fmt: skip


class InOrder:
    def run(self, fn, jobs, shared=None):
        for job in jobs:
            yield job, fn(job, shared)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """16 models of 200 of 400 digits, a quarter of the labels wrong: enough to memorize."""
    bank = open_bank(replace(PLAN, store=str(tmp_path_factory.mktemp("audit") / "store")))
    arm = bank.arms[0]
    bank.store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    training = train_missing(bank.store, bank.arms, 16, build_shared_data(bank.splits, None), InOrder())
    assert len(training.shards[bank.arms[0].name]) == 16
    return bank


def train_model(images, labels, mean, std, seed=0, arch="mlp-32", epochs=40):
    """Plain torch: the same network and schedule written by hand."""
    torch.set_num_threads(1)
    model = build_network(arch, images.shape[1:], 10, seed)
    pixels = (torch.from_numpy(images).float() / 255 - mean) / std
    truth, order = torch.from_numpy(labels), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(epochs):
        for rows in torch.randperm(len(truth), generator=order).split(20):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(pixels[rows]), truth[rows]).backward()
            optimizer.step()
    return model


@pytest.fixture(scope="module")
def half(bank):
    return np.random.default_rng(5).permutation(np.arange(400) % 2 == 0)


@pytest.fixture(scope="module")
def own_model(bank, half):
    """Trained on a half that no model of the bank has, with another normalisation than the bank's."""
    train = bank.splits.train
    return train_model(train.images[half], train.labels[half], 0.5, 0.5)


@pytest.fixture
def files(bank, half, own_model, tmp_path):
    weights, members = tmp_path / "own.safetensors", tmp_path / "members.txt"
    save_file(own_model.state_dict(), weights)
    members.write_text("\n".join(bank.splits.train.ids[half]) + "\n")
    return {"model": str(weights), "members": str(members)}


def normalize_splits(bank, mean=0.5, std=0.5):
    return replace(bank.splits, mean=(mean,), std=(std,))


def test_members_of_a_model_trained_elsewhere_are_separated_from_others(bank, half, own_model):
    result = run_audit(bank.store, own_model, normalize_splits(bank), member=half)
    assert result.models == 16
    assert set(result.curves) == {"lira", "lira_offline", "rmia"}
    for curve in result.curves.values():
        assert curve.auc.lo > 0.5
    assert result.curves["lira"].auc.value > 0.7
    assert result.accuracy["test"] > 0.6
    assert result.table["n_in"].to_pylist() == [8] * 400  # all sixteen are used, none is left out
    assert result.table["n_out"].to_pylist() == [8] * 400


def test_the_curve_of_rmia_is_by_the_ratio_that_its_share_counts(bank, half, own_model):
    result = run_audit(bank.store, own_model, normalize_splits(bank), member=half)
    share, ratio = (result.table[name].to_numpy() for name in ("rmia", "rmia_ratio"))
    assert len(np.unique(share)) < len(np.unique(ratio))
    assert (np.diff(share[np.argsort(ratio)]) >= 0).all()
    curve, by_ratio, by_share = (
        result.curves["rmia"],
        compute_roc_summary(ratio, half),
        compute_roc_summary(share, half),
    )
    assert (curve.auc, curve.tpr_at_01) == (by_ratio.auc, by_ratio.tpr_at_01) != (by_share.auc, by_share.tpr_at_01)


def test_the_null_control_has_an_area_of_one_half(bank, half):
    """A target trained on neither half, but on the test images: no evidence tells the halves apart."""
    test = bank.splits.test
    model = train_model(test.images[:200], test.labels[:200], 0.5, 0.5)
    result = run_audit(bank.store, model, normalize_splits(bank), member=half)
    for curve in result.curves.values():
        assert curve.auc.lo < 0.5 < curve.auc.hi
    assert result.epsilon.value == 0


def test_an_original_of_the_store_gives_the_predictions_that_its_worker_stored(bank):
    store = bank.store
    [receipt] = run_job(OriginalJob(store=store.url, index=0), build_shared_data(bank.splits, None))
    model = load_user_model(store.folder.path(f"weights/{receipt['key']}.safetensors"), PLAN.arch, store.manifest)
    confidence = run_audit(store, model.network, reload_splits(store)).table["logit_confidence"].to_numpy()
    logits = torch.from_numpy(store.read_outputs(receipt["key"])[0][:400].copy())
    expected = logit_confidence(logits, torch.from_numpy(bank.splits.train.labels)).numpy()
    np.testing.assert_allclose(confidence, expected, rtol=1e-4, atol=1e-4)  # float32, images laid out in another way


def test_the_command_writes_evidence_with_verdicts_and_prints_how_well_it_separates(bank, files, half, capsys):
    arguments = [
        bank.store.url,
        "--model",
        files["model"],
        "--arch",
        "mlp-32",
        "--members",
        files["members"],
    ]
    assert attack.main([*arguments, "--mean", "0.5", "--std", "0.5", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "LiRA online" in printed
    assert "200 members and 200 others" in printed
    assert "epsilon, two rates" in printed
    path = bank.store.folder.path(f"reports/audit-own-{bank.arms[0].name}.parquet")
    check_content(Path(path).read_bytes())  # what `bank verify` asks: the hash is of all columns
    table = pq.read_table(path)
    assert table["id"].to_pylist() == bank.splits.train.ids.tolist()
    assert table["member"].to_pylist() == half.tolist()
    lira = table["lira"].to_numpy()
    assert table["verdict"].to_pylist() == (lira > 0).tolist()
    metadata = {key.decode(): value.decode() for key, value in decode(Path(path).read_bytes()).schema.metadata.items()}
    assert metadata["verdict"] == "lira > 0"
    assert json.loads(metadata["curves"])["lira"]["auc"]["value"] > 0.7


def test_measures_that_are_undefined_are_null_in_the_file(bank, own_model):
    everyone = np.ones(len(bank.splits.train), bool)  # no example is left to be separated from
    result = run_audit(bank.store, own_model, normalize_splits(bank), member=everyone)
    metadata = {key.decode(): value.decode() for key, value in result.table.schema.metadata.items()}
    assert json.loads(metadata["curves"])["lira"]["auc"] == {"value": None, "lo": None, "hi": None}
    assert json.loads(metadata["epsilon"])["value"] is None


def test_without_the_truth_there_is_evidence_and_no_measure(bank, own_model, tmp_path):
    result = run_audit(bank.store, own_model, normalize_splits(bank), threshold=1.5)
    assert result.curves == {}
    assert result.epsilon is None
    assert "member" not in result.table.column_names
    console = Console(width=110, record=True)
    print_audit(console, result, "somewhere")
    assert "LiRA online > 1.5" in console.export_text()


def test_a_bank_without_validation_gives_no_rmia_and_a_note(tmp_path):
    bank = open_bank(replace(PLAN, store=str(tmp_path / "s"), validation=0.0, epochs=1, models=16))
    arm = bank.arms[0]
    bank.store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    run_job(BankJob(store=bank.store.url, arm=arm.name, models=(0, 1, 2)), build_shared_data(bank.splits, None))
    reloaded = reload_splits(bank.store)
    assert reloaded.fingerprint == bank.splits.fingerprint
    result = run_audit(bank.store, build_network("mlp-32", (1, 8, 8), 10, 0), reloaded)
    assert "rmia" not in result.table.column_names
    one_sided = np.array(result.table["n_in"]) * np.array(result.table["n_out"]) == 0
    assert one_sided.any()
    assert [v is None for v in result.table["verdict"].to_pylist()] == one_sided.tolist()
    console = Console(width=110, record=True)
    print_audit(console, result, "somewhere")
    printed = console.export_text()
    assert "no validation examples" in printed
    assert f"undefined for {one_sided.sum()}" in printed


def test_the_banks_data_is_loaded_again_from_the_manifest(bank, tmp_path):
    assert reload_splits(bank.store).fingerprint == bank.splits.fingerprint
    whole = open_bank(BankConfig(data="digits", validation=0.3, store=str(tmp_path / "s"), models=64, originals=0))
    assert reload_splits(whole.store).fingerprint == whole.splits.fingerprint


def test_other_data_is_refused_by_its_fingerprint(bank, tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (600, 8, 8)).astype(np.uint8), np.arange(600) % 10
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    with pytest.raises(ValueError, match=r"is not what .* was made from: its fingerprint is"):
        reload_splits(bank.store, str(tmp_path / "other.npz"))
    with pytest.raises(ValueError, match="cannot be read again as the bank read it: unknown data set 'digit'"):
        reload_splits(bank.store, "digit")


def save_weights(tmp_path, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("arch", "shape", "classes", "message"),
    [
        ("mlp-32", (1, 8, 8), 12, r"it has 12 classes, the bank 10 \(head.weight is \[12, 32\], must be \[10, 32\]\)"),
        ("mlp-32", (1, 9, 9), 10, r"images of another shape than the bank's 1x8x8.*is \[32, 81\], must be \[32, 64\]"),
        ("cnn-4", (3, 8, 8), 10, "lacks"),
        ("mlp-32-16", (1, 8, 8), 10, "has also body.3.bias and 1 more"),
        ("mlp-48", (1, 8, 8), 10, "it is another network"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_one_line(bank, tmp_path, arch, shape, classes, message):
    path = save_weights(tmp_path, build_network(arch, shape, classes, 0).state_dict())
    with pytest.raises(ValueError, match=message) as caught:
        load_user_model(path, "mlp-32", bank.store.manifest)
    assert "\n" not in str(caught.value)


def test_invalid_weights_are_refused(bank, tmp_path):
    manifest = bank.store.manifest
    with pytest.raises(FileNotFoundError, match="there are no weights at"):
        load_user_model(str(tmp_path / "nothing"), "mlp-32", manifest)
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="is no file of weights"):
        load_user_model(str(tmp_path / "text"), "mlp-32", manifest)
    weights = build_network("mlp-32", (1, 8, 8), 10, 0).state_dict()
    weights["head.bias"] = weights["head.bias"] * math.nan
    with pytest.raises(ValueError, match=r"not finite, first in head.bias"):
        load_user_model(save_weights(tmp_path, weights), "mlp-32", manifest)


def test_a_network_of_the_users_own_is_named_by_module_and_function(bank, half, tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def wide(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    train = bank.splits.train
    model = train_model(train.images[half], train.labels[half], 0.5, 0.5, arch="my_nets:wide", epochs=20)
    path = save_weights(tmp_path, model.state_dict())
    network = load_user_model(path, "my_nets:wide", bank.store.manifest).network
    result = run_audit(bank.store, network, normalize_splits(bank), member=half)
    assert result.curves["lira"].auc.lo > 0.5


def test_member_ids_are_read_from_text_json_and_npz(bank, tmp_path):
    ids = bank.splits.train.ids[3:9]
    (tmp_path / "a.txt").write_text("\n".join(ids) + "\n\n")
    (tmp_path / "a.json").write_text(json.dumps(ids.tolist()))
    np.savez(tmp_path / "a.npz", ids=ids, other=np.arange(3))
    np.savez(tmp_path / "b.npz", ids)
    expected = (np.arange(400) >= 3) & (np.arange(400) < 9)
    for name in ("a.txt", "a.json", "a.npz", "b.npz"):
        np.testing.assert_array_equal(build_member_mask(read_id_list(str(tmp_path / name)), bank.store), expected)


def test_member_ids_that_are_invalid_are_refused(bank, tmp_path):
    with pytest.raises(ValueError, match=r"1 of 2 member ids are no examples of .* 'train/99999'"):
        build_member_mask(np.array([bank.splits.train.ids[0], "train/99999"]), bank.store)
    with pytest.raises(ValueError, match="1 members are validation or test examples"):
        build_member_mask(bank.splits.test.ids[:1], bank.store)
    for name, content, message in (
        ("a.doc", "x", "read from .txt, .csv, .tsv, .json, .npz or .parquet"),
        ("a.txt", "", "there are none"),
        ("a.json", "[1, 2]", "one is 1"),
        ("b.json", "{}", "must hold a list"),
        ("c.json", "nope", "is no JSON"),
        ("a.npz", "nope", "does not hold plain arrays"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=message):
            read_id_list(str(tmp_path / name))
    with pytest.raises(FileNotFoundError, match="no file of ids"):
        read_id_list(str(tmp_path / "none.txt"))


def test_normalisation_is_one_number_a_channel(bank):
    manifest = bank.store.manifest
    assert resolve_normalization(manifest, None, None) == (manifest.mean, manifest.std)
    with pytest.raises(ValueError, match="--mean takes one number for each of 1 channels, got 3"):
        resolve_normalization(manifest, (0.1, 0.2, 0.3), None)
    with pytest.raises(ValueError, match="--std must be above 0, got 0"):
        resolve_normalization(manifest, None, (0.0,))


def test_an_arm_is_chosen_where_there_are_several(bank, tmp_path):
    store = Store.create(str(tmp_path / "s"), bank.store.manifest, bank.store.examples())
    with pytest.raises(ValueError, match="has no arm yet"):
        select_arm(store, None)
    for design, keep in (("iid", 0.7), ("iid", 0.5)):
        store.add_arm({"name": f"{design}-k{keep:.3f}", "design": design, "keep": keep, "block": 1, "clusters": None})
    with pytest.raises(ValueError, match=r"has 2 arms .* choose with --arm: iid-k0.500, iid-k0.700"):
        select_arm(store, None)
    assert select_arm(store, "k0.700") == select_arm(store, "iid-k0.700") == "iid-k0.700"
    with pytest.raises(ValueError, match=r"unknown arm 'iid-k0.600'"):
        select_arm(store, "iid-k0.600")
    with pytest.raises(ValueError, match="has no models"):
        run_audit(store, build_network("mlp-32", (1, 8, 8), 10, 0), bank.splits, arm="k0.700")


def test_outputs_that_are_not_finite_are_refused(bank):
    model = build_network("mlp-32", (1, 8, 8), 10, 0)
    with torch.no_grad():
        model.head.weight.fill_(3e38)
    with pytest.raises(ValueError, match=r"outputs are not finite on .* check its weights, --mean and --std"):
        run_audit(bank.store, model, bank.splits)


def test_clopper_pearson_is_scipys_exact_interval():
    for k, n in ((0, 10), (10, 10), (3, 10), (1, 2000), (700, 2000)):
        lo, hi = clopper_pearson(np.array(k), np.array(n), 0.025)
        exact = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
        assert (float(lo), float(hi)) == pytest.approx((exact.low, exact.high), rel=1e-9)


def test_epsilon_of_a_perfect_attack_is_what_its_counts_allow():
    """50 right of 50 and 0 wrong of 50 on the second half: (a)^(1/50) over 1 - (a)^(1/50), a = .025."""
    member = np.arange(200) < 100
    result = epsilon_lower_bound(member * 1.0, member, np.random.default_rng(0))
    end = 0.025 ** (1 / 50)
    assert result.value == pytest.approx(np.log(end / (1 - end)))
    assert (result.hits, result.of_hits, result.false, result.of_false) == (50, 50, 0, 50)


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_randomized_response_never_has_its_epsilon_overstated(epsilon):
    """Members say 1 with odds e^epsilon, others with odds e^-epsilon: exactly epsilon-DP.

    At most 5 % of bounds may lie above; of 200, 18 or more would be that bad luck with probability .01. With
    2,000 examples a side most of epsilon is result.
    """
    rng = np.random.default_rng(1)
    member, bounds = np.arange(4000) < 2000, []
    for _ in range(200):
        answers = rng.random(4000) < 1 / (1 + np.exp(-epsilon))
        bounds.append(epsilon_lower_bound(np.where(answers, member, ~member) * 1.0, member, rng).value)
    assert (np.array(bounds) > epsilon).sum() < 18
    assert np.mean(bounds) > epsilon - 0.2


def test_trap_a_threshold_chosen_on_the_examples_that_it_is_read_on_overstates_epsilon():
    """Bug: the best of all thresholds on the very same noise, whose epsilon is 0.

    At level .5 half of the bounds may err; of 100, 64 or more would by bad luck with probability .004.
    """
    rng = np.random.default_rng(2)
    member, n, bug, ours = np.arange(600) < 300, np.array(300), [], []
    for _ in range(100):
        scores = rng.normal(size=600)
        cuts = np.sort(scores)[:-1]
        tp, fp = ((scores[side][None] > cuts[:, None]).sum(1) for side in (member, ~member))
        ends = [(clopper_pearson(*hits, 0.25)[0], clopper_pearson(*false, 0.25)[1])
                for hits, false in (((tp, n), (fp, n)), ((n - fp, n), (n - tp, n)))]  # fmt: skip
        bug.append(any((lo > hi).any() for lo, hi in ends))
        ours.append(epsilon_lower_bound(scores, member, rng, level=0.5).value > 0)
    assert np.sum(bug) >= 64
    assert np.sum(ours) < 64


def test_a_half_without_members_gives_no_bound():
    result = epsilon_lower_bound(np.arange(10.0), np.arange(10) == 3, np.random.default_rng(0))
    assert np.isnan(result.value)


def test_bounds_by_every_method_stand_in_the_file_and_on_the_page(bank, half, own_model):
    result = run_audit(bank.store, own_model, normalize_splits(bank), member=half, delta=1e-5)
    metadata = {key.decode(): value.decode() for key, value in result.table.schema.metadata.items()}
    stored = {bound["method"]: bound for bound in json.loads(metadata["epsilon_bounds"])}
    assert stored["clopper-pearson"]["counts"]["of_hits"] == 100
    assert stored["clopper-pearson"]["value"] <= result.epsilon.value < stored["clopper-pearson"]["ceiling"]
    assert stored["one-run"]["value"] > 0
    assert stored["gdp"]["epsilon"] > 0
    assert {(bound["delta"], bound["splits"]) for bound in stored.values()} == {(1e-5, 20)}
    console = Console(width=110, record=True)
    print_audit(console, result, "somewhere")
    assert "epsilon, one run f-DP" in console.export_text()


def test_a_delta_that_is_no_probability_is_refused_before_anything_is_computed(bank, own_model):
    with pytest.raises(ValueError, match=r"delta must lie in \[0, 1\), got 1"):
        run_audit(bank.store, own_model, normalize_splits(bank), arm="no such arm", delta=1.0)
