"""Scores in words: the title, the heading and the meaning of each, for readers who know no code names."""

from typing import NamedTuple

from memscore.score_registry import ARM_SUFFIX


class ScoreWords(NamedTuple):
    """What a page calls a score, under which heading it stands, and what it is in a line."""

    title: str
    group: str
    about: str


MEMORIZATION, ATTACKS, EVENTS, PROXIES, INVERSION = (
    "Memorization",
    "Membership attacks",
    "Learning events",
    "Proxies",
    "Gradient inversion",
)
WORDS = {
    "memorization": ScoreWords(
        "Memorization", MEMORIZATION, "how much more often models are right on it if they were trained on it"
    ),
    "memorization_blend": ScoreWords(
        "Memorization, blend", MEMORIZATION, "the same, from counts and a fit to margins together: the least error"
    ),
    "memorization_stacked": ScoreWords(
        "Memorization, regression", MEMORIZATION, "the same by a regression over examples; underestimates the highest"
    ),
    "memorization_probability": ScoreWords(
        "Memorization of probability", MEMORIZATION, "how much more probability models that held it give its label"
    ),
    "memorization_probit": ScoreWords(
        "Memorization, probit", MEMORIZATION, "the same as memorization, from a Gaussian fit to margins"
    ),
    "cscore": ScoreWords("C-score", MEMORIZATION, "how often models that never saw it are right on it"),
    "lira": ScoreWords("LiRA", ATTACKS, "log-likelihood ratio of having been trained on it, mean of models that were"),
    "lira_offline": ScoreWords(
        "LiRA, offline", ATTACKS, "how far above models without it, mean of models that held it"
    ),
    "attack_success": ScoreWords(
        "Attack success", ATTACKS, "share of models whose training on it an attack decides rightly"
    ),
    "soft_attack_success": ScoreWords(
        "Attack success, soft", ATTACKS, "probability that an attack gives to the truth, mean of models"
    ),
    "decision_agreement": ScoreWords(
        "Decision at 1 % false positives", ATTACKS, "share of right decisions at a false positive rate of 1 %"
    ),
    "rmia": ScoreWords("RMIA", ATTACKS, "share of the population that it beats, mean of models that held it"),
    "rmia_offline": ScoreWords("RMIA, offline", ATTACKS, "the same from models without it alone"),
    "rmia_ratio": ScoreWords("RMIA's ratio", ATTACKS, "how much more likely with it than without, mean over models"),
    "confidence": ScoreWords("Confidence", EVENTS, "probability of its label, mean over training"),
    "max_confidence": ScoreWords("Largest probability", EVENTS, "of any class, mean over training"),
    "entropy": ScoreWords("Entropy", EVENTS, "of the prediction, mean over training"),
    "accuracy": ScoreWords("Accuracy", EVENTS, "how often the model is right on it in training"),
    "forgetting": ScoreWords("Forgetting events", EVENTS, "right at one visit and wrong at the next, number of times"),
    "final_loss": ScoreWords("Final loss", PROXIES, "cross-entropy after training, mean over originals"),
    "holdout": ScoreWords("Holdout retraining", PROXIES, "how far its prediction moves when unseen data are learned"),
    "holdout_test": ScoreWords("Holdout retraining on test", PROXIES, "the same, when the test set is learned"),
    "curvature_sign": ScoreWords("Curvature", PROXIES, "of the loss around it, along the sign of its gradient"),
    "curvature_rademacher": ScoreWords("Curvature, random", PROXIES, "of the loss around it, in random directions"),
    "aum": ScoreWords("Area under the margin", PROXIES, "margin of its label's logit, mean over training"),
    "el2n": ScoreWords("EL2N", PROXIES, "distance of its prediction from its label early in training"),
    "grand": ScoreWords("GraNd", PROXIES, "size of its gradient early in training"),
    "centroid_distance": ScoreWords("Distance to its class", PROXIES, "from the mean embedding of its class"),
}
"""By the stem of a score's name, which is its name without the suffix of its arm."""
BEGINNINGS = {
    "events_evaluation_": " in evaluation passes",
    "events_bank_": " of the bank's models",
    "events_": "",
}
"""What stands before the name of a learning event -> what is added to its title."""
ATTACK_BEGINNINGS = ("lira_", "attack_success_", "soft_attack_success_", "decision_agreement_", "rmia_")


def split_score_name(name: str) -> tuple[str, str]:
    """Split the name of a score into its stem and the suffix of its arm, empty without one.

    >>> split_score_name("lira_k0.500"), split_score_name("aum")
    (('lira', 'k0.500'), ('aum', ''))
    """
    match = ARM_SUFFIX.search(name)
    return (name[: match.start()], match[0][1:]) if match else (name, "")


def describe_score(stem: str) -> ScoreWords:
    """Return what a page calls a score, by its stem; of one without an entry the name with spaces."""
    if stem in WORDS:
        return WORDS[stem]
    # the longer beginnings stand first in the table, so that events_ alone does not take them
    for beginning, ending in BEGINNINGS.items():
        if stem.startswith(beginning):
            words = WORDS.get(stem.removeprefix(beginning))
            title = words.title if words else stem.removeprefix(beginning).replace("_", " ").capitalize()
            return ScoreWords(f"{title}{ending}", EVENTS, words.about if words else "")
    if stem.startswith("inversion_"):
        title = stem.removeprefix("inversion_").replace("_", " ")
        return ScoreWords(f"Inversion, {title}", INVERSION, "how well its image is rebuilt from its gradient")
    # the longest beginning, so that attack_success_rmia is no variant of something shorter
    for beginning in sorted(ATTACK_BEGINNINGS, key=len, reverse=True):
        if stem.startswith(beginning):
            words = WORDS[beginning[:-1]]
            variant = stem.removeprefix(beginning).replace("_", " ").replace("rmia", "RMIA")
            return ScoreWords(f"{words.title} ({variant})", ATTACKS, words.about)
    return ScoreWords(stem.replace("_", " ").capitalize(), PROXIES, "")


def describe_direction(direction: int) -> str:
    """Say which way a score points."""
    return {1: "Higher is more memorized or riskier.", -1: "Lower is more memorized or riskier."}.get(direction, "")
