"""What each experiment asks, for lists and help pages; imports nothing, so that they answer at once."""

QUESTIONS = {
    "memorization": "how memorization of what goes decides how well it goes",
    "entanglement": "how entanglement with what stays decides how well unlearning goes",
    "rum": "whether refinement, and an algorithm for each part, come nearer to retraining",
    "sequence": "what each step of a sequence does to every part",
    "proxies": "whether cheap proxies refine as well as memorization",
    "five-steps": "whether refining by a proxy still helps after five requests to forget",
    "rsu": "whether to forget by ascending risk is better than in one go",
}
"""Name of an experiment -> its question."""
