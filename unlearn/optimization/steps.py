"""Numbers for the epochs and the batch that a config leaves to the data: the steps of the papers' setting, scaled.

RUM's setting: |R| = 42,000 and |F| = 3,000, retraining of 30 epochs of batch 256, 165 steps each; an algorithm passes
over R E times, a share of E / 30 of the steps of retraining, or over F, 12 steps a pass. Here, with a recipe of E_r
epochs of batch B_r:

    batch    B = min(B_r, 256);  for passes over F alone at most ceil(|F| / 12)
    epochs   over R: E min(s, max(1, 165 / ceil(|R| / B))), rounded, at least 1;   s = (E_r / 30) (B / B_r)
             over F alone: E

s is the share of the steps of retraining. The other bound is for recipes of many epochs on much data: no more steps
than the paper's algorithm took, or its epochs, whichever is more.
"""

from dataclasses import MISSING, fields, replace
from typing import Any

from memscore.training.recipes import Recipe

PAPER: dict[str, Any] = {"epochs": 10, "batch": 256}
"""RUM's numbers, for configs that have none of their own."""
RETRAINING_EPOCHS = 30
RETAIN_STEPS = 165
"""Steps of RUM's passes over R."""
FORGET_STEPS = 12
"""Steps of RUM's passes over F."""


def get_paper_values(config: Any) -> dict[str, Any]:
    """Get the paper's numbers for the fields of a config, or of its class, that are left to the data by default."""
    open_fields = list_open_fields(config)
    return {name: value for name, value in get_paper_numbers(config).items() if name in open_fields}


def get_paper_numbers(config: Any) -> dict[str, Any]:
    """Get a config's own numbers of its paper, and RUM's for the others."""
    return {**PAPER, **getattr(config, "PAPER", {})}


def list_open_fields(config: Any) -> list[str]:
    """List the fields of a config, or of its class, whose default is None: numbers that follow from the data."""
    return [field.name for field in fields(config) if field.default is None and field.default is not MISSING]


def limit_forget_batch(batch: int, n_forget: int) -> int:
    """Limit a batch so that a pass over the forget set has RUM's number of steps, where it has as many examples."""
    return min(batch, -(-n_forget // FORGET_STEPS))


def resolve_steps(config: Any, n_retain: int, n_forget: int, recipe: Recipe, rounds: int = 1, times: int = 1) -> Any:
    """Fill in the epochs and the batch that a config leaves to the data, and what it derives from them.

    Args:
        config: of any algorithm, also the user's own. PAPER holds the paper's numbers, FORGET_ONLY says that the
            algorithm's passes are over F alone, and the method `complete`(n_forget) fills in what follows from them.
        n_retain: |R|.
        n_forget: |F|.
        recipe: the bank's.
        rounds: T, among which the epochs are divided, rounded up.
        times: by which the epochs are multiplied before.

    Returns:
        The config with numbers; the same one where it has all of them.

    Raises:
        ValueError: a number that the user gave does not go with the epochs.
    """
    changes: dict[str, Any] = {}
    over_forget = getattr(config, "FORGET_ONLY", False)
    batch = getattr(config, "batch", None)
    if batch is None:
        batch = min(recipe.batch, PAPER["batch"])
        batch = limit_forget_batch(batch, n_forget) if over_forget else batch
        changes["batch"] = batch
    epochs = getattr(config, "epochs", None)
    if epochs is None:
        epochs = get_paper_numbers(config)["epochs"]
        if not over_forget:
            # s of the module, and the bound for recipes of many epochs on much data.
            share = recipe.epochs / RETRAINING_EPOCHS * batch / recipe.batch
            epochs *= min(share, max(1.0, RETAIN_STEPS / -(-n_retain // batch)))
        changes["epochs"] = epochs = max(getattr(config, "MIN_EPOCHS", 1), round(epochs))
    # After the numbers are known: a round of RSU has its share of the epochs, whoever gave them.
    if times > 1 and epochs is not None:
        changes["epochs"] = epochs = epochs * times
    if rounds > 1:
        changes["epochs"] = max(getattr(config, "MIN_EPOCHS", 1), -(-epochs // rounds))
    # A config without epochs, as SSD's, has nothing to put them in.
    known = {field.name for field in fields(config)}
    config = replace(config, **{name: value for name, value in changes.items() if name in known})
    complete = getattr(config, "complete", None)
    return complete(n_forget) if complete else config
