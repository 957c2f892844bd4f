"""Write an audit: the table of all examples, and beside it a JSON file with every number of the page."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from memscore.analysis.audit import AuditResult
from memscore.analysis.audit_trust import compute_detectable_auc
from memscore.analysis.calibration import build_decisions_record
from memscore.cli.options import format_flags
from memscore.pipeline.reload_data import DataSource, find_recorded_source
from memscore.pipeline.stored_options import READING_OPTIONS
from memscore.store.class_names import has_names
from memscore.store.json_records import encode_record
from memscore.store.parquet import encode
from memscore.store.store import Store
from memscore.training.recipe_names import find_named_recipe

JSON_ENDING = ".json"


def check_out(out: str | None) -> None:
    """Raise ValueError for a path of the table that is taken by the JSON file beside it."""
    if out is not None and Path(out).suffix == JSON_ENDING:
        raise ValueError(f"--out is a Parquet table, got {out}; name it .parquet, a {JSON_ENDING} is written beside it")


def write_audit(store: Store, result: AuditResult, model: str, out: str | None) -> str:
    """Write table and record to `out`, else into the bank's reports/ by the model's file name; return the path."""
    content, record = encode(result.table), encode_record(build_audit_record(result, model, store.class_names))
    if out is not None:
        beside = Path(out).with_suffix(JSON_ENDING)
        try:
            Path(out).write_bytes(content)
            beside.write_bytes(record)
        except OSError as error:
            raise OSError(
                f"cannot write {error.filename or out}: {error.strerror}; give an --out that can be written"
            ) from error
        return out
    stem = f"reports/audit-{Path(model).stem}-{result.arm}"
    store.folder.replace(f"{stem}.parquet", content)
    store.folder.replace(f"{stem}{JSON_ENDING}", record)
    return store.folder.display_path(f"{stem}.parquet")


def build_audit_record(result: AuditResult, model: str, class_names: Sequence[str] = ()) -> dict[str, Any]:
    """Build the numbers of an audit's page; undefined is NaN, and null in the file."""
    verdict = result.table["verdict"]
    n_members = count_members(result)
    return {
        **({"class_names": list(class_names)} if has_names(class_names) else {}),
        "model": Path(model).name,
        "arm": result.arm,
        "models": result.models,
        "models_in_unfinished_blocks": result.unfinished,
        "examples": result.table.num_rows,
        "members": n_members,
        "accuracy": result.accuracy,
        "accuracy_by_group": {name: {**asdict(group), "fits": group.fits} for name, group in result.accuracies.items()},
        "confidence_among_shadow_models": {
            split: None if fit is None else {**asdict(fit), "fits": fit.fits} for split, fit in result.fits.items()
        },
        "threshold": result.threshold,
        "flagged": verdict.to_pylist().count(True),
        "undefined": verdict.null_count,
        "expected_fpr": result.expected_fpr,
        "expected_fpr_sd": result.expected_fpr_sd,
        "curves": {kind: asdict(curve) for kind, curve in result.curves.items()},
        "bank_auc": result.bank_auc,
        "detectable_auc": None
        if n_members is None
        else compute_detectable_auc(n_members, result.table.num_rows - n_members),
        "epsilon": None if result.epsilon is None else asdict(result.epsilon),
        "epsilon_bounds": [asdict(bound) for bound in result.epsilon_bounds],
        "decisions": build_decisions_record(result.decisions),
        "trusted": result.trusted,
        "reasons": list(result.reasons),
        "causes": list(result.causes),
        "conclusion": result.conclusion,
    }


def count_members(result: AuditResult) -> int | None:
    """Count the training examples that are listed as members; None without a list."""
    if "member" not in result.table.column_names:
        return None
    return int(np.sum(result.table["member"].to_numpy(zero_copy_only=False)))


def build_bank_command(store: Store, arch: str, data: str | None, folder: str | None) -> str:
    """Build the command that trains another bank of the same data with the audited model's architecture.

    Its recipe is the bank's, because that of the model is not known; the words after it say so.
    """
    manifest, origin = store.manifest, store.read_origin() or {}
    recorded = find_recorded_source(origin) if origin.get("name") else DataSource(name=manifest.data)
    source = recorded if data is None else DataSource(name=data)
    # an own network has no default recipe, so the command names one
    recipe, changes = find_named_recipe(manifest, origin)
    options = {
        "data": source.name,
        "folder": folder or source.folder,
        **{option: origin.get(key) for key, option in READING_OPTIONS.items()},
        "label_noise": manifest.label_changes.get("label_noise"),
        "seed": manifest.seed or None,
        "arch": arch,
        "pretrained": origin.get("pretrained"),
        "recipe": recipe,
        **changes,
    }
    return shlex.join(["python", "-m", "memscore.estimate", *format_flags(options)])


def describe_recipe_options() -> str:
    """Say what a fitting bank needs beside its data and architecture."""
    return (
        "the recipe there is this bank's: put in that of your model, with --recipe, --epochs, --batch, --lr, "
        "--optimizer, --schedule and --augment"
    )
