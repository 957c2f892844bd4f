"""The kinds of files of a store, one row each: what a file holds, how it is checked, what implies it, what rebuilds it.

`memscore.bank verify` reads this table and knows no kind by name, so a new kind is one row, and one function in
stored_files.py if other files imply it or make it stale. A pattern has words in capitals for the parts of a name that
vary; each path matches one pattern at most. Stores of forget sets that change the data, scenarios/NAME/, hold the same
kinds again. A kind that is added to stores that exist is expected only of files that are as new (as data.json, which
may be absent), or verify would miss it in every older store.
"""

import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from memscore.store import rebuild_advice as rebuild
from memscore.store import stored_files as stored
from memscore.store.json_records import decode_record
from memscore.store.parquet import CorruptFile, check_content
from memscore.store.stored_files import HASH, StoredFiles
from memscore.store.weight_files import check_weights

WORDS = {
    "KEY": HASH,
    "MODEL": rf"(?!{HASH}-|oracle-)[^/]+-\d{{5,}}",
    "PROXY": r"(?!evaluation\b|rescored\b)[^/]+",
}
"""Words of patterns that stand for something narrower than any name."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Format(NamedTuple):
    """A file format and what reads all bytes of a file in it: it raises CorruptFile, and returns a record, if any."""

    name: str
    check: Callable[[bytes], Any] | None


def check_record(content: bytes) -> dict[str, Any]:
    """Decode a record; raise CorruptFile unless it is a JSON object with a matching hash."""
    try:
        return decode_record(content, require_checksum=True)
    except ValueError as error:
        raise CorruptFile(str(error)) from None


def check_picture(content: bytes) -> None:
    """Raise CorruptFile unless the chunks of a PNG have their CRCs, and the last one is its end."""
    if not content.startswith(PNG_SIGNATURE):
        raise CorruptFile("it is no PNG")
    start, kind = len(PNG_SIGNATURE), b""
    while start < len(content):
        # A chunk: length of its data, kind (4 bytes), data, CRC of kind and data.
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        kind = content[start + 4 : start + 8]
        if zlib.crc32(content[start + 4 : end]).to_bytes(4, "big") != content[end : end + 4]:
            raise CorruptFile(f"bytes were changed in the chunk at byte {start}")
        start = end + 4
    if kind != b"IEND":
        raise CorruptFile("its end is missing")


PARQUET = Format("Parquet", check_content)
JSON = Format("JSON", check_record)
SAFETENSORS = Format("safetensors", check_weights)
PNG = Format("PNG", check_picture)
TEXT = Format("text", None)
ANY = Format("any", None)
FORMATS = {".parquet": PARQUET, ".json": JSON, ".safetensors": SAFETENSORS, ".png": PNG}

Paths = Callable[[StoredFiles], Iterable[str]]
Reasons = Callable[[StoredFiles], Iterable[tuple[str, str]]]


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """One kind of file.

    Attributes:
        pattern: its path in a store; a word in capitals stands for a part that varies, see WORDS.
        format: what it is encoded as, which says how its bytes are checked.
        content: what it holds, in one line for users.
        rebuild: what to do where a file of this kind, at this path, is missing or damaged; names a command. Empty for
            files whose loss changes nothing.
        expected: paths of this kind that other files imply; None if nothing does, so that a loss cannot be seen.
        stale: path and what to do, for files computed from others than are stored now.
        conflicts: path and reason, for files that are intact but do not go with the others.
        completed_by: pattern of a file that tells commands that this one is stored; it is moved away with this one,
            since otherwise no command would write this one again.
    """

    pattern: str
    format: Format
    content: str
    rebuild: Callable[[StoredFiles, str], str]
    expected: Paths | None = None
    stale: Reasons | None = None
    conflicts: Reasons | None = None
    completed_by: str = ""

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern as a regular expression."""
        parts = re.split(r"([A-Z]+)", self.pattern)  # every second part is a word in capitals
        return re.compile(
            "".join(WORDS.get(part, "[^/]+") if k % 2 else re.escape(part) for k, part in enumerate(parts))
        )


