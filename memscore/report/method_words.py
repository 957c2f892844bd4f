"""Unlearning methods in the words of their papers, for figures; tables name them as commands do."""

METHOD_NAMES = {
    "original": "nothing",
    "retrain": "Retraining",
    "finetune": "Fine-tuning",
    "gradient-ascent": "Gradient ascent",
    "neggrad-plus": "NegGrad+",
    "influence": "Influence unlearning",
    "boundary-shrink": "Boundary shrink",
    "boundary-shrink-plus": "Boundary shrink+",
    "boundary-expand": "Boundary expand",
    "boundary-expand-plus": "Boundary expand+",
    "sure": "SURE",
    "ssd": "SSD",
    "l1-sparse": "L1-sparse",
    "random-label": "Random labels",
    "salun": "SalUn",
    "scrub": "SCRUB",
    "scrub-rewind": "SCRUB+R",
    "bad-teacher": "Bad teacher",
    "cf-k": "CF-k",
    "eu-k": "EU-k",
}
VARIANT_NAMES = {"rum": "RUM", "rum-reversed": "RUM reversed", "rsu": "RSU", "rsu-reversed": "RSU reversed"}


def name_method_in_words(name: str) -> str:
    """Name an algorithm, or a sequence of some; a user's own algorithm keeps its name.

    >>> name_method_in_words("finetune>salun")
    'Fine-tuning, then SalUn'
    """
    return ", then ".join(METHOD_NAMES.get(each, each) for each in name.split(">"))


def name_variant_in_words(variant: str) -> str:
    """Name how the forget set was divided, and by which score; what else tells methods apart stays.

    >>> name_variant_in_words("rum memorization_k0.500"), name_variant_in_words("epochs 5, lr 0.02")
    ('RUM by memorization_k0.500', 'epochs 5, lr 0.02')
    """
    first, _, score = variant.partition(" ")
    if first not in VARIANT_NAMES:
        return variant
    return f"{VARIANT_NAMES[first]} by {score}" if score else VARIANT_NAMES[first]
