"""The options named for a score that a bank lacks are those that make it."""

import pytest

from memscore.estimators.registry import STATISTICS
from memscore.pipeline.attacks import ATTACKS
from memscore.proxies.registry import PROXIES
from memscore.store.score_options import find_making_options

STORED = ["memorization_k0.500", "cscore_k0.500", "lira_k0.500"]


@pytest.mark.parametrize("name", ATTACKS)
def test_each_score_of_an_attack_names_it(name):
    attack = ATTACKS[name]
    for score in (*attack.scores, attack.success, f"soft_{attack.success}"):
        assert find_making_options(f"{score}_k0.500", STORED) == f"--attacks {name}"


@pytest.mark.parametrize("name", PROXIES)
def test_each_score_of_a_proxy_names_it(name):
    for score in PROXIES[name].scores:
        assert find_making_options(score, STORED) == f"--proxies {name}"


@pytest.mark.parametrize(("score", "options"), [
    ("memorization_k0.700", "--keep 0.700"),
    ("memorization_k0_700", "--keep 0.700"),
    ("memorization_k0.700_iid", "--keep 0.700 --design iid"),
    ("memorization_k0.700_exact-b16", "--keep 0.700 --design exact --block 16"),
    ("memorization_stacked_k0.500", "--stacked"),
    ("memorization_stacked_k0.700", "--keep 0.700 --stacked"),
    ("events_entropy", "--originals 3"),
    ("events_evaluation_entropy", "--evaluation-events --originals 3"),
    ("events_bank_k0.500_entropy", "--bank-events"),
    ("final_loss", "--originals 3"),
    ("memorization_k0.500x", None),
    ("memorization", None),
    ("foo", None),
    ("foo_k0.700", None),
])  # fmt: skip
def test_other_scores(score, options):
    assert find_making_options(score, STORED) == options


def test_statistics_are_made_for_every_arm():
    for stem in STATISTICS:
        assert find_making_options(f"{stem}_k0.900", [f"{stem}_k0.500"]) == "--keep 0.900"
