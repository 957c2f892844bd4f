"""Source, unit and direction of each score, as stored in the metadata of its column.

Those of statistics stand in their rows of memscore.estimators.registry.STATISTICS.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

EVENT_DIRECTIONS = {"confidence": -1, "max_confidence": -1, "entropy": 1, "accuracy": -1, "forgetting": 1}
"""Learning events: +1 if a higher value means more memorization (SCALE Table 1), -1 if it means less."""

CURVATURE_SOURCE = "Garg et al. 2023 / SCALE 2.2: norm of the change of the loss's input gradient over a step of"
INVERSION_SOURCE = "RSU Fig. 1, attack of Geiping et al. 2020 on one example's gradient:"


class ScoreInfo(NamedTuple):
    """Source of a score (paper and equation), its unit, and its direction.

    The direction is +1 if higher means more memorized or riskier, -1 if it means less, 0 if neither.
    """

    source: str
    unit: str
    direction: int


SCORES: dict[str, ScoreInfo] = {
    "memorization_blend": ScoreInfo(
        "Feldman & Zhang 2020 eq. 1 by counts and clipped probit, with one weight for all examples, fitted between "
        "halves of the models",
        "probability",
        1,
    ),
    "memorization_stacked": ScoreInfo(
        "Feldman & Zhang 2020 eq. 1 by regression of held-out counts over examples (Wolpert 1992); shrinks the most "
        "memorized examples",
        "probability",
        1,
    ),
    "lira": ScoreInfo(
        "Carlini et al. 2022, Algorithm 1 with Student-t predictives (BaVarIA-t, arXiv 2603.11799): "
        "mean log-likelihood ratio over targets that held it",
        "nat",
        1,
    ),
    "lira_offline": ScoreInfo(
        "Carlini et al. 2022, eq. 4 (cdf, one-sided) with Student-t predictives: mean over targets that held it",
        "standard deviation",
        1,
    ),
    "attack_success": ScoreInfo(
        "RSU eq. 1: share of targets whose online attack at threshold 0 is right", "probability", 1
    ),
    "decision_agreement": ScoreInfo(
        "Jebreel et al. 2026: share of targets whose decision at an expected false positive rate of 1 % is right, mean "
        "of those trained on it and of the others",
        "probability",
        1,
    ),
    "confidence": ScoreInfo("SCALE 2.2: mean p_y over training", "probability", EVENT_DIRECTIONS["confidence"]),
    "max_confidence": ScoreInfo(
        "SCALE 2.2: mean max p over training", "probability", EVENT_DIRECTIONS["max_confidence"]
    ),
    "entropy": ScoreInfo("SCALE 2.2: mean entropy over training", "nat", EVENT_DIRECTIONS["entropy"]),
    "accuracy": ScoreInfo("SCALE 2.2: mean correctness over training", "probability", EVENT_DIRECTIONS["accuracy"]),
    "forgetting": ScoreInfo(
        "Toneva et al. 2019: right on one visit, wrong on the next",
        "events",
        EVENT_DIRECTIONS["forgetting"],
    ),
    "final_loss": ScoreInfo("cross-entropy at the end of training, mean over originals (RSU Fig. 5)", "nat", 1),
    "holdout": ScoreInfo(
        "Carlini et al. 2019 / SCALE 2.2: symmetric KL before and after fine-tuning on half of validation",
        "nat",
        1,
    ),
    "holdout_test": ScoreInfo("the same, fine-tuned on the test set, which judges nothing any more", "nat", 1),
    "curvature_sign": ScoreInfo(f"{CURVATURE_SOURCE} 0.01 along the sign of the gradient", "nat per pixel unit", 1),
    "curvature_rademacher": ScoreInfo(
        f"{CURVATURE_SOURCE} 0.001 a pixel, mean of the norms of 10 random ones; ranks as the Frobenius norm of the "
        "Hessian, not as its trace",
        "nat per pixel unit",
        1,
    ),
    "aum": ScoreInfo("Pleiss et al. 2020: margin of the label's logit, mean over training", "logit", -1),
    "el2n": ScoreInfo("Paul et al. 2021: || p - y ||_2 early in training", "probability", 1),
    "grand": ScoreInfo(
        "Paul et al. 2021: norm of the example's gradient over all weights, early in training",
        "nat per weight unit",
        1,
    ),
    "centroid_distance": ScoreInfo("distance to the mean embedding of its class", "embedding unit", 1),
    "inversion_psnr": ScoreInfo(f"{INVERSION_SOURCE} peak signal-to-noise ratio of what is rebuilt", "dB", 1),
    "inversion_ssim": ScoreInfo(
        f"{INVERSION_SOURCE} structural similarity (Wang et al. 2004) of what is rebuilt", "1", 1
    ),
    "inversion_success": ScoreInfo(
        f"{INVERSION_SOURCE} share of originals with a PSNR of 20 dB or more", "probability", 1
    ),
    "inversion_psnr_fitted": ScoreInfo(
        f"{INVERSION_SOURCE} PSNR with brightness and contrast of each channel fitted, above that of a flat picture of "
        "the example's mean colours",
        "dB",
        1,
    ),
    "inversion_ssim_fitted": ScoreInfo(
        f"{INVERSION_SOURCE} structure term of SSIM, pooled over windows, which brightness and contrast do not change",
        "1",
        1,
    ),
    "inversion_retrieval": ScoreInfo(
        f"{INVERSION_SOURCE} share of originals for which no other training image resembles what is rebuilt more",
        "probability",
        1,
    ),
    "inversion_percentile": ScoreInfo(
        f"{INVERSION_SOURCE} share of other training images that resemble what is rebuilt no more than the example",
        "probability",
        1,
    ),
    "inversion_gain": ScoreInfo(
        "attack of Geiping et al. 2020 on two models, each trained on one half of the training set: fitted PSNR with "
        "the model that held the example, less that with the other",
        "dB",
        1,
    ),
}

_SOFT = "mean over targets of the posterior probability of the truth, from"
_SOFT_LIRA = f"{_SOFT} the online log-likelihood ratio and the keep fraction"
SCORES["soft_attack_success"] = ScoreInfo(_SOFT_LIRA, "probability", 1)
# four scores for each further statistic of LiRA, with one source each and what sets the statistic apart
_LIRA, _SUCCESS = (
    "Carlini et al. 2022: mean log-likelihood ratio over targets that held it",
    SCORES["attack_success"].source,
)
_AGREEMENT = SCORES["decision_agreement"].source
_STUDENT = "Student-t predictive (BaVarIA-t, arXiv 2603.11799)"
_CDF, _DENSITY = "eq. 4, cdf, one-sided", "the released code's -log density, two-sided"
# name -> what it is, and its offline score
_STATISTICS = {
    "gap": (f"{_STUDENT}, on gaps", _CDF),
    "top_gap": (f"{_STUDENT}, on RSU's first minus second logit", _CDF),
    "paper": ("Algorithm 1: mean, variance of each example", _CDF),
    "released": ("the released plot.py: median, variance of each example", _DENSITY),
    "released_fixed": ("the released plot.py with fix_variance: median, one variance (A)", _DENSITY),
    "advanced_mia_fixed": (
        "TensorFlow Privacy's advanced_mia.py with fix_variance: median, two variances (B)",
        _DENSITY,
    ),
}
for _name, (_description, _offline) in _STATISTICS.items():
    SCORES[f"lira_{_name}"] = ScoreInfo(f"{_LIRA}; {_description}", "nat", 1)
    SCORES[f"lira_{_name}_offline"] = ScoreInfo(
        f"Carlini et al. 2022, offline ({_offline}): mean over targets that held it; {_description}",
        "1",
        1,
    )
    SCORES[f"attack_success_{_name}"] = ScoreInfo(f"{_SUCCESS}; {_description}", "probability", 1)
    SCORES[f"decision_agreement_{_name}"] = ScoreInfo(f"{_AGREEMENT}; {_description}", "probability", 1)
    SCORES[f"soft_attack_success_{_name}"] = ScoreInfo(f"{_SOFT_LIRA}; {_description}", "probability", 1)
for _name, _kind in {"rmia": "online", "rmia_offline": "offline"}.items():
    SCORES[f"decision_agreement_{_name}"] = ScoreInfo(f"{_AGREEMENT}; RMIA, {_kind}", "probability", 1)
    SCORES[_name] = ScoreInfo(
        f"Zarifzadeh et al. 2024, {_kind}: share of the population beaten, mean over targets that held it",
        "probability",
        1,
    )
    SCORES[f"{_name}_ratio"] = ScoreInfo(
        f"RMIA's ratio p(x|t) / p(x), {_kind}, whose log is BASE (Lassila et al. 2025): mean over targets that held it",
        "1",
        1,
    )
    SCORES[f"attack_success_{_name}"] = ScoreInfo(
        f"RSU eq. 1: share of targets whose attack by RMIA's ratio, {_kind}, at threshold 1 is right", "probability", 1
    )
    SCORES[f"soft_attack_success_{_name}"] = ScoreInfo(
        f"{_SOFT} the log of RMIA's ratio, {_kind}, and the keep fraction", "probability", 1
    )


ESTIMATOR_VERSIONS: dict[str, int] = {
    **dict.fromkeys(("influence", "rmia", "rmia_offline"), 2),
    # the ends of their intervals: shares near 0 and 1, and targets that share shadow models
    **dict.fromkeys(("memorization", "cscore"), 2),
    # shadows of other blocks in orthogonal designs, limits for outlying models and numbers; the default LiRA also has a
    # prior mean from the other side
    **{name: 2 for name in SCORES if name.startswith(("lira", "attack_success"))},
}
"""Versions of 2 and more, by the name of the score without the suffix of its arm, such as memorization_probit, or
influence. All other estimators are version 1. A file of another version is stale.

