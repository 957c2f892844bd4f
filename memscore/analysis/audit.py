"""What a model that was trained elsewhere gives away of its training set, with all models of a bank as shadows.

For each training example of the bank: LiRA online (a log-likelihood ratio, Student-t), LiRA offline (a normal deviate,
one-sided) and RMIA (a share of validation examples), each against every model of one arm. The audited model is not in
the bank, so no shadow is left out and none is dropped: see memscore/estimators/lira.py.

Evidence compares the model with the bank's own: one trained by another recipe, for longer or on more examples, is surer
of everything or of nothing. That moves all examples alike, which the threshold 0 of the verdict feels; areas under the
curve and rates, which only order examples, feel it less.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from memscore.choices import validate_choice
from memscore.data.splits import Splits
from memscore.estimators.lira import external_lira_scores, fit_external_prior
from memscore.estimators.rmia import RmiaConfig, external_rmia, external_rmia_population
from memscore.pipeline.jobs import read_recipe
from memscore.pipeline.train_bank import build_shared_data
from memscore.seeds import generator
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
from memscore.training.evaluation import build_forward, evaluate_examples
from memscore.training.numerics import float32_matmul, single_threaded

BLOCK_BYTES = 64 * 2**20  # of two blocks of the bank as read
EVIDENCE = ("lira", "lira_offline", "rmia")


@dataclass(frozen=True, kw_only=True)
class RocSummary:
    """How well one kind of evidence tells members from others: 95 % intervals (DeLong; Wilson)."""

    auc: Interval
    tpr_at_001: Interval  # at a false positive rate of .1 %
    tpr_at_01: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditResult:
    """What an audit has found.

    Attributes:
        arm: whose models are the shadows.
        models: how many.
        unfinished: those in blocks that are not whole.
        threshold: of LiRA online; the verdict is "member" above it.
        table: one row a training example: row, id, label, evidence, counts, verdict and, if it is known, the truth.
        curves: evidence -> how well it tells; empty where the truth is not known.
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
    """Evidence of membership for each training example, and what it is worth where the truth is known.

    Args:
        store: the bank.
        model: fit for its images and classes.
        splits: the bank's data, with the mean and std that the model wants.
        arm: name or suffix of the arm; may be left out where the bank has one.
        member: bool [n_train], the truth.
        threshold: of the verdict, in nats of LiRA online; 0 says "member" where member is the likelier.
        config: of RMIA; online by default.
        device: "cpu" or "cuda".

    Returns:
        The audit; nothing is written.

    Raises:
        ValueError: an unknown arm or one without models, or outputs that are not finite.
    """
    if not np.isfinite(threshold):
        raise ValueError(f"--threshold must be a finite number of nats, got {threshold}; 0 is where in is the likelier")
    name = select_arm(store, arm)
    shards = store.find_valid_shards(name, verify=False)
    if not shards:
        raise ValueError(
            f"arm {name} of {store.folder.display_name} has no models; `python -m memscore.estimate` trains them"
        )
    said = compute_predictions(store, model, splits, device)
    n_train = store.manifest.split_sizes[0]
    evidence = compute_evidence(store, name, sorted(shards), said["logit_confidence"], config or RmiaConfig())
    curves, epsilon = {}, None
    if member is not None:
        curves = {kind: compute_roc_summary(evidence[kind], member) for kind in EVIDENCE if kind in evidence}
        known = ~np.isnan(evidence["lira"])
        rng = generator(store.manifest.seed, "validation", "audit-halves")
        epsilon = epsilon_lower_bound(evidence["lira"][known], member[known], rng)
    metadata = {
        "arm": name,
        "models": str(len(shards)),
        "shards_digest": hash_shards(name, shards),
        "verdict": f"lira > {threshold:g}",
        "curves": json.dumps(replace_nonfinite({kind: asdict(curve) for kind, curve in curves.items()})),
        "epsilon": json.dumps(None if epsilon is None else replace_nonfinite(asdict(epsilon))),
    }
    columns = {"logit_confidence": said["logit_confidence"][:n_train], **evidence}
    return AuditResult(
        arm=name,
        models=len(shards),
        unfinished=count_models_in_partial_blocks(shards, parse_arm_record(store.arms()[name]).models_per_block),
        threshold=threshold,
        table=build_table(store, columns, threshold, member, metadata),
        curves=curves,
        epsilon=epsilon,
        accuracy=compute_accuracy(said["correct"], store.manifest.split_sizes),
    )


def build_table(
    store: Store,
    columns: dict[str, np.ndarray],
    threshold: float,
    member: np.ndarray | None,
    metadata: dict[str, str],
) -> pa.Table:
    """One row a training example: row, id, label, the columns, the verdict (null without evidence), perhaps the truth.

    Args:
        store: the bank, which knows ids and labels.
        columns: [n_train] each, lira among them.
        threshold: of the verdict.
        member: bool [n_train], or None.
        metadata: of the file.

    Returns:
        The table.
    """
    n_train = store.manifest.split_sizes[0]
    examples, lira = store.examples().slice(0, n_train), columns["lira"]
    ids = np.array(examples["id"].to_pylist(), dtype=np.str_)
    rows = {"row": np.arange(n_train, dtype=np.int32), "id": ids, "label": examples["label"].to_numpy()}
    table = to_table({**rows, **columns}, metadata)
    table = table.append_column("verdict", pa.array(lira > threshold, mask=np.isnan(lira)))
    return update_content_hash(table if member is None else table.append_column("member", pa.array(member)))


