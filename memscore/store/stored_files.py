"""Compare the files of a store with each other: which ones others imply, and which ones contradict others.

A receipt implies a shard, a column of scores.parquet the file of its score, a score its learning events. Stale tables
were computed from other shards, receipts or scores than are stored now. file_kinds.py lists what applies to which kind.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.score_registry import get_estimator_version
from memscore.store.copy_counts import COPIES_PATH, COPY_COLUMNS
from memscore.store.json_records import read_record
from memscore.store.manifest import IMPORTED, compute_start_key
from memscore.store.parquet import decode_metadata
from memscore.store.path_patterns import HASH, SCENARIOS
from memscore.store.score_files import has_other_version, is_stale
from memscore.store.shards import hash_shards, parse_model_index
from memscore.store.store import Store

ENDINGS = (".parquet", ".json", ".safetensors")
"""Of files that others imply or contradict; a note beside the shards is none of them."""
UNKNOWN_ARM_REASON = "a shard of no stored arm; it stays, and the estimate that made it stores its arm again"


class StoredFiles:
    """The listing of a store and its readable records, each read once.

    Attributes:
        store: open.
        damaged: paths of files that are not read, since they do not hold what was written.
        bank: name of the bank that the store belongs to; of a store within a bank that of the outer one.
    """

    def __init__(self, store: Store, damaged: Collection[str], records: Mapping[str, dict[str, Any]]) -> None:
        self.store = store
        self.damaged = damaged
        outer, inner, name = store.folder.display_name.rpartition(f"/{SCENARIOS}/")
        self.is_inner = bool(inner)
        # advice names the bank, which commands take; the options at the end of a URL are those of the bank too
        self.bank = outer + "".join(name.partition("?")[1:]) if inner else store.folder.display_name
        self._records = dict(records)
        self._names: dict[str, list[str]] = {}
        # Files that need a receipt, then receipts, then files that a receipt implies but for those: a running command
        # writes a receipt first, and what it wrote since the listing is looked up again where it would be missed.
        for folder in ("outputs", "events", "receipts", "failures", "arms", "shards"):
            self.list_names(folder)

    def list_names(self, folder: str) -> list[str]:
        """List the names of the finished files in one sub-folder, as they were when it was first listed."""
        if folder not in self._names:
            self._names[folder] = self.store.folder.names(folder)
        return self._names[folder]

    def list_logged_commands(self, module: str) -> list[str]:
        """List the different commands of a module that run.log and run.old.log have, the last one last."""
        commands: dict[str, None] = {}
        for name in ("run.old.log", "run.log"):
            try:
                lines = self.store.folder.read(name).decode(errors="replace").splitlines()
            except (OSError, ValueError):  # a store on a server has none, and one that cannot be read gives no advice
                continue
            for line in lines:
                _, began, command = line.partition(" began: ")
                if began and module in command.split():
                    commands.pop(command, None)
                    commands[command] = None
        return list(commands)

    def list_stems(self, folder: str) -> set[str]:
        """List those names without their endings, of the files that have one of the store's."""
        return {name.rpartition(".")[0] for name in self.list_names(folder) if name.endswith(ENDINGS)}

    def exists(self, path: str) -> bool:
        """Return whether the file was listed, or has been written since."""
        folder, _, name = path.rpartition("/")
        return name in self.list_names(folder) or self.store.folder.exists(path)

    def is_readable(self, path: str) -> bool:
        """Return whether a file exists and is not damaged."""
        return path not in self.damaged and self.exists(path)

    def read_record(self, path: str) -> dict[str, Any] | None:
        """Read a record; None if it is missing or damaged."""
        if path not in self._records:
            if not self.is_readable(path):
                return None
            self._records[path] = read_record(self.store.folder, path)
        return self._records[path]

    def read_metadata(self, path: str) -> dict[str, str]:
        """Read the metadata of a table; empty if it is damaged."""
        return {} if path in self.damaged else decode_metadata(self.store.read_table(path).schema)

    @cached_property
    def models(self) -> set[str]:
        """Names of models with a receipt that neither failed nor diverged."""
        return self.list_stems("receipts") - self.list_stems("failures") - self.diverged

    @cached_property
    def diverged(self) -> set[str]:
        """Names of models whose receipt says that they diverged."""
        receipts = {name: self.read_record(f"receipts/{name}.json") for name in self.list_stems("receipts")}
        return {name for name, receipt in receipts.items() if receipt and receipt.get("diverged")}

    @cached_property
    def receipts_by_key(self) -> dict[str, str]:
        """Key of each original and oracle with a readable receipt -> name of its receipt, ascending."""
        names = [name for name in sorted(self.list_stems("receipts")) if name.startswith(("original-", "oracle-"))]
        receipts = {name: self.read_record(f"receipts/{name}.json") for name in names}
        return {receipt["key"]: name for name, receipt in receipts.items() if receipt and "key" in receipt}

    @cached_property
    def references(self) -> dict[str, str]:
        """Those that neither failed nor diverged."""
        return {key: name for key, name in self.receipts_by_key.items() if name in self.models}

    @cached_property
    def shard_digests(self) -> dict[str, str]:
        """Intact arm -> hash of its shards. An arm with a damaged shard is left out: training repeats it exactly."""
        damaged = {path.removeprefix("shards/").removesuffix(".parquet") for path in self.damaged}
        arms = [
            arm
            for arm in sorted(self.list_stems("arms"))
            if f"arms/{arm}.json" not in self.damaged and not any(belongs_to_any(model, [arm]) for model in damaged)
        ]
        return {arm: hash_shards(arm, self.store.find_valid_shards(arm, verify=False)) for arm in arms}


