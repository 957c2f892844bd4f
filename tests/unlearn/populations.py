"""Small populations of models whose distributions are known."""

import numpy as np

from unlearn.measures.inputs import Population

FORGET, HELD_OUT, RETAIN = np.arange(120), np.arange(120, 180), np.arange(180, 300)


def population(apart=0.0, *, models=(16, 16), spread=1.0, seed=0, **more):
    """Confidence is normal for each example and model; unlearned models are surer of F by so many deviations."""
    rng = np.random.default_rng(seed)
    middle, each = rng.normal(2, 1, 300), rng.uniform(0.5, 1.5, 300)
    unlearned, retrained = (middle + each * spread * rng.normal(size=(count, 300)) for count in models)
    unlearned[:, FORGET] += apart * each[FORGET] * spread
    sides = {"unlearned": unlearned, "retrained": retrained}
    sides |= {"margin_unlearned": unlearned - 0.1, "margin_retrained": retrained - 0.1}
    sides = {name: said.astype(np.float32) for name, said in sides.items()}
    return Population(**(sides | {"forget": FORGET, "held_out": HELD_OUT, "retain": RETAIN} | more))