def split_scenario(path: str) -> tuple[str, str]:
    """Split a path within a store into the store within it, with a last slash or empty, and the path in that one."""
    inner = re.sub(rf"^({stored.SCENARIOS}/[^/]+/)+", "", path)
    return path[: len(path) - len(inner)], inner


def find_kind(path: str) -> FileKind | None:
    """Find the kind of the file at a path within a store; None for a file that no command writes."""
    inner = split_scenario(path)[1]
    return next((kind for kind in FILE_KINDS if kind.regex.fullmatch(inner)), None)


def find_completing_path(path: str) -> str | None:
    """Find the file that tells commands that the one at this path is stored; None if none does."""
    kind, key = find_kind(path), re.search(HASH, path.rpartition("/")[2])
    if not (kind and kind.completed_by and key):
        return None
    return split_scenario(path)[0] + kind.completed_by.replace("KEY", key[0])


def find_format(path: str) -> Format:
    """Find the format of a file by its kind, else by its ending."""
    kind = find_kind(path)
    return kind.format if kind else FORMATS.get(f".{path.rpartition('.')[2]}", ANY)


def advise(files: StoredFiles, path: str) -> str:
    """Say what to do where the file at a path within the store is missing or damaged."""
    kind = find_kind(path)
    return (kind.rebuild if kind else rebuild.by_bank_command)(files, path)


