"""Forecast the seconds of one core that trials take, from the times in a bank's receipts, to choose where they run."""

from memscore.pipeline.jobs import ORIGINAL
from memscore.store.shards import format_model_name
from memscore.store.store import Store

TRIAL_S = 0.2  # the measures of one trial of a small network
STORED_TRIAL_S = 0.01  # reading its row


def forecast_trials(bank_store: Store, *, models: int, trials: int) -> float:
    """Forecast the seconds of so many originals and oracles, and so many trials, each with as much as a training."""
    training_s = find_training_seconds(bank_store)
    return models * training_s + trials * (TRIAL_S + training_s)


def find_training_seconds(bank_store: Store) -> float:
    """Find the seconds of training on the whole training set: an original's, else those of a model of an arm / keep.

    0 where no receipt has a time; a pool that was chosen by it then measures the jobs themselves.
    """
    shares = {ORIGINAL: 1.0} | {name: float(record["keep"]) for name, record in sorted(bank_store.arms().items())}
    for name, keep in shares.items():
        receipt = bank_store.read_receipt(format_model_name(name, 0)) or {}
        # a receipt that was restored from a shard has no seconds
        if seconds := receipt.get("seconds"):
            return float(seconds) / keep
    return 0.0
