"""An audit is trusted where model, shadow models and list of members go together, and says why where they do not."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from memscore import attack, estimate
from memscore.analysis.audit import run_audit
from memscore.analysis.audit_report import build_audit_record, build_bank_command
from memscore.analysis.audit_trust import (
    GroupAccuracy,
    Observations,
    compute_detectable_auc,
    conclude,
    find_class_order,
    find_member_reasons,
    find_missing_members,
    find_model_reasons,
)
from memscore.analysis.calibration import AuditedThreshold
from memscore.analysis.shadow_targets import ShadowTargets
from memscore.data.datasets import load_dataset
from memscore.models.architectures import build_network
from memscore.pipeline.config import BankConfig
from memscore.pipeline.reload_data import reload_splits
from memscore.pipeline.train_bank import build_shared_data, train_missing
from memscore.statistics.calibrated_threshold import DecisionRates
from memscore.statistics.intervals import Interval
from memscore.statistics.shadow_fit import Limits
from memscore.store.store import Store
from memscore.store.verify import verify
from tests.cases._own_model import draw_members, train_by_recipe
from tests.fixtures.opened import open_bank

PLAN = BankConfig(
    data="digits", arch="mlp-32", train_limit=400, label_noise=0.25, epochs=20, lr=0.1, batch=20, design="exact",
    block=16, models=16, originals=0,
)  # fmt: skip


class InOrder:
    def run(self, fn, jobs, shared=None):
        for job in jobs:
            yield job, fn(job, shared)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """16 models of 200 of 400 digits, a quarter of the labels wrong: members are told from others easily."""
    bank = open_bank(replace(PLAN, store=str(tmp_path_factory.mktemp("trust") / "store")))
    arm = bank.arms[0]
    bank.store.add_arm({
        "name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None,
    })  # fmt: skip
    train_missing(bank.store, bank.arms, 16, build_shared_data(bank.splits, None), InOrder())
    return bank.store


@pytest.fixture(scope="module")
def splits(store):
    return reload_splits(store)


@pytest.fixture(scope="module")
def member():
    return draw_members(400, seed=0)


def train(store, splits, member, seed=1, arch="mlp-32", wrapped=None):
    model = build_network(arch, splits.input_shape, splits.n_classes, seed)
    model = nn.Sequential(model, wrapped) if wrapped else model
    return train_by_recipe(Path(store.folder.path("")), model, splits, member, seed)


@pytest.fixture(scope="module")
def model(store, splits, member):
    """Of the bank's recipe and architecture."""
    return train(store, splits, member)


class Changed(nn.Module):
    """A network whose outputs go through a function."""

    def __init__(self, network, change):
        super().__init__()
        self.network, self.change = network, change

    def forward(self, images):
        return self.change(self.network(images))


@pytest.mark.parametrize("seed", range(10, 16))
def test_a_model_of_the_banks_recipe_is_trusted(store, splits, seed):
    member = draw_members(400, seed)
    result = run_audit(store, train(store, splits, member, seed), splits, member=member)
    assert result.reasons == ()
    assert result.trusted
    assert result.causes == ()
    assert "evidence of leakage" in result.conclusion
    assert "private" not in result.conclusion
    assert abs(result.curves["lira"].auc.value - result.bank_auc) < 0.1


def test_log_probabilities_are_logits(store, splits, member, model):
    plain = run_audit(store, model, splits, member=member)
    log = run_audit(store, Changed(model, lambda x: x.log_softmax(1)), splits, member=member)
    assert log.trusted
    assert log.curves["lira"].auc.value == pytest.approx(plain.curves["lira"].auc.value, abs=1e-3)


