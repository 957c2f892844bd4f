"""The kinds of files of a store, one row each: what a file holds, how it is checked, what implies it, what rebuilds it.

`memscore.bank verify` reads this table and knows no kind by name, so a new kind is one row, and one function in
stored_files.py if other files imply it or make it stale. Each path matches one pattern at most. Stores of forget sets
that change the data, scenarios/NAME/, hold the same kinds again. A kind that is added is expected only of files that
are as new, or verify would miss it in every older store.
"""

import re

from memscore.store import rebuild_advice as rebuild
from memscore.store import stored_files as stored
from memscore.store.file_formats import ANY, FORMATS, JSON, PARQUET, PNG, SAFETENSORS, TEXT, Format
from memscore.store.file_kind import FileKind
from memscore.store.path_patterns import HASH, split_scenario
from memscore.store.stored_files import StoredFiles


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
        pattern="duplicates.parquet",
        format=PARQUET,
        content="Examples whose image has an exact copy, in groups: row, id, split, label, group; counts as metadata.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_copies,
        conflicts=stored.find_copies_of_other_data,
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
        content="Weights of an original, an oracle, a stored unlearned model or a half's model, or --pretrained.",
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
        pattern="rebuilt/KEY-PROXY.parquet",
        format=PARQUET,
        content="What gradient inversion rebuilt from the original KEY: how near it is, and of original 0 the images.",
        rebuild=rebuild.by_model_command,
        expected=stored.expect_rebuilt_images,
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
        pattern="reports/roc_SUFFIX.parquet",
        format=PARQUET,
        content="The curves of that picture: false positive rate, mean true positive rate, and 95 % of the targets.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_roc_tables,
    ),
    FileKind(
        pattern="reports/inversion.png",
        format=PNG,
        content="Examples, and what gradient inversion rebuilt of them from models with and without them.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_inversion_picture,
    ),
    FileKind(
        pattern="reports/groups_SUFFIX.parquet",
        format=PARQUET,
        content="Leakage of each class and cluster by each attack, with intervals, of one arm.",
        rebuild=rebuild.by_bank_command,
        expected=stored.expect_group_tables,
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
        pattern="reports/near_duplicates.parquet",
        format=PARQUET,
        content="Images with a near copy, the copy and their cosine (memscore.bank duplicates); threshold as metadata.",
        rebuild=rebuild.by_duplicates_command,
    ),
    FileKind(
        pattern="reports/audit-NAME.parquet",
        format=PARQUET,
        content="Membership of each example in the training set of a model of yours (memscore.attack).",
        rebuild=rebuild.by_attack_command,
    ),
    FileKind(
        pattern="reports/audit-NAME.json",
        format=JSON,
        content="The numbers of an audit (memscore.attack): AUC, epsilon, whether to trust them and why.",
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
        pattern="trials/KEY-population.json",
        format=JSON,
        content="Measures of many models, by the hash of all of them: the method, its originals, and the values.",
        rebuild=rebuild.by_population_commands,
    ),
    FileKind(
        pattern="trials/measures.json",
        format=JSON,
        content="What the columns of trials mean: unit, best value, ideal, a line on each.",
        rebuild=rebuild.by_trial_command,
    ),
    FileKind(
        pattern="difficulty/KEY.parquet",
        format=PARQUET,
        content="Some examples of one original, each unlearned alone by one algorithm: steps, changes, factors.",
        rebuild=rebuild.by_difficulty_experiment,
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
        pattern="experiments/NAME/table-TABLE.parquet",
        format=PARQUET,
        content="A further table of an experiment: correlations, factors, hardest or prediction of difficulty.",
        rebuild=rebuild.by_experiment_command,
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
        pattern="experiments/NAME/picture-PICTURE.png",
        format=PNG,
        content="A further figure of an experiment.",
        rebuild=rebuild.by_experiment_command,
    ),
    FileKind(
        pattern="experiments/NAME/embeddings.png",
        format=PNG,
        content="Embeddings of theta_o with the forget sets of an experiment in them.",
        rebuild=rebuild.by_experiment_command,
    ),
    FileKind(
        pattern="progress.json",
        format=JSON,
        content="Heartbeat of the last run, written every few seconds.",
        rebuild=rebuild.by_next_command,
    ),
    FileKind(
        pattern="run.log",
        format=TEXT,
        content="What commands that train or score wrote to the terminal: command, versions, progress, warnings, end.",
        rebuild=rebuild.by_nothing,
    ),
    FileKind(
        pattern="run.old.log",
        format=TEXT,
        content="The log before it, once that was 5 MB.",
        rebuild=rebuild.by_nothing,
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
