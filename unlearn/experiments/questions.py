"""What each experiment asks, for lists and help pages; imports nothing, so that they answer at once."""

QUESTIONS = {
    "memorization": "how memorization of the forget set decides how well unlearning works",
    "entanglement": "how entanglement with the retain set decides how well unlearning works",
    "rum": "whether refinement, and an algorithm for each part, come nearer to retraining",
    "sequence": "what each step of a sequence does to every part",
    "proxies": "whether cheap proxies refine as well as memorization",
    "five-steps": "whether refining by a proxy still helps after five requests to forget",
    "rsu": "whether to forget by ascending risk is better than in one go",
    "difficulty": "what makes a single example hard to unlearn, and whether that can be predicted",
}
"""Name of an experiment -> its question."""
