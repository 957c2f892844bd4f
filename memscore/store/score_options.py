"""Say which options of `estimate` make a score, for messages about one that a bank lacks."""

import re
from collections.abc import Collection

from memscore.score_registry import ARM_SUFFIX, SCORES

STACKED = "memorization_stacked"
SUCCESSES = ("decision_agreement", "soft_attack_success", "attack_success")
INVERSION = "inversion"
ALIASED_KEEP = re.compile(r"_k([01])_(\d{3})(?!\d)")


def find_making_options(score: str, stored: Collection[str]) -> str | None:
    """Find the options of estimate that add a score, given by name or alias, to a bank with those that are `stored`.

    None if the name is that of no score.

    >>> find_making_options("lira_gap_offline_k0.700", ["memorization_k0.500"])
    '--keep 0.700 --attacks lira-gap'
    """
    score = ALIASED_KEEP.sub(r"_k\1.\2", score)
    suffix, stem = ARM_SUFFIX.search(score), ARM_SUFFIX.sub("", score)
    # an arm of its own needs more than the score's option
    arms = {found[0] for name in stored if (found := ARM_SUFFIX.search(name))}
    made_by = _find_stem_options(stem)
    # a score of every bank is not in the table of options, but another arm of this one has it
    if made_by is None and not any(ARM_SUFFIX.search(name) and ARM_SUFFIX.sub("", name) == stem for name in stored):
        return None
    is_new_arm = suffix is not None and suffix[0] not in arms
    words = [_format_arm(suffix) if suffix and is_new_arm else "", made_by or ""]
    return " ".join(filter(None, words)) or None


def _format_arm(suffix: re.Match[str]) -> str:
    """Format the options of an arm, given the suffix of its scores."""
    design, block = suffix[2], (suffix[3] or "").removeprefix("-b")
    words = [f"--keep {suffix[0][2:7]}", f"--design {design}" if design else "", f"--block {block}" if block else ""]
    return " ".join(filter(None, words))


def _find_stem_options(stem: str) -> str | None:
    """Find the options that make a score besides those of its arm; None if nothing of that name is requested."""
    if stem == STACKED:
        return "--stacked"
    if stem.startswith("events_"):
        kind = stem.split("_")[1]
        # those of originals are recorded whenever there are originals
        return {"bank": "--bank-events", "evaluation": "--evaluation-events --originals 3"}.get(kind, "--originals 3")
    if stem == "final_loss":
        return "--originals 3"
    if stem not in SCORES or stem.startswith("memorization"):
        return None
    # attack_success_gap is of lira-gap, attack_success_rmia of rmia
    attack = next((stem.removeprefix(name) for name in SUCCESSES if stem.startswith(name)), None)
    if attack is not None:
        return f"--attacks {_name_option(attack[1:] if attack.startswith('_rmia') else f'lira{attack}')}"
    if stem.startswith("lira"):
        return f"--attacks {_name_option(stem.removesuffix('_offline'))}"
    if stem.startswith("rmia"):
        return f"--attacks {_name_option(stem.removesuffix('_ratio'))}"
    # one attack on gradients has seven scores
    is_inversion = stem.startswith(INVERSION) and not stem.endswith("gain")
    return f"--proxies {INVERSION if is_inversion else _name_option(stem)}"


def _name_option(name: str) -> str:
    return name.replace("_", "-")
