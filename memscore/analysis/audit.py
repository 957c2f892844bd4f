"""Audit a model that was trained elsewhere: evidence of membership, with all models of a bank as shadow models.

For each training example of the bank: LiRA online (a log-likelihood ratio, Student-t), LiRA offline (a normal deviate,
one-sided) and RMIA (a share of validation examples), each against every model of one arm. The audited model is not in
the bank, so every shadow model is used: see memscore/estimators/lira.py.

The evidence compares the model with the bank's own: a model trained by another recipe, for longer or on more examples,
has higher or lower confidence on all examples. That shifts all evidence alike, which changes the verdict at threshold
0; areas under the curve and rates, which depend on the order of examples only, change less.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from memscore.analysis.arms import check_arm, select_arm
from memscore.data.splits import Splits
from memscore.estimators.lira import external_lira_scores, fit_external_prior
from memscore.estimators.rmia import RmiaConfig, external_rmia, external_rmia_population
from memscore.pipeline.attacks import ATTACKS, build_attack_context
from memscore.pipeline.jobs import read_recipe
from memscore.pipeline.train_bank import build_shared_data
from memscore.seeds import generator, torch_seed
from memscore.statistics.epsilon_bound import EpsilonBound, epsilon_lower_bound
from memscore.statistics.intervals import Interval
from memscore.statistics.roc import auc_interval, tpr_at_fpr
from memscore.store.json_records import replace_nonfinite
from memscore.store.parquet import encode, to_table, update_content_hash
from memscore.store.shards import hash_shards
from memscore.store.store import Store
from memscore.subsets.clustering import count_models_in_partial_blocks
from memscore.subsets.designs import parse_arm_record
from memscore.training.device_data import to_device
from memscore.training.evaluation import build_forward, choose_evaluation_batch, evaluate_examples
from memscore.training.numerics import float32_matmul, open_device, single_threaded

_log = logging.getLogger(__name__)
BLOCK_BYTES = 64 * 2**20  # of two consecutive blocks of the bank
EVIDENCE = ("lira", "lira_offline", "rmia")


@dataclass(frozen=True, kw_only=True)
class RocSummary:
    """How well one kind of evidence separates members from others: 95 % intervals (DeLong; Wilson)."""

    auc: Interval
    tpr_at_001: Interval  # at a false positive rate of .1 %
    tpr_at_01: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditResult:
    """The result of an audit.

    Attributes:
        arm: whose models are the shadow models.
        models: their number.
        unfinished: those in blocks that are not whole.
        threshold: of LiRA online; the verdict is "member" above it.
        table: one row per training example: row, id, label, evidence, counts, verdict and, if it is known, the truth.
        curves: evidence -> how well it separates; empty where the truth is not known.
        epsilon: lower bound from LiRA online; None where the truth is not known.
        accuracy: of the model on the bank's training, validation and test examples; NaN over none.
    """

    arm: str
    models: int
    unfinished: int
    threshold: float
    table: pa.Table
    curves: dict[str, RocSummary]
    epsilon: EpsilonBound | None
    accuracy: dict[str, float]


def run_audit(
    store: Store,
    model: nn.Module,
    splits: Splits,
    *,
    arm: str | None = None,
    member: np.ndarray | None = None,
    threshold: float = 0.0,
    config: RmiaConfig | None = None,
    device: str = "cpu",
) -> AuditResult:
    """Compute evidence of membership for each training example, and how well it separates where the truth is known.

    The splits are the bank's data with the mean and std that the model needs; member is the truth, bool [n_train]; the
    threshold is in nats of LiRA online. Nothing is written. ValueError for an arm without models, and for outputs that
    are not finite.
    """
    if not np.isfinite(threshold):
        raise ValueError(f"--threshold must be a finite number of nats, got {threshold}; 0 is where in is the likelier")
    name = select_arm(store, arm)
    shards = check_arm(store, name).valid
    # evidence from the model's confidence beside that of every shadow model
    predictions = compute_predictions(store, model, splits, device)
    n_train = store.manifest.split_sizes[0]
    evidence = compute_evidence(store, name, sorted(shards), predictions["logit_confidence"], config or RmiaConfig())
    # with the truth: how well each evidence separates, and a bound on epsilon. Examples without evidence, as those that
    # all shadow models were trained on, are left out.
    curves, epsilon = {}, None
    if member is not None:
        curves = {kind: compute_roc_summary(evidence[kind], member) for kind in EVIDENCE if kind in evidence}
        defined = ~np.isnan(evidence["lira"])
        rng = generator(store.manifest.seed, "validation", "audit-halves")
        epsilon = epsilon_lower_bound(evidence["lira"][defined], member[defined], rng)
    # the file says which shards it was computed from, and has the summary beside the rows
    metadata = {
        "arm": name,
        "models": str(len(shards)),
        "shards_digest": hash_shards(name, shards),
        "verdict": f"lira > {threshold:g}",
        "curves": json.dumps(replace_nonfinite({kind: asdict(curve) for kind, curve in curves.items()})),
        "epsilon": json.dumps(None if epsilon is None else replace_nonfinite(asdict(epsilon))),
    }
    columns = {"logit_confidence": predictions["logit_confidence"][:n_train], **evidence}
    return AuditResult(
        arm=name,
        models=len(shards),
        unfinished=count_models_in_partial_blocks(shards, parse_arm_record(store.arms()[name]).models_per_block),
        threshold=threshold,
        table=build_table(store, columns, threshold, member, metadata),
        curves=curves,
        epsilon=epsilon,
        accuracy=compute_accuracy(predictions["correct"], store.manifest.split_sizes),
    )


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


def compute_predictions(store: Store, model: nn.Module, splits: Splits, device: str) -> dict[str, np.ndarray]:
    """Compute a model's predictions for every row of the bank: the columns of evaluate_examples."""
    # with the threads and matrix products of the bank's own models, so that both are rounded alike
    torch_device, shared = open_device(device), build_shared_data(splits, None)
    precision = store.manifest.precision
    # Nothing is trained, and a user's weights may be of any precision: a bank of a GPU is an audit's on a CPU too.
    if (precision, device) == ("tf32", "cpu"):
        _log.warning("the bank's models were evaluated with TF32 in convolutions, this one is in float32, on a CPU")
        precision = "float32"
    with single_threaded(), float32_matmul(torch_device, precision):
        images = to_device(shared.images, splits.mean, splits.std, torch_device, flat=False)
        labels = torch.from_numpy(shared.labels).to(torch_device)
        forward, seed = build_forward(model.to(torch_device), read_recipe(store)), torch_seed(0, "evaluation", "audit")
        batch = choose_evaluation_batch(model, torch_device)
        predictions = evaluate_examples(forward, images, labels, batch, seed=seed)
    nonfinite = np.flatnonzero(~np.isfinite(predictions["logit_confidence"]))
    if len(nonfinite):
        first = store.examples()["id"][int(nonfinite[0])].as_py()
        raise ValueError(
            f"the model's outputs are not finite on {len(nonfinite)} examples (first {first}); check its weights, "
            "--mean and --std"
        )
    return predictions


def compute_evidence(
    store: Store, arm: str, indices: list[int], confidence: np.ndarray, config: RmiaConfig
) -> dict[str, np.ndarray]:
    """Compute the evidence of each training example, and the number of shadow models that it uses.

    Confidence is the target's, float [N], in all rows of the bank. The result has lira, lira_offline and, with
    validation examples, rmia: float64 [n_train], higher for members; and n_in, n_out: int64 [n_train].
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
            evidence["rmia"] = external_rmia(target, phi, held, population, config)
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


def write_audit(store: Store, result: AuditResult, model: str, out: str | None) -> str:
    """Write the table as Parquet to `out`, else into the bank's reports/ by the model's file name; return the path."""
    content = encode(result.table)
    if out is not None:
        try:
            Path(out).write_bytes(content)
        except OSError as error:
            raise OSError(f"cannot write {out}: {error.strerror}; give an --out that can be written") from error
        return out
    relpath = f"reports/audit-{Path(model).stem}-{result.arm}.parquet"
    store.folder.replace(relpath, content)
    return f"{store.folder.display_name}/{relpath}"
