"""What is known of every training example before unlearning: scores of the bank, and what theta_o says of it."""

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax, softmax

from memscore.proxies.centroid_distance import centroid_distance
from memscore.seeds import generator
from memscore.store.shards import hash_shards
from memscore.store.store import Store
from unlearn.difficulty.density import compute_log_density
from unlearn.difficulty.job import draw_stratified
from unlearn.trials.setup import UnlearningContext

SCORE = "predicted_difficulty"
FIELD = {
    "source": "INST's gap: rank of difficulty, regressed on scores and on theta_o's answers before unlearning",
    "unit": "rank in 0 to 1",
    "direction": 1,
}
N_NEIGHBOURS = 1000


def collect_features(store: Store, context: UnlearningContext, keys: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Collect features of every training example, [O, N, F], and their names.

    Scores of the bank are the same for each original. Those that are stale or have no direction are left out, and so is
    a prediction that an earlier run stored.

    Args:
        store: with the originals' outputs.
        context: with the labels, and the store of scores.
        keys: of the originals.

    Returns:
        The features, NaN where undefined, and their names.
    """
    n = store.manifest.split_sizes[0]
    labels = context.trial_data.labels[:n]
    scores = read_scores(context.score_store, n)
    per_original = []
    for key in keys:
        logits, embeddings = (array[:n] for array in store.read_outputs(key))
        per_original.append(describe_answers(logits.astype(np.float64), embeddings, labels, store.manifest.seed))
    names = [*scores, *per_original[0]]
    features = np.stack([np.stack([*scores.values(), *own.values()], axis=1) for own in per_original])
    return features, names


def read_scores(store: Store, n: int) -> dict[str, np.ndarray]:
    """Read all oriented scores of the bank that are fresh, [n] each, NaN where undefined."""
    found = {}
    for file in sorted(store.folder.names("scores")):
        name = file.removesuffix(".parquet")
        if name == SCORE:
            continue
        try:
            ids, values = store.score(name)
        except ValueError:
            # stale, or of no direction: what cannot be trusted is no feature
            continue
        # a score of another number of examples is not of this training set
        if len(ids) == n and not np.isnan(values).all():
            found[name] = values
    return found


def describe_answers(
    logits: np.ndarray, embeddings: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Describe what one theta_o answers on every training example, [N] each."""
    n = len(labels)
    log_p = log_softmax(logits, axis=1)
    own = logits[np.arange(n), labels]
    # the margin is to the best other class
    others = logits.copy()
    others[np.arange(n), labels] = -np.inf
    sample = draw_stratified(labels, N_NEIGHBOURS, generator(seed, "difficulty-sample", "density"))
    # an example of the sample is no neighbour of its own
    place = np.full(n, -1)
    place[sample] = np.arange(len(sample))
    return {
        "theta_o_loss": -log_p[np.arange(n), labels],
        "theta_o_margin": own - others.max(1),
        "theta_o_entropy": -(softmax(logits, axis=1) * log_p).sum(1),
        "theta_o_centroid_distance": centroid_distance(embeddings, labels),
        "theta_o_embedding_norm": np.linalg.norm(embeddings, axis=1),
        "theta_o_density": compute_log_density(embeddings, embeddings[sample], place),
    }


def store_prediction(store: Store, prediction: np.ndarray, keys: Sequence[str]) -> None:
    """Store the predicted difficulty of every training example as a score, of the originals of these keys."""
    digest = hash_shards(SCORE, dict(enumerate(keys)))
    store.write_score(SCORE, {SCORE: prediction}, {SCORE: FIELD}, {}, digest)
