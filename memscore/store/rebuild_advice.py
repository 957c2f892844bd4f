"""Say which command makes a missing or damaged file again; file_kinds.py lists which function is for which kind.

Each function takes the store's files and a path within the store, and names a command that works: for what trials made
that of a trial, since estimate never trains oracles, further originals or unlearned models. Options that are not
stored are left to the user.
"""

import re
from typing import Any

from memscore.store.influence_files import format_influence_options
from memscore.store.manifest import compute_original_key, compute_start_key
from memscore.store.path_patterns import HASH
from memscore.store.stored_files import StoredFiles, list_proxy_receipts

DEFAULT_ORIGINALS = 3  # of estimate


def name_bank_command(files: StoredFiles) -> str:
    """Return the command that fills the store itself: estimate or import, or a trial for a store within a bank."""
    return name_trial_command(files) if files.is_inner else files.store.rebuild_command


def name_trial_command(files: StoredFiles) -> str:
    """Return the commands that write originals, oracles and trials; their files do not say which of them did."""
    return (
        f"`python -m unlearn.trial {files.bank}`, or the unlearn.sweep or unlearn.experiment that made it, with the "
        "options it was made with,"
    )


def by_bank_command(files: StoredFiles, path: str) -> str:
    """Advise the command that fills the store."""
    return f"{name_bank_command(files)} makes it again"


def by_trial_command(files: StoredFiles, path: str) -> str:
    """Advise the command that ran the trial."""
    return f"{name_trial_command(files)} makes it again"


def by_model_command(files: StoredFiles, path: str) -> str:
    """Advise the command that trained the model: estimate for the bank's originals, else that of a trial.

    Trials train further originals, all oracles and all unlearned models, which estimate never does.
    """
    stem = path.rpartition("/")[2].rpartition(".")[0]  # a name, a key, or a key and the name of a proxy
    key = re.match(HASH, stem)
    if not key and not stem.startswith(("original-", "oracle-")):
        return by_bank_command(files, path)
    # Without a summary the bank was never scored, and its first originals are most probably those of estimate.
    originals = (files.read_record("reports/summary.json") or {"originals": DEFAULT_ORIGINALS})["originals"]
    if key:
        keys = (compute_original_key(files.store.manifest, index=index) for index in range(originals))
        halves = {receipt["weights"] for receipt in list_proxy_receipts(files, "weights")}
        starts = compute_start_key(files.store.manifest.architecture)
        is_of_bank = key[0] in keys or key[0] in halves or key[0] == starts
    else:
        index = stem.removeprefix("original-")
        is_of_bank = index.isdigit() and int(index) < originals
    return (by_bank_command if is_of_bank and not files.is_inner else by_trial_command)(files, path)


def by_bank_command_on_this_machine(files: StoredFiles, path: str) -> str:
    """Advise the command that fills the store, which clusters alike only on like machines."""
    return f"{by_bank_command(files, path)}, to the same bits on one kind of CPU only; a copy is safer"


def by_restoring_from_shard(files: StoredFiles, path: str) -> str:
    """Advise the command that writes a receipt from its shard; an import writes all of it."""
    if files.store.manifest.imported or not files.exists(f"shards/{path[len('receipts/') : -len('.json')]}.parquet"):
        return by_model_command(files, path)
    return f"its seconds, worker and device are lost; {name_bank_command(files)} makes the rest again from the shard"


def by_command_that_made_the_store(files: StoredFiles, path: str) -> str:
    """Advise the command that created the store."""
    return f"{name_bank_command(files)} makes it again, and keeps the models"


def by_influence_command(files: StoredFiles, path: str) -> str:
    """Advise the command that computed the influence, with its options where they are stored."""
    command = f"python -m memscore.influence {files.bank}"
    name = path.rpartition("/")[2].rpartition(".")[0].removeprefix("influence_")
    options: dict[str, Any] = files.read_record(f"reports/influence_{name}.json") or {}
    if not options and files.is_readable(f"influence/{name}.parquet"):
        options = files.read_metadata(f"influence/{name}.parquet")
    flags = format_influence_options(options)
    return (
        f"`{command} {flags}` makes it again"
        if flags
        else f"`{command}` with the options it was made with makes it again"
    )


def by_duplicates_command(files: StoredFiles, path: str) -> str:
    """Advise the command that compared the images."""
    return f"`python -m memscore.bank duplicates {files.bank} --near pixels`, or embeddings, makes it again"


def by_fidelity_command(files: StoredFiles, path: str) -> str:
    """Advise the command that compared the scores."""
    suffix = re.search(r"k[\d.]+\d[^/]*(?=\.(?:png|json)$)", path)
    arm = f" --arm {suffix[0]}" if suffix else ""
    return f"`python -m memscore.fidelity {files.bank}{arm}` makes it again"


def by_attack_command(files: StoredFiles, path: str) -> str:
    """Advise the command that audited a model."""
    return f"`python -m memscore.attack {files.bank}` with the options it was made with makes it again"


def by_population_commands(files: StoredFiles, path: str) -> str:
    """Advise the commands that measure many models together; the file does not say which of them did."""
    return (
        f"`python -m unlearn.trial {files.bank}`, or the unlearn.sweep that made it, with the options it was made "
        "with, makes it again"
    )


def by_sweep_command(files: StoredFiles, path: str) -> str:
    """Advise the command that ran the sweep, whose options are stored beside its results."""
    name = path.split("/")[1]
    options = f"sweeps/{name}/sweep.json"
    if not files.is_readable(options) and (commands := files.list_logged_commands("unlearn.sweep")):
        # the name of a sweep may be a hash of its options, so the log alone does not say which one it was
        named = [command for command in commands if name in command.split()] or commands
        one = "the last of those in run.log" if len(named) > 1 else "which run.log has"
        return f"`{named[-1]}`, {one}, makes it again"
    where = f", which are in {options}," if path != options and files.is_readable(options) else ""
    return (
        f"`python -m unlearn.sweep {files.bank} --name {name}` with the options it was run with{where} makes it again"
    )


def by_search_command(files: StoredFiles, path: str) -> str:
    """Advise the commands that search parameters; the file does not say for which sweep."""
    return (
        f"`python -m unlearn.sweep {files.bank}`, or the unlearn.experiment that made it, with the options it was made "
        "with, makes it again"
    )


def by_experiment_command(files: StoredFiles, path: str) -> str:
    """Advise the command that ran the experiment."""
    folder, findings = path.split("/")[1], path.rpartition("/")[0] + "/findings.json"
    where = f", which are in {findings}," if path != findings and files.is_readable(findings) else ""
    name = folder.rpartition("-")[0]
    return f"`python -m unlearn.experiment {name} {files.bank}` with the options it was run with{where} makes it again"


def by_requests_experiment(files: StoredFiles, path: str) -> str:
    """Advise the experiment that computes a proxy again after each request."""
    return f"`python -m unlearn.experiment five-steps {files.bank}` with the options it was run with makes it again"


def by_difficulty_experiment(files: StoredFiles, path: str) -> str:
    """Advise the experiment that unlearns single examples."""
    return f"`python -m unlearn.experiment difficulty {files.bank}` with the options it was run with makes it again"


def by_next_command(files: StoredFiles, path: str) -> str:
    """Advise any next run: the file is about the last one."""
    return f"the next run of {name_bank_command(files)} makes it again"


def by_nothing(files: StoredFiles, path: str) -> str:
    """Advise nothing: no command reads the file."""
    return "nothing is lost"
