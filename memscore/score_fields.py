"""Where each score is from, its unit, and which way it points: what stands in the field of its column."""

from collections.abc import Iterable
from typing import Any

from memscore.proxies import EVENTS

SOURCES: dict[str, tuple[str, str, int]] = {
    "memorization": ("Feldman & Zhang 2020; RUM eq. 1: P[correct | in] - P[correct | out]", "probability", 1),
    "cscore": ("Jiang et al. 2021 (SCALE 2.2): P[correct | out] at one subset fraction", "probability", -1),
    "lira": (
        "Carlini et al. 2022, Student-t predictive: mean log-likelihood ratio over targets that held it",
        "nat",
        1,
    ),
    "lira_offline": ("Carlini et al. 2022, one-sided, eq. 4: mean over targets that held it", "standard deviation", 1),
    "attack_success": ("RSU eq. 1: share of targets whose online attack at threshold 0 is right", "probability", 1),
    "confidence": ("SCALE 2.2: mean p_y over training", "probability", EVENTS["confidence"]),
    "max_confidence": ("SCALE 2.2: mean max p over training", "probability", EVENTS["max_confidence"]),
    "entropy": ("SCALE 2.2: mean entropy over training", "nat", EVENTS["entropy"]),
    "accuracy": ("SCALE 2.2: mean correctness over training", "probability", EVENTS["accuracy"]),
    "forgetting": ("Toneva et al. 2019: right on one visit, wrong on the next", "events", EVENTS["forgetting"]),
    "final_loss": ("cross-entropy at the end of training, mean over originals (RSU Fig. 5)", "nat", 1),
}


def fields_of(stem: str, columns: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Source, unit and direction of a score's columns: only the score itself points anywhere."""
    source, unit, direction = SOURCES[stem]
    names = list(columns)
    return {
        name: {
            "source": source,
            "unit": "count" if "_n_" in name or name.endswith("_n") else unit,
            "direction": direction if name == names[0] else 0,
        }
        for name in names
    }