def belongs_to_any(model: str, arms: Iterable[str]) -> bool:
    """Return whether a model belongs to one of these arms."""
    return any(parse_model_index(model, arm) is not None for arm in arms)


def expect_examples(files: StoredFiles) -> Iterator[str]:
    """Every store has its table of examples."""
    yield "examples.parquet"


def expect_clusters(files: StoredFiles) -> Iterator[str]:
    """An arm whose subsets were drawn from clusters implies them."""
    if any((files.read_record(f"arms/{arm}.json") or {}).get("clusters") for arm in files.list_stems("arms")):
        yield "clusters.parquet"


def expect_copies(files: StoredFiles) -> Iterator[str]:
    """A summary that counts exact copies implies their table; older stores and those without images have none."""
    if (files.read_record("reports/summary.json") or {}).get("exact_copies"):
        yield COPIES_PATH


def find_copies_of_other_data(files: StoredFiles) -> Iterator[tuple[str, str]]:
    """Find whether the table of copies is that of other data."""
    if files.is_readable(COPIES_PATH):
        fingerprint = files.read_metadata(COPIES_PATH).get("fingerprint", "")
        if fingerprint != files.store.manifest.fingerprint:
            yield COPIES_PATH, f"it is of other data, with the fingerprint {fingerprint[:12]}"


def expect_arms(files: StoredFiles) -> Iterator[str]:
    """A shard implies its arm."""
    arms = files.list_stems("arms")
    names = sorted(name for name in files.list_stems("shards") if not belongs_to_any(name, arms))
    yield from dict.fromkeys(f"arms/{name.rpartition('-')[0]}.json" for name in names)


def expect_shards(files: StoredFiles) -> Iterator[str]:
    """The receipt of a bank model that did not diverge implies a shard."""
    arms = files.list_stems("arms")
    yield from (f"shards/{name}.parquet" for name in sorted(files.models) if belongs_to_any(name, arms))


def expect_receipts(files: StoredFiles) -> Iterator[str]:
    """A shard of a stored arm implies a receipt."""
    arms = files.list_stems("arms")
    names = sorted(files.list_stems("shards"))
    yield from (f"receipts/{name}.json" for name in names if belongs_to_any(name, arms))


def expect_failures(files: StoredFiles) -> Iterator[str]:
    """The receipt of a diverged model implies a failure record, which says that it is not trained again."""
    yield from (f"failures/{name}.json" for name in sorted(files.diverged))


def expect_weights(files: StoredFiles) -> Iterator[str]:
    """The receipt of an original or oracle implies weights, and so does the cost of an unlearned model."""
    yield from (f"weights/{key}.safetensors" for key in files.references)
    yield from (f"weights/{key}.safetensors" for key in list_costed_models(files))
    yield from (f"weights/{receipt['weights']}.safetensors" for receipt in list_proxy_receipts(files, "weights"))
    if key := compute_start_key(files.store.manifest.architecture):
        yield f"weights/{key}.safetensors"


def list_proxy_receipts(files: StoredFiles, entry: str) -> Iterator[dict[str, Any]]:
    """Yield the receipts of proxies that have an entry."""
    for name in sorted(name for name in files.models if re.match(f"{HASH}-", name)):
        receipt = files.read_record(f"receipts/{name}.json")
        if receipt and receipt.get(entry):
            yield receipt


def expect_rebuilt_images(files: StoredFiles) -> Iterator[str]:
    """The receipt of an inversion says that it kept what it rebuilt."""
    yield from (f"rebuilt/{r['key']}-{r['ending']}.parquet" for r in list_proxy_receipts(files, "rebuilt"))


