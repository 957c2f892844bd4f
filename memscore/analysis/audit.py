"""Audit a model that was trained elsewhere: evidence of membership, with all models of a bank as shadow models.

For each training example of the bank: LiRA online (a log-likelihood ratio, Student-t), LiRA offline (a normal deviate,
one-sided) and RMIA (a share of validation examples, and the ratio that it counts), each against every model of one arm.
The audited model is not in the bank, so every shadow model is used: see memscore/estimators/lira.py.

The evidence compares the model with the bank's own: a model trained by another recipe, for longer or on more examples,
has higher or lower confidence on all examples. That shifts all evidence, so an audit also checks whether the model fits
the shadow models, and says why it is not to be trusted (memscore/analysis/audit_trust.py).
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from memscore.analysis import audit_trust as trust
from memscore.analysis.arms import check_arm, select_arm
from memscore.analysis.audit_trust import GroupAccuracy, Observations
from memscore.analysis.calibration import AuditDecisions, assess_decisions, encode_decisions
from memscore.analysis.shadow_targets import (
    attack_shadow_models,
    compute_shadow_accuracies,
    read_held_out,
)
from memscore.data.splits import Splits
from memscore.estimators.lira import external_lira_scores, fit_external_prior
from memscore.estimators.rmia import RmiaConfig, compute_share_below, external_rmia_population, external_rmia_ratio
from memscore.models.output_kinds import find_output_kind
from memscore.pipeline.attacks import ATTACKS, build_attack_context
from memscore.pipeline.jobs import read_recipe
from memscore.pipeline.train_bank import build_shared_data
from memscore.seeds import generator, torch_seed
from memscore.statistics.epsilon_bound import EpsilonBound, epsilon_lower_bound
from memscore.statistics.intervals import Interval
from memscore.statistics.privacy_bounds import PrivacyBound, bound_privacy, validate_delta
from memscore.statistics.roc import RateAtFpr, auc_interval, tpr_at_fpr
from memscore.statistics.shadow_fit import ShadowFit, fit_shadows
from memscore.store.json_records import replace_nonfinite
from memscore.store.parquet import to_table, update_content_hash
from memscore.store.shards import hash_shards
from memscore.store.store import Store
from memscore.subsets.clustering import count_models_in_partial_blocks
from memscore.subsets.designs import parse_arm_record
from memscore.training.device_data import to_device
from memscore.training.evaluation import build_forward, choose_evaluation_batch, evaluate_examples
from memscore.training.numerics import float32_matmul, open_device, single_threaded
from memscore.training.recipes import BFLOAT16_PRODUCTS
from memscore.units import format_count

_log = logging.getLogger(__name__)
BLOCK_BYTES = 64 * 2**20  # of two consecutive blocks of the bank
EPSILON_SPLITS = 20  # how often the halves behind the bounds are drawn; the first draw counts
EVIDENCE = ("lira", "lira_offline", "rmia")
ORDERED_BY = {"rmia": "rmia_ratio"}
"""Evidence whose curve is of another column, which orders examples alike and breaks the ties."""
OUTPUTS_CHECKED = 4096  # images whose outputs are kept to tell logits from probabilities


@dataclass(frozen=True, kw_only=True)
class RocSummary:
    """How well one kind of evidence separates members from others, with 95 % intervals for other examples."""

    auc: Interval
    tpr_at_001: RateAtFpr  # at a false positive rate of .1 %; no value with fewer than 1,000 others
    tpr_at_01: RateAtFpr


class Predictions(NamedTuple):
    """What a model predicts for some rows of the bank.

    Attributes:
        columns: of evaluate_examples, [n] each.
        predicted: classes, int64 [n].
        output_kind: of find_output_kind, over the first rows.
    """

    columns: dict[str, np.ndarray]
    predicted: np.ndarray
    output_kind: str


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditResult:
    """The result of an audit.

    Attributes:
        arm: whose models are the shadow models.
        models: their number.
        unfinished: those in blocks that are not whole.
        threshold: of LiRA online; an example is flagged above it.
        table: one row per training example: row, id, label, evidence, counts, verdict and, if it is known, the truth.
        curves: evidence -> how well it separates; empty where the truth is not known.
        epsilon: lower bound from LiRA online; None where the truth is not known.
        epsilon_bounds: the same by several methods; none where the truth is not known.
        decisions: rates at the threshold and at calibrated ones, leakage by group, the bank's outlying models.
        accuracy: of the model on the bank's training, validation and test examples; NaN over none.
        accuracies: by group beside the bank's models: members and others where they are known, else train.
        fits: split -> how the model's confidences lie among the shadow models'; None where that is unknown.
        expected_fpr: mean share of flagged non-members of the bank's own models, attacked in the same way; NaN if none.
        expected_fpr_sd: its standard deviation over these models.
        bank_auc: mean AUC of LiRA online on the bank's own models.
        reasons: not to trust the audit, the gravest first; none if it is trusted.
        causes: what may be behind them.
        conclusion: one sentence.
    """

    arm: str
    models: int
    unfinished: int
    threshold: float
    table: pa.Table
    curves: dict[str, RocSummary]
    epsilon: EpsilonBound | None
    epsilon_bounds: tuple[PrivacyBound, ...]
    decisions: AuditDecisions
    accuracy: dict[str, float]
    accuracies: dict[str, GroupAccuracy]
    fits: dict[str, ShadowFit | None]
    expected_fpr: float
    expected_fpr_sd: float
    bank_auc: float
    reasons: tuple[str, ...]
    causes: tuple[str, ...]
    conclusion: str

    @property
    def trusted(self) -> bool:
        """Whether no check gives a reason not to trust the audit."""
        return not self.reasons


def run_audit(
    store: Store,
    model: nn.Module,
    splits: Splits,
    *,
    arm: str | None = None,
    member: np.ndarray | None = None,
    threshold: float = 0.0,
    delta: float = 0.0,
    config: RmiaConfig | None = None,
    device: str = "cpu",
    suspicions: Sequence[str] = (),
) -> AuditResult:
    """Compute evidence of membership for each training example, how well it separates, and whether to trust it.

    The splits are the bank's data with the mean and std that the model needs; member is the truth, bool [n_train]; the
    threshold is in nats of LiRA online, delta that of the bounds on epsilon; suspicions are of the file of weights.
    Nothing is written. ValueError for an arm without models, a delta outside [0, 1), and outputs that are not finite.
    """
    if not np.isfinite(threshold):
        raise ValueError(f"--threshold must be a finite number of nats, got {threshold}; 0 is where in is the likelier")
    validate_delta(delta)
    name = select_arm(store, arm)
    shards = check_arm(store, name).valid
    indices = sorted(shards)
    # 1. Evidence from the model's confidence beside that of every shadow model.
    predictions = compute_predictions(store, model, splits, device)
    confidence, correct = predictions.columns["logit_confidence"], predictions.columns["correct"]
    require_finite(store, confidence)
    n_train = store.manifest.split_sizes[0]
    evidence = compute_evidence(store, name, indices, confidence, config or RmiaConfig())
    # 2. With the truth: how well each evidence separates, and a bound on epsilon. Examples without evidence, as those
    # that all shadow models were trained on, are left out.
    curves, epsilon = {}, None
    epsilon_bounds: tuple[PrivacyBound, ...] = ()
    if member is not None:
        curves = {
            kind: compute_roc_summary(evidence[ORDERED_BY.get(kind, kind)], member)
            for kind in EVIDENCE
            if kind in evidence
        }
        defined = ~np.isnan(evidence["lira"])
        rng = generator(store.manifest.seed, "validation", "audit-halves")
        epsilon = epsilon_lower_bound(evidence["lira"][defined], member[defined], rng)
        # the first draw of the halves is that of the bound above
        rngs = [generator(store.manifest.seed, "validation", "audit-halves", k) for k in range(EPSILON_SPLITS)]
        epsilon_bounds = bound_privacy(evidence["lira"][defined], member[defined], rngs, delta=delta)
    # 3. Whether that can be trusted: the same of the bank's own models, and what they and the model do alike.
    targets = attack_shadow_models(store, name, indices)
    decisions = assess_decisions(store, name, indices, targets, evidence["lira"], threshold, member)
    held_out = read_held_out(store, name, indices)
    groups = split_groups(correct, store.manifest.split_sizes, member)
    seen = Observations(
        output_kind=predictions.output_kind,
        predicted=predictions.predicted,
        labels=collect_labels(splits),
        accuracies=trust.compare_accuracies(groups, compute_shadow_accuracies(store, name, indices)),
        fits={split: fit_shadows(confidence[rows], phi) for split, (rows, phi) in held_out.items()},
        models=len(indices),
        suspicions=tuple(suspicions),
    )
    reasons = list(trust.find_model_reasons(seen, store.manifest))
    used = (splits.mean, splits.std)
    predict = partial(predict_otherwise, store, model, splits, device)
    causes = list(trust.find_causes(seen, store.manifest, used, held_out, predict)) if reasons else []
    if member is not None:
        reasons += trust.find_member_reasons(member, curves["lira"].auc, seen.accuracies, targets, fits=not reasons)
        reasons += [] if reasons else trust.find_missing_members(decisions.thresholds)
    bank_auc, expected = targets.mean_auc, decisions.thresholds[0].expected
    conclusion = trust.conclude(
        reasons,
        curves["lira"].auc if member is not None else None,
        (0, 0) if member is None else (int(member[defined].sum()), int((~member[defined]).sum())),
        float("nan") if epsilon is None else epsilon.value,
        bank_auc,
    )
    # 4. The file says which shards it was computed from, and has the summary beside the rows.
    metadata = {
        "arm": name,
        "models": str(len(shards)),
        "shards_digest": hash_shards(name, shards),
        "verdict": f"lira > {threshold:g}",
        "curves": json.dumps(replace_nonfinite({kind: asdict(curve) for kind, curve in curves.items()})),
        "decisions": encode_decisions(decisions),
        "epsilon": json.dumps(None if epsilon is None else replace_nonfinite(asdict(epsilon))),
        "epsilon_bounds": json.dumps([replace_nonfinite(asdict(bound)) for bound in epsilon_bounds]),
        "trusted": json.dumps(not reasons),
        "reasons": json.dumps(reasons),
    }
    columns = {"logit_confidence": confidence[:n_train], **evidence}
    return AuditResult(
        arm=name,
        models=len(shards),
        unfinished=count_models_in_partial_blocks(shards, parse_arm_record(store.arms()[name]).models_per_block),
        threshold=threshold,
        table=build_table(store, columns, threshold, member, metadata),
        curves=curves,
        epsilon=epsilon,
        epsilon_bounds=epsilon_bounds,
        decisions=decisions,
        accuracy=compute_accuracy(correct, store.manifest.split_sizes),
        accuracies=seen.accuracies,
        fits=seen.fits,
        expected_fpr=expected.fpr.value,
        expected_fpr_sd=expected.fpr_sd,
        bank_auc=bank_auc,
        reasons=tuple(reasons),
        causes=tuple(causes),
        conclusion=conclusion,
    )


def split_groups(correct: np.ndarray, sizes: tuple[int, int, int], member: np.ndarray | None) -> dict[str, np.ndarray]:
    """Split what is right by group: members and others where they are known, else train; validation, test."""
    train, validation, test = np.split(correct, np.cumsum(sizes)[:-1])
    known = {"train": train} if member is None else {"members": train[member], "others": train[~member]}
    return {**known, "validation": validation, "test": test}


def collect_labels(splits: Splits) -> np.ndarray:
    """Collect the labels of all rows, int64 [N]."""
    return np.concatenate([part.labels for part in (splits.train, splits.validation, splits.test)])


def build_table(
    store: Store,
    columns: dict[str, np.ndarray],
    threshold: float,
    member: np.ndarray | None,
    metadata: dict[str, str],
) -> pa.Table:
    """Build one row per training example: row, id, label, columns, verdict (null without evidence), truth if known."""
    n_train = store.manifest.split_sizes[0]
    examples, lira = store.examples().slice(0, n_train), columns["lira"]
    ids = np.array(examples["id"].to_pylist(), dtype=np.str_)
    rows = {"row": np.arange(n_train, dtype=np.int32), "id": ids, "label": examples["label"].to_numpy()}
    table = to_table({**rows, **columns}, metadata)
    table = table.append_column("verdict", pa.array(lira > threshold, mask=np.isnan(lira)))
    # columns were appended after to_table had hashed its own
    return update_content_hash(table if member is None else table.append_column("member", pa.array(member)))


def compute_predictions(
    store: Store, model: nn.Module, splits: Splits, device: str, rows: np.ndarray | None = None
) -> Predictions:
    """Compute a model's predictions for rows of the bank, by default all of them."""
    # with the threads and matrix products of the bank's own models, so that both are rounded alike
    torch_device, shared = open_device(device), build_shared_data(splits, None)
    precision, chosen = store.manifest.precision, slice(None) if rows is None else rows
    # Nothing is trained, and a user's weights may be of any precision: a bank of a GPU is an audit's on a CPU too.
    if (precision, device) == ("tf32", "cpu"):
        _log.warning("the bank's models were evaluated with TF32 in convolutions, this one is in float32, on a CPU")
        precision = "float32"
    elif precision == BFLOAT16_PRODUCTS:  # of training; the bank's models were evaluated in float32 too
        precision = "float32"
    outputs: list[Tensor] = []
    predicted: list[Tensor] = []

    def observe(images: Tensor) -> Tensor:
        logits = forward(images)
        predicted.append(logits.argmax(1))
        if len(outputs) * batch < OUTPUTS_CHECKED:
            outputs.append(logits.clone())
        return logits

    with single_threaded(), float32_matmul(torch_device, precision):
        images = to_device(shared.images[chosen], splits.mean, splits.std, torch_device, flat=False)
        labels = torch.from_numpy(shared.labels[chosen]).to(torch_device)
        forward, seed = build_forward(model.to(torch_device), read_recipe(store)), torch_seed(0, "evaluation", "audit")
        batch = choose_evaluation_batch(model, torch_device)
        columns = evaluate_examples(observe, images, labels, batch, seed=seed)
    return Predictions(columns, torch.cat(predicted).cpu().numpy(), find_output_kind(torch.cat(outputs)))