SWAPPED = [0, 1, 2, 8, 4, 5, 6, 7, 3, 9]
OUTPUTS = {
    "softmax": (lambda x: x.softmax(1), "already probabilities"),
    "percentages": (lambda x: 100 * x.softmax(1), "already probabilities"),
    "sigmoid": (torch.sigmoid, "between 0 and 1"),
    "constant": (lambda x: 0 * x + torch.arange(10.0), "same for every image"),
    "cold": (lambda x: 10 * x, "confidence in examples"),
    "hot": (lambda x: 0.1 * x, "confidence in examples"),
    "shuffled": (lambda x: x.roll(1, 1), "classes are in another order"),
    "two swapped": (lambda x: x[:, SWAPPED], r"another order than the bank's \(3 is 8, 8 is 3\)"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_are_no_logits_of_the_bank_are_named(store, splits, member, model, name):
    change, reason = OUTPUTS[name]
    result = run_audit(store, Changed(model, change), splits, member=member)
    assert not result.trusted
    assert result.conclusion.startswith("not trusted: ")
    assert re.search(reason, result.reasons[0])


def test_an_untrained_network_is_near_chance(store, splits, member):
    network = build_network("mlp-32", splits.input_shape, splits.n_classes, 5).eval()
    result = run_audit(store, network, splits, member=member)
    assert result.reasons[0].startswith("it looks untrained or trained on other labels: its accuracy is 0.")
    assert not run_audit(store, network, splits).trusted  # without a list too


def describe_answers(predicted, labels, lo, manifest):
    """The first reason for a model with these answers, where the bank's models are right on a share of `lo` or more."""
    group = GroupAccuracy(
        value=float((predicted == labels).mean()), examples=len(labels), bank=lo + 0.1, limits=Limits(lo=lo, hi=1.0)
    )
    seen = Observations(
        output_kind="", predicted=predicted, labels=labels, accuracies={"train": group}, fits={}, models=64
    )
    return next(iter(find_model_reasons(seen, manifest)))


def test_another_order_of_classes_is_the_reason_only_where_it_explains_the_answers(store):
    """Beside a weak bank: an order of classes suits an untrained network too, which answers with three of ten."""
    labels, rng = np.arange(1000) % 10, np.random.default_rng(0)
    few = np.where(labels == 1, 0, np.where(labels == 2, 3, 7))
    assert (find_class_order(few, labels, 10)[few] == labels).mean() == 0.3
    assert describe_answers(few, labels, 0.25, store.manifest).startswith("it looks untrained or trained on other la")
    order = np.roll(np.arange(10), 1)
    weak = np.where(rng.random(1000) < 0.4, order[labels], rng.integers(0, 10, 1000))
    assert describe_answers(weak, labels, 0.25, store.manifest).startswith("its classes are in another order")


def test_other_networks_and_recipes_are_told_by_their_confidence(store, splits, member):
    manifest = store.manifest
    for changed in (
        train(store, splits, member, arch="mlp-16-16-16"),
        train(store, splits, np.ones(400, bool)),  # on everything, but half of it is listed
    ):
        result = run_audit(store, changed, splits, member=member)
        assert not result.trusted
        assert result.causes or "the list is not" in result.reasons[0]
    assert manifest == store.manifest


def test_wrong_constants_are_named_with_those_that_fit(store, splits, member, model):
    result = run_audit(store, model, replace(splits, mean=(0.0,), std=(1.0,)), member=member)
    assert not result.trusted
    mean, std = store.manifest.mean[0], store.manifest.std[0]
    assert result.causes[-1].startswith(f"normalization: with --mean {mean:.4g} --std {std:.4g} the model fits")

    class Scaled(nn.Module):
        """The same network for pixels of 0 to 255."""

        def forward(self, images):
            return model((images / 255 - mean) / std)

    right = run_audit(store, Scaled(), replace(splits, mean=(0.0,), std=(1 / 255,)), member=member)
    assert right.trusted
    wrong = run_audit(store, Scaled(), splits, member=member)
    assert not wrong.trusted
    assert wrong.causes[-1].startswith("normalization: with --mean 0 --std 0.003922 the model fits")


def test_lists_that_are_not_of_the_members_are_named(store, splits, member, model):
    inverted = run_audit(store, model, splits, member=~member)
    assert "the list may be inverted" in inverted.reasons[0]
    for other in (np.roll(member, 1), np.random.default_rng(0).permutation(member)):
        result = run_audit(store, model, splits, member=other)
        assert "the list is not of this model's members" in result.reasons[0]
        assert not result.trusted
    everyone = run_audit(store, model, splits, member=np.ones(400, bool))
    assert "all of the bank's 400 training examples are listed" in everyone.reasons[0]
    assert run_audit(store, model, splits).trusted  # nothing is wrong with the model itself


def test_lists_are_judged_by_the_auc_where_accuracies_are_alike():
    """As in a bank whose models are right on all examples; each case is one of the reasons, or none."""
    right = GroupAccuracy(value=1.0, examples=200, bank=1.0, limits=Limits(lo=0.9, hi=1.0))
    accuracies, member = {"members": right, "others": right}, np.arange(400) < 200
    targets = ShadowTargets(
        aucs=np.linspace(0.62, 0.68, 16), auc_se=0.02, scores=np.zeros((16, 400)), member=np.ones((16, 400), bool)
    )

    def find(value, reach, member=member, fits=True):
        area = Interval(value=value, lo=value - reach, hi=value + reach)
        return list(find_member_reasons(member, area, accuracies, targets, fits=fits))

    assert "may be inverted" in find(0.40, 0.05)[0]
    assert "may be inverted" in find(0.40, 0.05, fits=False)[0]
    assert "the list is not of this model's members" in find(0.50, 0.05)[0]
    assert find(0.50, 0.05, fits=False) == []  # of a model that does not fit, a low AUC says nothing of the list
    assert find(0.50, 0.20) == []  # and nothing where it is as uncertain as that
    assert find(0.62, 0.05) == find(0.90, 0.05) == []
    assert find(0.50, 0.05, member=np.arange(400) < 3) == []
    assert "none of" in find(0.5, 0.05, member=np.zeros(400, bool))[0]


@pytest.mark.parametrize(
    ("realised", "non_members", "named"), [(0.036, 900, True), (0.012, 900, False), (0.5, 9, False)]
)
def test_a_list_that_lacks_members_is_named_by_what_is_flagged_outside_it(realised, non_members, named):
    """Half of 600 members are not listed: 1 % of 600 non-members and 9 % of 300 members are flagged, 3.6 % of all."""
    around = Interval(value=0.01, lo=0.0095, hi=0.0105)
    rates = DecisionRates(
        fpr=around, fpr_sd=0.003, tpr=around, precision={}, targets=64, false_positives=1, negatives=100
    )
    half = 1.96 * float(np.sqrt(realised * (1 - realised) / non_members))
    each = AuditedThreshold(
        nominal_fpr=0.01,
        threshold=1.3,
        expected=rates,
        flagged=50,
        of=1200,
        realised_fpr=Interval(value=realised, lo=realised - half, hi=realised + half),
        non_members=non_members,
    )
    reasons = list(find_missing_members([each, each]))
    assert len(reasons) == named
    assert not named or "3.6 % of the 900 that are not listed as members are flagged at LiRA > 1.3" in reasons[0]
    assert not list(find_missing_members([replace(each, realised_fpr=None)]))


def test_the_expected_fpr_is_that_of_fresh_models(store, splits):
    """Of 8 fresh models, whose non-members are known, within 4 standard errors of the bank's own."""
    rates = []
    for seed in range(20, 28):
        member = draw_members(400, seed)
        result = run_audit(store, train(store, splits, member, seed), splits, member=member)
        flagged = np.array(result.table["verdict"].to_pylist(), bool)
        rates.append(flagged[~member].mean())
    se = np.hypot(np.std(rates, ddof=1) / np.sqrt(8), result.expected_fpr_sd / np.sqrt(16))
    assert abs(np.mean(rates) - result.expected_fpr) < 4 * se
    stricter = run_audit(store, train(store, splits, member, seed), splits, threshold=3.0)
    assert stricter.expected_fpr < result.expected_fpr


@pytest.fixture
def files(store, splits, member, model, tmp_path):
    save_file({f"_orig_mod.{name}": t for name, t in model.state_dict().items()}, tmp_path / "own.safetensors")
    (tmp_path / "members.txt").write_text("\r\n".join(splits.train.ids[member].tolist()), encoding="utf-8-sig")
    (tmp_path / "others.txt").write_text("\n".join(splits.train.ids[~member].tolist()))
    return tmp_path


def run_command(store, files, *words, members="members.txt"):
    model, members = str(files / "own.safetensors"), str(files / members)
    return attack.main([*words, "--model", model, "--arch", "mlp-32", "--members", members, "--device", "cpu"])


def test_the_page_ends_in_its_conclusion_and_the_files_have_it(store, files, capsys):
    assert run_command(store, files, store.url) == 0
    page = capsys.readouterr().out.splitlines()
    assert "evidence of leakage" in page[-1]
    assert not any("were members" in line or "to do" in line for line in page)
    assert any("at an expected FPR of" in line for line in page)
    assert any("'_orig_mod.'" in line for line in page)
    reports = Path(store.folder.path("reports"))
    [path] = reports.glob("audit-own-*.json")
    record = json.loads(path.read_text())
    assert record["trusted"] is True
    assert record["reasons"] == []
    assert record["conclusion"] == page[-1]
    assert record["members"] == 200
    assert record["flagged"] + record["undefined"] <= 400
    metadata = pq.read_schema(path.with_suffix(".parquet")).metadata
    assert json.loads(metadata[b"trusted"]) is True
    assert json.loads(metadata[b"curves"]) == record["curves"]
    assert path.relative_to(reports.parent).as_posix() not in verify(store).damaged


def test_an_audit_that_is_not_trusted_exits_with_0_and_names_a_bank_that_fits(store, files, capsys):
    out = files / "there.parquet"
    words = (store.url, "--mean", "0", "--std", "1", "--out", str(out))
    assert run_command(store, files, *words, members="others.txt") == 0
    page = capsys.readouterr().out.splitlines()
    assert page[-1].startswith("not trusted: ")
    at = page.index("to do     train a bank that fits:")  # the command alone on its line, to be copied
    command = "  python -m memscore.estimate --data digits --train-limit 400 --label-noise 0.25 --arch mlp-32"
    assert page[at + 1] == f"{command} --recipe digits --epochs 20 --batch 20"
    assert "the recipe there is this bank's: put in that of your model" in page[at + 2]
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["trusted"] is False
    assert len(record["reasons"]) >= 2
    assert all(any(reason in line for line in page) for reason in record["reasons"])
    assert json.loads(pq.read_schema(out).metadata[b"reasons"]) == record["reasons"]
    assert attack.main([*words[:-1], str(files / "x.json"), "--model", "m", "--arch", "mlp"]) == 2


def test_the_advised_command_reads_the_same_data(store, splits):
    words = build_bank_command(store, "mlp-32", None, None).split()
    options = dict(zip(words[3::2], words[4::2], strict=True))
    again = load_dataset(
        options["--data"],
        train_limit=int(options["--train-limit"]),
        label_noise=float(options["--label-noise"]),
        seed=0,
    )
    assert again.fingerprint == splits.fingerprint


def build_own_network(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes))


def test_the_advised_command_can_be_pasted_for_own_images_and_an_own_network(tmp_path):
    """All options that decide what is read, and a recipe, which an own network does not have by default."""
    images = tmp_path / "own images"
    for number in range(60):
        file = images / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9 + number % 3, 10, 3), np.uint8)
        Image.fromarray(pixels).save(file)
    store = str(tmp_path / "s")
    words = ["--data", str(images), "--image-size", "6x8", "--test", "0.25", "--validation", "0.2", "--skip-bad"]
    words += ["--arch", "mlp-4", "--recipe", "small-vit", "--epochs", "2", "--milestones", "1", "--schedule", "steps"]
    words += ["--augment", "none", "--batch", "4", "--store", store, "--pool", "serial", "--proxies", "none"]
    words += ["--design", "exact", "--block", "2", "--models", "2", "--originals", "0", "--device", "cpu"]
    assert estimate.main(words) == 0
    bank = Store.open(store)
    advised = shlex.split(build_bank_command(bank, f"{__name__}:build_own_network", None, None))
    assert advised[:3] == ["python", "-m", "memscore.estimate"]
    again = tmp_path / "again"
    assert estimate.main([*advised[3:], *words[words.index("--store") :], "--store", str(again)]) == 0
    made = Store.open(str(again)).manifest
    assert (made.fingerprint, made.recipe) == (bank.manifest.fingerprint, bank.manifest.recipe)
    assert made.architecture == f"{__name__}:build_own_network"