def expect_inversion_picture(files: StoredFiles) -> Iterator[str]:
    """A summary with an inversion, whose images are kept, implies their picture."""
    if "inversion" in (files.read_record("reports/summary.json") or {}) and files.list_names("rebuilt"):
        yield "reports/inversion.png"


def expect_outputs(files: StoredFiles) -> Iterator[str]:
    """The receipt of an original or oracle implies outputs."""
    yield from (f"outputs/{key}.parquet" for key in files.references)


def expect_events(files: StoredFiles) -> Iterator[str]:
    """The receipt of an original or oracle implies learning events."""
    yield from (f"events/{key}.parquet" for key in files.references)


def expect_proxies(files: StoredFiles) -> Iterator[str]:
    """The receipt of a proxy implies its values."""
    for name in sorted(name for name in files.models if name.partition("-")[0] in files.references):
        receipt = files.read_record(f"receipts/{name}.json")
        if receipt and "ending" in receipt:
            yield f"events/{receipt['key']}-{receipt['ending']}.parquet"


def expect_evaluation_events(files: StoredFiles) -> Iterator[str]:
    """A score of events in evaluation passes implies those of the first originals, from which it was averaged."""
    originals = [key for key, name in files.references.items() if name.startswith("original-")]
    for _, metadata in list_event_scores(files, "events_evaluation_"):
        yield from (f"events/{key}-evaluation.parquet" for key in originals[: int(metadata["models"])])


def expect_bank_events(files: StoredFiles) -> Iterator[str]:
    """A score of the events of an arm's models implies those events; all are named if there are too few."""
    for arm, metadata in list_event_scores(files, "events_bank_"):
        models = {name for name in files.list_stems("shards") if parse_model_index(name, arm) is not None}
        if len(models & files.list_stems("events")) < int(metadata["models"]):
            yield from (f"events/{model}.parquet" for model in sorted(models))


