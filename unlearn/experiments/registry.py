"""Every experiment by name: a table or figure of a paper, from sweeps to verdicts.

To add one: its file here (copy memorization.py), its question in questions.py, an entry below, its test in
tests/unlearn/experiments, and its row in docs/guides/experiments.md. test_config.py there lists the experiments that
read no score.
"""

from memscore.choices import validate_choice
from unlearn.experiments import difficulty, entanglement, five_requests, memorization, proxies, rsu, rum, rum_dynamics
from unlearn.experiments.base import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    "memorization": memorization.EXPERIMENT,
    "entanglement": entanglement.EXPERIMENT,
    "rum": rum.EXPERIMENT,
    "sequence": rum_dynamics.EXPERIMENT,
    "proxies": proxies.EXPERIMENT,
    "five-steps": five_requests.EXPERIMENT,
    "rsu": rsu.EXPERIMENT,
    "difficulty": difficulty.EXPERIMENT,
}


def get_experiment(name: str) -> Experiment:
    """Return the experiment of that name; an unknown name is an error that offers the nearest one."""
    return EXPERIMENTS[validate_choice("experiment", name, EXPERIMENTS)]
