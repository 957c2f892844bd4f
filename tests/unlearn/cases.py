"""Small cases for measures of outputs, their answers known."""

import numpy as np

from unlearn.measures.inputs import Case, Views

LABELS = np.arange(120) % 4
RETAIN, FORGET, HELD_OUT = np.arange(60), np.arange(60, 80), np.arange(80, 120)


def views(right, *, sure=4.0, seed=0, embeddings=None):
    """A model that is right on these rows (bool [N]), by a margin of `sure`, with a little noise."""
    rng = np.random.default_rng(seed)
    answers = np.where(right, LABELS, (LABELS + 1) % 4)
    logits = rng.normal(0, 0.1, (len(LABELS), 4))
    logits[np.arange(len(LABELS)), answers] += sure
    found = rng.normal(0, 1, (len(LABELS), 3)) if embeddings is None else embeddings
    return Views(logits=logits.astype(np.float32), embeddings=found.astype(np.float32))


def case(judged=None, theta_r=None, theta_o=None, **more):
    """theta_o knows every training example and half of the rest; theta_r half of the forget set too."""
    right = np.ones(len(LABELS), dtype=bool)
    right[HELD_OUT[::2]] = False
    original = theta_o or views(right)
    right = right.copy()
    right[FORGET[::2]] = False
    oracle = theta_r or views(right, seed=1)
    usual = {"labels": LABELS, "labels_true": LABELS, "retain": RETAIN, "forget": FORGET, "held_out": HELD_OUT}
    return Case(judged=judged or original, theta_r=oracle, theta_o=original, **usual | more)