def select_arm(store: Store, wish: str | None) -> str:
    """The arm whose models are to be the shadows.

    Args:
        store: open.
        wish: its name or suffix, or None.

    Returns:
        Its name.

    Raises:
        ValueError: none of that name, none at all, or several and no wish.
    """
    arms = store.arms()
    if not arms:
        raise ValueError(f"{store.folder.display_name} has no arm yet; `python -m memscore.estimate` begins one")
    if wish is None:
        if len(arms) > 1:
            raise ValueError(
                f"{store.folder.display_name} has {len(arms)} arms and their models are never pooled; choose with "
                "--arm: "
                f"{', '.join(arms)}"
            )
        return next(iter(arms))
    by_suffix = {record["suffix"]: name for name, record in arms.items()}
    return by_suffix[wish] if wish in by_suffix else validate_choice("arm", wish, arms)


def compute_predictions(store: Store, model: nn.Module, splits: Splits, device: str) -> dict[str, np.ndarray]:
    """What a model says of every row of the bank, seen as the bank's own models were.

    Args:
        store: the bank.
        model: on the CPU or the device.
        splits: its data, with the mean and std that the model wants.
        device: "cpu" or "cuda".

    Returns:
        The columns of memscore.training.evaluation.evaluate_examples.

    Raises:
        ValueError: outputs that are not finite; names the first example.
    """
    place, shared = torch.device(device), build_shared_data(splits, None)
    with single_threaded(), float32_matmul(place):
        images = to_device(shared.images, splits.mean, splits.std, place, flat=False)
        labels = torch.from_numpy(shared.labels).to(place)
        said = evaluate_examples(build_forward(model.to(place), read_recipe(store)), images, labels)
    strange = np.flatnonzero(~np.isfinite(said["logit_confidence"]))
    if len(strange):
        first = store.examples()["id"][int(strange[0])].as_py()
        raise ValueError(
            f"the model's outputs are not finite on {len(strange)} examples (first {first}); check its weights, --mean "
            "and --std"
        )
    return said


def compute_evidence(
    store: Store, arm: str, indices: list[int], confidence: np.ndarray, config: RmiaConfig
) -> dict[str, np.ndarray]:
    """Evidence of each training example, and how many shadows it rests on.

    Args:
        store: the bank.
        arm: its name.
        indices: of the models.
        confidence: float [N], the target's logit confidence in all rows.
        config: of RMIA, which a bank without validation examples does not give.

    Returns:
        lira, lira_offline, rmia: float64 [n_train], higher for members; n_in, n_out: int64 [n_train].
    """
    n_train, n_validation, _ = store.manifest.split_sizes
    train, held_out = slice(0, n_train), slice(n_train, n_train + n_validation)
    pool = fit_external_prior((phi, held) for _, phi, held in read_bank_blocks(store, arm, indices, train))
    population: np.ndarray | None = None
    if n_validation:
        shadows = np.concatenate([phi for _, phi, _ in read_bank_blocks(store, arm, indices, held_out)], axis=1)
        population = external_rmia_population(confidence[held_out], shadows, config)
    pieces: list[dict[str, np.ndarray]] = []
    for rows, phi, held in read_bank_blocks(store, arm, indices, train):
        own = confidence[rows]
        online, offline = external_lira_scores(own, phi, held, pool)
        found = {"lira": online, "lira_offline": offline}
        if population is not None:
            found["rmia"] = external_rmia(own, phi, held, population, config)
        pieces.append({**found, "n_in": held.sum(0), "n_out": (~held).sum(0)})
    return {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}


def read_bank_blocks(
    store: Store, arm: str, indices: list[int], rows: slice
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Rows, then logit_confidence and member of every model, [M, n] each, a block of examples at a time."""
    for block in store.read_blocks(arm, indices, ["logit_confidence", "member"], rows, BLOCK_BYTES):
        yield block.rows, block.columns["logit_confidence"], block.columns["member"]


def compute_roc_summary(scores: np.ndarray, member: np.ndarray) -> RocSummary:
    """Area and rates over the examples that have a score."""
    known = ~np.isnan(scores)
    scores, member = scores[known], member[known]
    return RocSummary(
        auc=auc_interval(scores, member),
        tpr_at_001=tpr_at_fpr(scores, member, 0.001),
        tpr_at_01=tpr_at_fpr(scores, member, 0.01),
    )


def compute_accuracy(correct: np.ndarray, sizes: tuple[int, int, int]) -> dict[str, float]:
    """Share answered right in each split."""
    parts = np.split(correct, np.cumsum(sizes)[:-1])
    return {
        split: float(part.mean()) if len(part) else float("nan")
        for split, part in zip(("train", "validation", "test"), parts, strict=True)
    }


def write_audit(store: Store, found: AuditResult, model: str, out: str | None) -> str:
    """Write the table as Parquet.

    Args:
        store: the bank, whose reports/ it goes to unless told.
        found: the audit.
        model: file of the weights, whose name the report carries.
        out: a local path instead.

    Returns:
        Where it lies.

    Raises:
        OSError: it cannot be written there.
    """
    content = encode(found.table)
    if out is not None:
        try:
            Path(out).write_bytes(content)
        except OSError as error:
            raise OSError(f"cannot write {out}: {error.strerror}; give an --out that can be written") from error
        return out
    relpath = f"reports/audit-{Path(model).stem}-{found.arm}.parquet"
    store.folder.replace(relpath, content)
    return f"{store.folder.display_name}/{relpath}"