def test_the_store_is_a_plain_word_and_the_option_is_still_understood(store, files, capsys):
    assert run_command(store, files, "--store", store.url) == 0
    assert "--store is not needed" in capsys.readouterr().err
    assert run_command(store, files, f"--store={store.url}") == 0
    assert "--store is not needed" in capsys.readouterr().err
    assert run_command(store, files, store.url) == 0
    assert capsys.readouterr().err == ""


def test_a_bank_of_two_models_is_too_small_to_tell(tmp_path, splits, member, model):
    bank = open_bank(replace(PLAN, store=str(tmp_path / "s"), block=2, models=2, epochs=1))
    arm = bank.arms[0]
    bank.store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    train_missing(bank.store, bank.arms, 2, build_shared_data(bank.splits, None), InOrder())
    result = run_audit(Store.open(bank.store.url), model, splits, member=member)
    assert any("2 shadow models are too few" in reason for reason in result.reasons)
    assert np.isnan(result.expected_fpr)
    assert build_audit_record(result, "own")["confidence_among_shadow_models"] == {"validation": None, "test": None}


def test_conclusions_never_say_more_than_is_known():
    wide, high = Interval(value=0.52, lo=0.45, hi=0.59), Interval(value=0.7, lo=0.6, hi=0.8)
    nan = float("nan")
    assert "no evidence of leakage at this power" in conclude([], wide, (100, 100), 0.0, 0.55)
    assert f"{compute_detectable_auc(100, 100):.3f}" in conclude([], wide, (100, 100), 0.0, 0.55)
    assert "evidence of leakage, members" in conclude([], high, (100, 100), 0.0, nan)
    assert "evidence of leakage, members" in conclude([], wide, (100, 100), 0.3, nan)
    assert "no conclusion" in conclude([], None, (0, 0), nan, 0.6)
    assert "nothing to conclude" in conclude([], Interval(value=nan, lo=nan, hi=nan), (3, 3), nan, 0.6)
    assert conclude(["a", "b"], high, (3, 3), 1.0, 0.6) == "not trusted: a (and 1 more above)"