FILE_KINDS = (
    FileKind(
        pattern="manifest.json",
        format=JSON,
        content="Identity of the store: data fingerprint, split sizes, label changes, architecture, recipe, root seed.",
        rebuild=rebuild.by_command_that_made_the_store,
    ),
    FileKind(
        pattern="data.json",
        format=JSON,
        content="Where the data were read and how, class names, image size; no identity, may be absent.",
        rebuild=rebuild.by_bank_command,
    ),
    FileKind(
        pattern="examples.parquet",
        format=PARQUET,
        content="One row per example: row, id, split, label, label as published, cluster.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_examples,
    ),
    FileKind(
        pattern="clusters.parquet",
        format=PARQUET,
        content="Cluster of each training example, from which orthogonal subsets are drawn.",
        rebuild=rebuild.by_bank_command_on_this_machine,
        expected=stored.expect_clusters,
    ),
    FileKind(
        pattern="arms/ARM.json",
        format=JSON,
        content="How the subsets of one arm are drawn: design, keep fraction, block, hash of the clusters, queries.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_arms,
    ),
    FileKind(
        pattern="shards/MODEL.parquet",
        format=PARQUET,
        content="One bank model: member, correct, logit confidence, gap and top gap of every example.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_shards,
        conflicts=stored.find_shards_from_elsewhere,
    ),
    FileKind(
        pattern="receipts/MODEL.json",
        format=JSON,
        content="How one bank model or original was trained: seconds, worker, device, engine, accuracies.",
        rebuild=rebuild.by_restoring_from_shard,
        expected=stored.expect_receipts,
    ),
    FileKind(
        pattern="receipts/oracle-ID.json",
        format=JSON,
        content="The same of one oracle, a model trained without a forget set.",
        rebuild=rebuild.by_trial_command,
    ),
    FileKind(
        pattern="receipts/KEY-PROXY.json",
        format=JSON,
        content="Seconds, worker and device of one proxy of the original KEY.",
        rebuild=rebuild.by_model_command,
    ),
    FileKind(
        pattern="failures/NAME.json",
        format=JSON,
        content="Why a model has no result; one that diverged is never trained again.",
        rebuild=rebuild.by_model_command,
        expected=stored.expect_failures,
    ),
    FileKind(
        pattern="weights/KEY.safetensors",
        format=SAFETENSORS,
        content="Weights of an original, an oracle, or a stored unlearned model.",
        rebuild=rebuild.by_model_command,
        expected=stored.expect_weights,
        completed_by="trials/KEY-cost.parquet",
    ),
    FileKind(
        pattern="outputs/KEY.parquet",
        format=PARQUET,
        content="Logits and embeddings that an original or oracle gives for every example.",
        rebuild=rebuild.by_model_command,
        expected=stored.expect_outputs,
        conflicts=stored.find_outputs_without_receipt,
    ),
    FileKind(
        pattern="events/KEY.parquet",
        format=PARQUET,
        content="Learning events of an original or oracle: per example its averages over the visits in training.",
        rebuild=rebuild.by_model_command,
        expected=stored.expect_events,
    ),
    FileKind(
        pattern="events/KEY-evaluation.parquet",
        format=PARQUET,
        content="Learning events of an original in an evaluation pass after every epoch (--evaluation-events).",
        rebuild=rebuild.by_model_command,
        expected=stored.expect_evaluation_events,
    ),
    FileKind(
        pattern="events/KEY-PROXY.parquet",
        format=PARQUET,
        content="Values of one proxy of the original KEY (--proxies).",
        rebuild=rebuild.by_model_command,
        expected=stored.expect_proxies,
        conflicts=stored.find_proxies_without_receipt,
    ),
    FileKind(
        pattern="events/KEY-rescored.parquet",
        format=PARQUET,
        content="Holdout-retraining proxy of an unlearned model, computed again after a request.",
        rebuild=rebuild.by_requests_experiment,
    ),
    FileKind(
        pattern="events/MODEL.parquet",
        format=PARQUET,
        content="Learning events of one bank model on its members (--bank-events).",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_bank_events,
    ),
    FileKind(
        pattern="scores/SCORE.parquet",
        format=PARQUET,
        content="One score: row, id, values, standard errors and counts, with source, unit and direction.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_scores,
        stale=stored.find_outdated_scores,
    ),
    FileKind(
        pattern="scores.parquet",
        format=PARQUET,
        content="All scores, one row per training example.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_scores_table,
        stale=stored.find_outdated_scores_table,
    ),
    FileKind(
        pattern="models.parquet",
        format=PARQUET,
        content="One row per bank model and original, from the receipts.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_models_table,
        stale=stored.find_outdated_models_table,
    ),
    FileKind(
        pattern="influence/NAME.parquet",
        format=PARQUET,
        content="Pairs of a target and a training example with their influence, of one kind of targets and one arm.",
        rebuild=rebuild.by_influence_command,
        expected=stored.expect_influence,
        stale=stored.find_outdated_influence,
    ),
    FileKind(
        pattern="reports/summary.json",
        format=JSON,
        content="The numbers that estimate prints: errors, accuracies, attacks of each arm.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_summary,
    ),
    FileKind(
        pattern="reports/memorization_SUFFIX.png",
        format=PNG,
        content="Distribution of memorization and of its standard errors, of one arm.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_memorization_pictures,
    ),
    FileKind(
        pattern="reports/most_memorized_SUFFIX.png",
        format=PNG,
        content="The most memorized training examples, of one arm.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_galleries,
    ),
    FileKind(
        pattern="reports/roc_SUFFIX.png",
        format=PNG,
        content="ROC curves of the membership attacks, of one arm.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_roc_pictures,
    ),
    FileKind(
        pattern="reports/fidelity_SUFFIX.json",
        format=JSON,
        content="Agreement of every score with memorization, and its cost (memscore.fidelity).",
        rebuild=rebuild.by_fidelity_command,
        expected=stored.expect_fidelity,
    ),
    FileKind(
        pattern="reports/lorenz_SUFFIX.png",
        format=PNG,
        content="Lorenz curves of memorization and of each proxy.",
        rebuild=rebuild.by_fidelity_command,
        expected=stored.expect_lorenz_pictures,
    ),
    FileKind(
        pattern="reports/proxies_SUFFIX.png",
        format=PNG,
        content="Each proxy against memorization.",
        rebuild=rebuild.by_fidelity_command,
        expected=stored.expect_proxy_pictures,
    ),
    FileKind(
        pattern="reports/loss_and_SCORE.png",
        format=PNG,
        content="Loss of the models against the success of one attack.",
        rebuild=rebuild.by_fidelity_command,
        expected=stored.expect_loss_pictures,
    ),
    FileKind(
        pattern="reports/influence_NAME.json",
        format=JSON,
        content="Options of one influence file (memscore.influence).",
        rebuild=rebuild.by_influence_command,
        expected=stored.expect_influence_records,
    ),
    FileKind(
        pattern="reports/influence_NAME.png",
        format=PNG,
        content="Targets with the training examples that help them most; not drawn with --pictures 0.",
        rebuild=rebuild.by_influence_command,
    ),
    FileKind(
        pattern="reports/audit-NAME.parquet",
        format=PARQUET,
        content="Membership of each example in the training set of a model of yours (memscore.attack).",
        rebuild=rebuild.by_attack_command,
    ),
    FileKind(
        pattern="trials/KEY.parquet",
        format=PARQUET,
        content="The row of one unlearning trial: its options, measures and cost.",
        rebuild=rebuild.by_trial_command,
        expected=stored.expect_trials,
    ),
    FileKind(
        pattern="trials/KEY-said.parquet",
        format=PARQUET,
        content="Logit confidence and gap that the unlearned model of a trial gives for every example.",
        rebuild=rebuild.by_trial_command,
        completed_by="trials/KEY.parquet",
    ),
    FileKind(
        pattern="trials/KEY-cost.parquet",
        format=PARQUET,
        content="Status and cost of the stored unlearned model KEY; written after its weights.",
        rebuild=rebuild.by_trial_command,
        conflicts=stored.find_costs_without_weights,
    ),
    FileKind(
        pattern="attempts/SEARCH/VALUES.json",
        format=JSON,
        content="One configuration that a hyper-parameter search evaluated: values, objectives, trials.",
        rebuild=rebuild.by_search_command,
    ),
    FileKind(
        pattern="sweeps/NAME/sweep.json",
        format=JSON,
        content="Options of a sweep.",
        rebuild=rebuild.by_sweep_command,
        expected=stored.expect_sweep_files,
    ),
    FileKind(
        pattern="sweeps/NAME/trials.parquet",
        format=PARQUET,
        content="Rows of all trials of a sweep, for tuning and judged.",
        rebuild=rebuild.by_sweep_command,
    ),
    FileKind(
        pattern="sweeps/NAME/chosen.json",
        format=JSON,
        content="Parameters that a sweep chose, their objectives, and what failed.",
        rebuild=rebuild.by_sweep_command,
    ),
    FileKind(
        pattern="experiments/NAME/rows.parquet",
        format=PARQUET,
        content="Judged rows of an experiment.",
        rebuild=rebuild.by_experiment_command,
        expected=stored.expect_experiment_files,
    ),
    FileKind(
        pattern="experiments/NAME/findings.json",
        format=JSON,
        content="Options of an experiment, and verdicts on the claims of its paper.",
        rebuild=rebuild.by_experiment_command,
    ),
    FileKind(
        pattern="experiments/NAME/figure.png",
        format=PNG,
        content="Figure of an experiment.",
        rebuild=rebuild.by_experiment_command,
    ),
    FileKind(
        pattern="progress.json",
        format=JSON,
        content="Heartbeat of the last run, written every few seconds.",
        rebuild=rebuild.by_next_command,
    ),
    FileKind(
        pattern="lock",
        format=TEXT,
        content="Locked by the process that writes to the store; empty when none does.",
        rebuild=rebuild.by_nothing,
    ),
    FileKind(
        pattern="damaged/NAME",
        format=ANY,
        content="A file that was moved away since it did not hold what was written.",
        rebuild=rebuild.by_nothing,
    ),
)
"""Every kind of file that a command writes into a store; a path matches one row."""

CHECKED_FOLDERS = tuple(
    dict.fromkeys(kind.pattern.rpartition("/")[0] for kind in FILE_KINDS if kind.format.check is not None)
)
"""Folders whose files are read by verify; in one that ends with a word in capitals, those of all its folders."""