It stands here and not in the tables of statistics, attacks and proxies because a store compares versions, and a store
knows no estimators."""

# the keep fraction; design and block only in the name of an arm that is not the first one of its fraction
ARM_SUFFIX = re.compile(r"_k[01]\.\d{3}(_(iid|exact|orthogonal)(-b\d+)?)?")


def get_estimator_version(score: str) -> int:
    """Return the version of the estimator of a score, given its name with the suffix of its arm.

    >>> get_estimator_version("memorization_probit_k0.500_iid-b8")
    1
    """
    return ESTIMATOR_VERSIONS.get(ARM_SUFFIX.sub("", score), 1)


def make_alias(column: str) -> str:
    """Return a column's name with every character that is no letter, digit or underscore replaced by an underscore.

    >>> make_alias("memorization_k0.500_iid-b8")
    'memorization_k0_500_iid_b8'
    """
    return re.sub(r"\W", "_", column)


def resolve_alias(name: str, names: Iterable[str]) -> str:
    """Return the one of the names that this is or that has it as alias; the name itself where there is none.

    >>> resolve_alias("memorization_k0_500", ["memorization_k0.500", "aum"])
    'memorization_k0.500'
    """
    known = list(names)
    matches = [] if name in known else [each for each in known if make_alias(each) == name]
    return matches[0] if len(matches) == 1 else name


def build_field_metadata(info: ScoreInfo, columns: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Build source, unit and direction of a score's columns; only the score has a direction."""
    # the first column is the score, the others its errors and counts; an error has the unit of the score
    names = list(columns)
    return {
        name: {
            "source": info.source,
            "unit": "count" if "_n_" in name or name.endswith("_n") else info.unit,
            "direction": info.direction if name == names[0] else 0,
        }
        for name in names
    }