def require_finite(store: Store, confidence: np.ndarray) -> None:
    """Raise ValueError if outputs are not finite; confidence is of every row of the bank."""
    nonfinite = np.flatnonzero(~np.isfinite(confidence))
    if len(nonfinite):
        first = store.examples()["id"][int(nonfinite[0])].as_py()
        raise ValueError(
            f"the model's outputs are not finite on {format_count(len(nonfinite), 'example')} (first {first}); check "
            "its weights, "
            "--mean and --std"
        )


def predict_otherwise(
    store: Store, model: nn.Module, splits: Splits, device: str, constants: trust.MEAN_STD, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute predictions for some rows under other normalization constants."""
    other = replace(splits, mean=constants[0], std=constants[1])
    return compute_predictions(store, model, other, device, rows).columns


def compute_evidence(
    store: Store, arm: str, indices: list[int], confidence: np.ndarray, config: RmiaConfig
) -> dict[str, np.ndarray]:
    """Compute the evidence of each training example, and the number of shadow models that it uses.

    Confidence is the target's, float [N], in all rows of the bank. The result has lira, lira_offline and, with
    validation examples, rmia and its ratio: float64 [n_train], higher for members; and n_in, n_out: int64 [n_train].
    """
    n_train, n_validation, _ = store.manifest.split_sizes
    train, held_out = slice(0, n_train), slice(n_train, n_train + n_validation)
    # two passes over the training examples, block by block: LiRA's prior is fitted to all of them first
    context = build_attack_context(store, arm, ATTACKS["lira"], indices)
    bank_blocks = ((phi, held) for _, phi, held in read_bank_blocks(store, arm, indices, train))
    prior = fit_external_prior(bank_blocks, context.shadows)
    # RMIA compares each example with the validation examples, which no model of the bank was trained on
    population: np.ndarray | None = None
    if n_validation:
        shadows = np.concatenate([phi for _, phi, _ in read_bank_blocks(store, arm, indices, held_out)], axis=1)
        population = external_rmia_population(confidence[held_out], shadows, config)
    pieces: list[dict[str, np.ndarray]] = []
    # phi and held are [M, n], the shadow models' confidence and membership for one block of examples
    for rows, phi, held in read_bank_blocks(store, arm, indices, train):
        target = confidence[rows]
        online, offline = external_lira_scores(target, phi, held, prior)
        evidence = {"lira": online, "lira_offline": offline}
        if population is not None:
            ratio = external_rmia_ratio(target, phi, held, config)
            evidence |= {"rmia": compute_share_below(population, ratio / config.gamma), "rmia_ratio": ratio}
        pieces.append({**evidence, "n_in": held.sum(0), "n_out": (~held).sum(0)})
    return {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}


def read_bank_blocks(
    store: Store, arm: str, indices: list[int], rows: slice
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield rows, then logit_confidence and member of every model, [M, n] each, one block of examples at a time."""
    for block in store.read_blocks(arm, indices, ["logit_confidence", "member"], rows, BLOCK_BYTES):
        yield block.rows, block.columns["logit_confidence"], block.columns["member"]


def compute_roc_summary(scores: np.ndarray, member: np.ndarray) -> RocSummary:
    """Compute AUC and true-positive rates over the examples that have a score."""
    defined = ~np.isnan(scores)
    scores, member = scores[defined], member[defined]
    return RocSummary(
        auc=auc_interval(scores, member),
        tpr_at_001=tpr_at_fpr(scores, member, 0.001),
        tpr_at_01=tpr_at_fpr(scores, member, 0.01),
    )


def compute_accuracy(correct: np.ndarray, sizes: tuple[int, int, int]) -> dict[str, float]:
    """Compute the share of correct predictions in each split."""
    parts = np.split(correct, np.cumsum(sizes)[:-1])
    return {
        split: float(part.mean()) if len(part) else float("nan")
        for split, part in zip(("train", "validation", "test"), parts, strict=True)
    }