def test_the_detectable_auc_is_detected_four_times_of_five():
    """Normal scores with that AUC: of 400 tests .8 +- 4 standard errors find it; half the distance is found less."""
    from scipy.stats import mannwhitneyu, norm

    rng, n = np.random.default_rng(0), 80
    least = compute_detectable_auc(n, n)
    for auc, expected in ((least, 0.8), (0.5, 0.05)):
        shift = norm.ppf(auc) * np.sqrt(2)
        found = [mannwhitneyu(rng.normal(shift, 1, n), rng.normal(size=n)).pvalue < 0.05 for _ in range(400)]
        assert abs(np.mean(found) - expected) < 4 * np.sqrt(expected * (1 - expected) / 400)
    assert compute_detectable_auc(3, 2) == 1.0
    assert np.isnan(compute_detectable_auc(0, 5))


def test_the_order_of_classes_that_is_right_most_often_is_found():
    labels = np.arange(1000) % 7
    order = np.array([3, 1, 2, 6, 4, 0, 5])  # output k stands for label order[k]
    predicted = np.argsort(order)[labels]
    np.testing.assert_array_equal(find_class_order(predicted, labels, 7), order)
    # nothing moves where nothing is known
    np.testing.assert_array_equal(find_class_order(np.zeros(0, np.int64), np.zeros(0, np.int64), 4), np.arange(4))
