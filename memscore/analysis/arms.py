"""The arm of a bank that a command analyses, and its models."""

from collections.abc import Mapping
from typing import Any

from memscore.choices import validate_choice
from memscore.store.shards import ShardCheck
from memscore.store.store import Store


def select_arm(store: Store, requested: str | None, arms: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Return the name of the arm with the requested name or suffix; if none is requested, of the only arm.

    It is one of `arms`, records by name: by default all arms of the bank.
    """
    arms = store.arms() if arms is None else arms
    if not arms:
        raise ValueError(f"{store.folder.display_name} has no arm yet; `python -m memscore.estimate` begins one")
    if requested is None:
        if len(arms) > 1:
            raise ValueError(
                f"{store.folder.display_name} has {len(arms)} arms and their models are never pooled; choose with "
                "--arm: "
                f"{', '.join(arms)}"
            )
        return next(iter(arms))
    by_suffix = {record["suffix"]: name for name, record in arms.items()}
    choice = validate_choice("arm", requested, [*arms, *by_suffix])
    return by_suffix.get(choice, choice)


def check_arm(store: Store, name: str) -> ShardCheck:
    """Return which shards of an arm can be read, by their footers alone; ValueError if none can."""
    check = store.check(name, verify=False)
    if not check.valid:
        raise ValueError(
            f"arm {name} of {store.folder.display_name} has no models that can be read; `python -m memscore.estimate "
            f"--store {store.folder.display_name}` trains them"
        )
    return check
