"""Every experiment by name: a table or figure of a paper, from sweeps to verdicts.

To add one, write its file here and one line below; tests/unlearn/experiments holds it to its word.
"""

from memscore.choices import pick
from unlearn.experiments import entanglement, five_steps, memorization, proxies, rsu, rum, sequence
from unlearn.experiments.parts import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    "memorization": memorization.EXPERIMENT,
    "entanglement": entanglement.EXPERIMENT,
    "rum": rum.EXPERIMENT,
    "sequence": sequence.EXPERIMENT,
    "proxies": proxies.EXPERIMENT,
    "five-steps": five_steps.EXPERIMENT,
    "rsu": rsu.EXPERIMENT,
}


def experiment(name: str) -> Experiment:
    """The experiment of that name; an unknown name is an error that offers the nearest one."""
    return EXPERIMENTS[pick("experiment", name, EXPERIMENTS)]
