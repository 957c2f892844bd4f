"""Lines below the table of attacks: where an AUC misleads, and why there is none."""

import math
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from memscore.pipeline.scoring import ArmScores
from memscore.tables.console import print_line
from memscore.units import format_count

MODELS_NAMED = 4


def print_attack_notes(console: Console, arms: Sequence[ArmScores]) -> None:
    """Print what limits the attacks on each arm, and what to do."""
    for line in (line for arm in arms if arm.attacks for line in build_attack_notes(arm)):
        print_line(console, line)


def build_attack_notes(arm: ArmScores) -> list[str]:
    """Build the lines of one arm; none where every attack has an AUC that is one half without a leak."""
    lines = []
    if arm.arm.design == "orthogonal" and not arm.has_other_blocks:
        lines.append(
            f"{arm.suffix}: one block of an orthogonal design: where confidences depend on neighbours, LiRA without "
            "any leak has an AUC below one half, and so has attack success; use --models "
            f"{2 * arm.arm.models_per_block}, so that shadow models are of other blocks"
        )
    if arm.left_out:
        named = ", ".join(arm.left_out[:MODELS_NAMED]) + (", ..." if len(arm.left_out) > MODELS_NAMED else "")
        lines.append(
            f"{arm.suffix}: {len(arm.left_out)} of {arm.models} models not attacked as targets, and counted as the "
            f"median of the others as shadow models, since confidences are far from theirs on most examples: {named}"
        )
    equal = [
        name for name, curve in arm.attacks.items() if np.allclose(curve.measures["auc"].per_target, 0.5, atol=1e-9)
    ]
    if equal:
        lines.append(
            f"{arm.suffix}: {', '.join(equal)}: all examples have the same score against every target, so nothing was "
            "measured; that is no evidence of privacy"
        )
    undefined = [name for name, curve in arm.attacks.items() if np.isnan(curve.measures["auc"].value)]
    if undefined:
        lines.append(
            f"{arm.suffix}: {', '.join(undefined)} undefined with {format_count(arm.models, 'model')}: an attack needs "
            "a shadow model with the example and one without it besides the target and the one that is dropped, and "
            f"for variances two on a side; use --models {count_models_to_attack(arm)}"
        )
    return lines


def count_models_to_attack(arm: ArmScores) -> int:
    """Count the models with which the attacks on an arm are defined: two with and without each example as shadows."""
    block, rare = arm.arm.models_per_block, min(arm.arm.keep, 1 - arm.arm.keep)
    blocks = math.ceil(2 / (block * rare) - 1e-9)
    # in an orthogonal design the shadows are of other blocks than the target
    models = block * (blocks + (arm.arm.design == "orthogonal"))
    # an independent design may lack them by chance
    return models if models > arm.models else 2 * block * math.ceil(arm.models / block)