def list_event_scores(files: StoredFiles, prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the models' arm and the metadata of each readable score whose name begins so."""
    for name in files.list_names("scores"):
        if name.startswith(prefix) and (metadata := files.read_metadata(f"scores/{name}")):
            yield metadata["models_of"], metadata


def list_costed_models(files: StoredFiles) -> list[str]:
    """List the keys of unlearned models with a cost, which is written after their weights."""
    names = [name for name in files.list_stems("trials") if name.endswith("-cost")]
    return sorted(name.removesuffix("-cost") for name in names)


def expect_scores(files: StoredFiles) -> Iterator[str]:
    """A column of scores.parquet that no stored score has implies the file of that score."""
    paths = [f"scores/{name}" for name in files.list_names("scores")]
    # The columns of a damaged file are unknown, and it is reported already.
    if not all(files.is_readable(path) for path in ("scores.parquet", "examples.parquet", *paths)):
        return
    read = files.store.read_table
    examples = {*files.store.examples().column_names, *COPY_COLUMNS}
    columns = examples.union(*(read(path).column_names for path in paths))
    missing = [column for column in read("scores.parquet").column_names if column not in columns]
    # memorization_k0.500_se is a column of the score memorization_k0.500, and no score of its own.
    yield from (f"scores/{c}.parquet" for c in missing if not any(c.startswith(f"{stem}_") for stem in missing))


def expect_scores_table(files: StoredFiles) -> Iterator[str]:
    """A score implies the table of all scores."""
    yield from ["scores.parquet"] if files.list_names("scores") else []


def expect_models_table(files: StoredFiles) -> Iterator[str]:
    """A score implies the table of models."""
    yield from ["models.parquet"] if files.list_names("scores") else []


def expect_summary(files: StoredFiles) -> Iterator[str]:
    """A score implies the numbers of the whole bank."""
    yield from ["reports/summary.json"] if files.list_names("scores") else []


def list_summarized_arms(files: StoredFiles) -> list[dict[str, Any]]:
    """List the arms in reports/summary.json, which is written after the pictures."""
    return list((files.read_record("reports/summary.json") or {}).get("arms", ()))


def expect_memorization_pictures(files: StoredFiles) -> Iterator[str]:
    """An arm of the summary implies a picture of its memorization."""
    yield from (f"reports/memorization_{arm['suffix']}.png" for arm in list_summarized_arms(files))


def expect_galleries(files: StoredFiles) -> Iterator[str]:
    """An arm of the summary implies a picture of its most memorized examples, unless the images are unknown."""
    if files.store.manifest.data != IMPORTED:
        yield from (f"reports/most_memorized_{arm['suffix']}.png" for arm in list_summarized_arms(files))


def expect_roc_pictures(files: StoredFiles) -> Iterator[str]:
    """An arm of the summary with attacks implies a picture of their ROC curves."""
    yield from (f"reports/roc_{arm['suffix']}.png" for arm in list_summarized_arms(files) if arm["attacks"])


def expect_roc_tables(files: StoredFiles) -> Iterator[str]:
    """An arm of the summary with stored curves implies their table; versions before 0.2 drew them alone."""
    yield from (f"reports/roc_{arm['suffix']}.parquet" for arm in list_summarized_arms(files) if arm.get("curves"))


def expect_group_tables(files: StoredFiles) -> Iterator[str]:
    """An arm of the summary with groups implies their table."""
    yield from (f"reports/groups_{arm['suffix']}.parquet" for arm in list_summarized_arms(files) if arm.get("groups"))


def list_reports(files: StoredFiles, prefix: str, ending: str) -> list[str]:
    """List what stands between the prefix and the ending in the names of reports."""
    names = [name for name in files.list_names("reports") if name.startswith(prefix) and name.endswith(ending)]
    return [name[len(prefix) : -len(ending)] for name in names]


def expect_fidelity(files: StoredFiles) -> Iterator[str]:
    """The Lorenz curves of an arm imply the numbers of the same comparison."""
    yield from (f"reports/fidelity_{suffix}.json" for suffix in list_reports(files, "lorenz_", ".png"))


def expect_lorenz_pictures(files: StoredFiles) -> Iterator[str]:
    """A comparison of scores implies Lorenz curves."""
    yield from (f"reports/lorenz_{suffix}.png" for suffix in list_reports(files, "fidelity_", ".json"))


def read_comparisons(files: StoredFiles) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the suffix and the record of each readable comparison of scores."""
    for suffix in list_reports(files, "fidelity_", ".json"):
        if record := files.read_record(f"reports/fidelity_{suffix}.json"):
            yield suffix, record


def expect_proxy_pictures(files: StoredFiles) -> Iterator[str]:
    """A comparison with a score of other models implies a picture of proxies."""
    for suffix, record in read_comparisons(files):
        if not all(row["shares_models"] for row in record["standings"]["rows"]):
            yield f"reports/proxies_{suffix}.png"


def expect_loss_pictures(files: StoredFiles) -> Iterator[str]:
    """A comparison with a risk score implies a picture of loss and success."""
    for _, record in read_comparisons(files):
        yield from (f"reports/loss_and_{signals['risk']}.png" for signals in record["signals"])


def expect_influence(files: StoredFiles) -> Iterator[str]:
    """A record of options, or a picture, implies the influence that it belongs to."""
    for ending in (".json", ".png"):
        yield from (f"influence/{name}.parquet" for name in list_reports(files, "influence_", ending))


def expect_influence_records(files: StoredFiles) -> Iterator[str]:
    """Influence implies the record of its options."""
    yield from (f"reports/influence_{name}.json" for name in sorted(files.list_stems("influence")))


def expect_trials(files: StoredFiles) -> Iterator[str]:
    """A row of a sweep implies the row of its trial, and so do the stored predictions of a trial's model."""
    for name in files.store.folder.folders("sweeps"):
        path = f"sweeps/{name}/trials.parquet"
        if files.is_readable(path):
            table = files.store.read_table(path)
            trials = table["trial"].to_pylist() if "trial" in table.column_names else []
            yield from (f"trials/{key}.parquet" for key in dict.fromkeys(trials) if key)
    predicted = [name for name in files.list_stems("trials") if name.endswith("-said")]
    yield from (f"trials/{name.removesuffix('-said')}.parquet" for name in sorted(predicted))


def expect_sweep_files(files: StoredFiles) -> Iterator[str]:
    """Any result of a sweep implies its options, its rows and its choices; options alone are an unfinished sweep's."""
    names = ("sweep.json", "trials.parquet", "chosen.json")
    for name in files.store.folder.folders("sweeps"):
        if set(files.list_names(f"sweeps/{name}")) & {*names[1:]}:
            yield from (f"sweeps/{name}/{file}" for file in names)


def expect_experiment_files(files: StoredFiles) -> Iterator[str]:
    """Any file of an experiment implies its rows, its findings and its figure."""
    names = ("rows.parquet", "findings.json", "figure.png")
    for name in files.store.folder.folders("experiments"):
        if set(files.list_names(f"experiments/{name}")) & {*names}:
            yield from (f"experiments/{name}/{file}" for file in names)


def find_shards_from_elsewhere(files: StoredFiles) -> Iterator[tuple[str, str]]:
    """Find shards of another run, and those of no stored arm."""
    arms = sorted(files.list_stems("arms"))
    for arm in arms:
        if f"arms/{arm}.json" not in files.damaged:
            yield from files.store.check(arm, verify=False).damaged.items()
    for model in sorted(files.list_stems("shards")):
        if not belongs_to_any(model, arms):
            yield f"shards/{model}.parquet", UNKNOWN_ARM_REASON


def find_outputs_without_receipt(files: StoredFiles) -> Iterator[tuple[str, str]]:
    """Find outputs whose receipt is missing or damaged: only training the model again writes the receipt again."""
    for key in sorted(files.list_stems("outputs")):
        if re.fullmatch(HASH, key) and key not in files.receipts_by_key:
            yield f"outputs/{key}.parquet", "no receipt says how its model was trained"


def find_proxies_without_receipt(files: StoredFiles) -> Iterator[tuple[str, str]]:
    """Find values of a proxy whose receipt is missing or damaged: only computing them again writes it again."""
    for name in sorted(files.list_stems("events")):
        is_proxy = re.fullmatch(rf"{HASH}-(?!(evaluation|rescored)$).+", name)
        if is_proxy and not (name in files.list_stems("receipts") and files.is_readable(f"receipts/{name}.json")):
            yield f"events/{name}.parquet", "no receipt says how it was computed"


def find_costs_without_weights(files: StoredFiles) -> Iterator[tuple[str, str]]:
    """Find costs that call weights complete which do not exist: a trial would not store them again."""
    for key in list_costed_models(files):
        if not files.exists(f"weights/{key}.safetensors"):
            yield f"trials/{key}-cost.parquet", f"it calls weights/{key}.safetensors complete, which is missing"


def find_outdated(
    files: StoredFiles, folder: str, command: str, get_version: Callable[[str], int]
) -> Iterator[tuple[str, str]]:
    """Find tables of one folder from other shards than are stored now, or by another version of their estimator."""
    for name in files.list_names(folder):
        path, version = f"{folder}/{name}", get_version(name.removesuffix(".parquet"))
        metadata = files.read_metadata(path)
        digest = files.shard_digests.get(metadata.get("arm", ""))
        # A damaged file has no metadata, and is reported as damaged.
        if metadata and is_stale(metadata, digest, version):
            is_old = has_other_version(metadata, version)
            source = "with the estimator of this memscore" if is_old else "from the shards that are there now"
            yield path, f"{command} makes it {source}"


def find_outdated_scores(files: StoredFiles) -> Iterator[tuple[str, str]]:
    """Find scores that were computed from other shards, or otherwise than today."""
    return find_outdated(files, "scores", files.store.rebuild_command, get_estimator_version)


def find_outdated_influence(files: StoredFiles) -> Iterator[tuple[str, str]]:
    """Find influence that was computed from other shards, or otherwise than today."""
    command = f"`python -m memscore.influence {files.store.folder.display_name}`"
    return find_outdated(files, "influence", command, lambda name: get_estimator_version("influence"))


def find_outdated_scores_table(files: StoredFiles) -> Iterator[tuple[str, str]]:
    """Find whether the table of all scores has a stale score, or other values than the score's own file."""
    path = "scores.parquet"
    if files.is_readable(path) and (
        any(find_outdated_scores(files)) or has_other_values(files, files.store.read_table(path))
    ):
        yield path, f"{files.store.rebuild_command} makes it from the scores that are there now"


def has_other_values(files: StoredFiles, all_scores: pa.Table) -> bool:
    """Return whether a column of scores.parquet differs from the score's own file."""
    for name in files.list_names("scores"):
        if f"scores/{name}" in files.damaged:
            continue
        score = files.store.read_table(f"scores/{name}")
        rows = np.asarray(score["row"])
        if len(rows) and rows.max() >= len(all_scores):
            return True
        for column in set(score.column_names[2:]) & set(all_scores.column_names):
            if not all_scores[column].take(rows).equals(score[column]):
                return True
    return False


def find_outdated_models_table(files: StoredFiles) -> Iterator[tuple[str, str]]:
    """Find whether the table of models has other models than there are receipts."""
    path = "models.parquet"
    if files.is_readable(path):
        arms = [*files.list_stems("arms"), "original"]
        models = {name for name in files.list_stems("receipts") if belongs_to_any(name, arms)}
        if set(files.store.read_table(path)["model"].to_pylist()) != models:
            yield path, f"{files.store.rebuild_command} makes it from the receipts that are there now"
