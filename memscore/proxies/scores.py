"""Write scores of proxies and learning events, averaged over their models."""

from collections.abc import Mapping, Sequence

import numpy as np

from memscore.proxies.registry import PROXIES
from memscore.proxies.storage import InversionOptions, build_score_metadata, describe_training, read_proxy
from memscore.score_registry import EVENT_DIRECTIONS, SCORES, build_field_metadata
from memscore.statistics.intervals import smoothed_variance
from memscore.store.shards import format_model_name, hash_shards
from memscore.store.store import Store

Columns = dict[str, np.ndarray]

SHARE_SCORES = ("inversion_success", "inversion_retrieval")  # 0 or 1 for each model; their standard error is never 0
SPREAD_SOURCE = (
    "standard error of the mean over models, s / sqrt(n); null of one model, of an infinite value, and where all "
    "models give the same number, which says nothing of their spread"
)
SMOOTHED_SOURCE = "sqrt(p~ (1 - p~) / (n + 1)), p~ = (k + .5) / (n + 1), of k successes of n models; null of one model"


def score_originals(store: Store, keys: Sequence[str]) -> list[str]:
    """Write learning events and final loss, averaged over the originals; return the names of the scores."""
    if not keys:
        return []
    n, written = store.manifest.split_sizes[0], []
    for prefix, name, ending in (("events", "events", ""), ("events_evaluation", "evaluation", "-evaluation")):
        present = [key + ending for key in keys if store.has_events(key + ending)]
        if len(present) == len(keys):
            tables = [store.read_events(key) for key in present]
            written += write_event_scores(store, prefix, tables, "originals", keys, describe_training(store, name))
    losses = [compute_original_loss(store, key)[:n] for key in keys]
    write_mean_score(store, "final_loss", "final_loss", losses, "originals", keys)
    return [*written, "final_loss"]


def score_proxies(store: Store, keys: Sequence[str], inversions: Mapping[str, InversionOptions]) -> list[str]:
    """Write every stored proxy, inversions of these settings, as a mean over originals; return the scores' names."""
    written = []
    for name, proxy in PROXIES.items():
        settings = inversions.get(name)
        tables = {key: table for key in keys if (table := read_proxy(store, key, name, settings)) is not None}
        metadata = build_score_metadata(name, settings, store.manifest.split_sizes[0]) | describe_training(store, name)
        for score in proxy.scores:
            values = {key: table[score] for key, table in tables.items() if score in table}
            if values:
                write_mean_score(store, score, score, [*values.values()], "originals", [*values], metadata)
                written.append(score)
    return written


def score_bank_events(store: Store, name: str, indices: Sequence[int]) -> list[str]:
    """Write learning events in an arm's models, averaged over those trained on the example; return the names."""
    models = [format_model_name(name, m) for m in indices if store.has_events(format_model_name(name, m))]
    if not models:
        return []
    tables = [store.read_events(model) for model in models]
    return write_event_scores(store, f"events_bank_{store.arms()[name]['suffix']}", tables, name, models)


def write_event_scores(
    store: Store,
    prefix: str,
    tables: list[Columns],
    models_of: str,
    keys: Sequence[str],
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Write one score for each kind of learning event."""
    names = []
    for column in EVENT_DIRECTIONS:
        name = f"{prefix}_{column}"
        write_mean_score(store, name, column, [table[column] for table in tables], models_of, keys, metadata)
        names.append(name)
    return names


def write_mean_score(
    store: Store,
    name: str,
    stem: str,
    values: list[np.ndarray],
    models_of: str,
    keys: Sequence[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a proxy's mean over models, its standard error and the number of models; NaN values are left out."""
    stacked = np.stack([np.asarray(v, np.float64) for v in values])
    # [models, N]; an example may be undefined in some of them, such as those that were not trained on it
    count = (~np.isnan(stacked)).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, np.nansum(stacked, 0) / count, np.nan)
        spread = np.nansum((stacked - mean) ** 2, 0) / (count - 1)
        # The error is undefined for one model, for an infinite value (the PSNR of a perfect copy), and where all models
        # agree: a few that agree by chance, as on an example that is right at every visit, give no information on how
        # much others would differ, and 0 would claim certainty.
        agree = np.fmin.reduce(stacked) == np.fmax.reduce(stacked)  # to the bit: their mean may be rounded
        se = np.where((count > 1) & np.isfinite(mean) & ~agree, np.sqrt(spread / count), np.nan)
        # a share of models has the smoothed error of a proportion instead, which is above 0 where all agree too
        if stem in SHARE_SCORES:
            se = np.where(count > 1, np.sqrt(smoothed_variance(np.nansum(stacked, 0), count)), np.nan)
    columns = {name: mean, f"{name}_se": se, f"{name}_n": count.astype(np.int32)}
    # identifies the models that were averaged; they are named, since originals have no shards with hashes
    digest = hash_shards(models_of, dict(enumerate(keys)))
    file_metadata = {"models_of": models_of, "models": str(len(keys)), **(metadata or {})}
    fields = build_field_metadata(SCORES[stem], columns)
    fields[f"{name}_se"]["source"] = SMOOTHED_SOURCE if stem in SHARE_SCORES else SPREAD_SOURCE
    store.write_score(name, columns, fields, file_metadata, digest)


def compute_original_loss(store: Store, key: str) -> np.ndarray:
    """Compute the cross-entropy of one original on every example, float64 [N]."""
    logits = store.read_logits(key)
    # the small loss of a member is a difference of large logits, which float32 would round to 0
    z = logits.astype(np.float64)
    labels = np.asarray(store.examples()["label"].to_numpy())
    top = z.max(1, keepdims=True)
    lse = top[:, 0] + np.log(np.exp(z - top).sum(1))
    return np.asarray(lse - z[np.arange(len(z)), labels])
