"""SCALE's experiment on proxies: end to end on two small banks, and its verdicts on made rows."""

import pytest

from memscore.store.store import Store
from tests.fixtures import tiny
from unlearn.experiments import proxies
from unlearn.experiments.config import PROXIES, ExperimentConfig, prepare_experiment
from unlearn.experiments.proxies import OTHER_PREFIX, VARIANTS, list_scores, make_sweeps

NAMES = (tiny.SCORE, "holdout", "el2n")


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    """One bank with holdout retraining of its original, and one of the same data under crop and flip."""
    plain, other = (tmp_path_factory.mktemp(name) for name in ("plain", "augmented"))
    common = {"proxies": ("holdout",), "models": 8}
    return tiny.make_bank(plain, **common), tiny.make_bank(other, recipe="rsu-cifar10", **common)


def words(banks, **more):
    usual = {"size": 9, "algorithms": ("finetune",), "proxies": ("holdout",), "other": banks[1], "seeds": 1}
    return usual | more


def test_every_score_and_both_banks_are_judged(banks):
    ready, found, path = tiny.run_experiment("proxies", banks[0], **words(banks))
    assert set(found.results) == {tiny.SCORE, "holdout", f"{OTHER_PREFIX}{tiny.SCORE}", f"{OTHER_PREFIX}holdout"}
    for part, rows in found.results.items():
        name = part.removeprefix(OTHER_PREFIX)
        assert {row["variant"] for row in rows if row["select"]} == {"vanilla", "shuffle", f"rum {name}"}
    assert not found.incomplete
    assert "the second bank's recipe differs in" in found.remarks[0]
    assert {*Store.open(banks[1]).trials()} & {row["trial"] for row in found.results[f"{OTHER_PREFIX}holdout"]}
    assert bytes(ready.store.folder.read(f"{path}/figure.png"))[:4] == b"\x89PNG"


def test_a_proxy_that_the_bank_lacks_is_refused_with_the_command_that_makes_it(banks):
    with pytest.raises(
        ValueError, match=r"unknown score 'el2n'.* made by `python -m memscore.estimate --store .*--proxies"
    ):
        prepare_experiment(ExperimentConfig(name="proxies", store=banks[0], **words(banks, proxies=("el2n",))))


def test_a_second_bank_that_shows_nothing_of_augmentation_is_refused(banks, tmp_path):
    def refused(store, other, said):
        with pytest.raises(ValueError, match=said):
            prepare_experiment(ExperimentConfig(name="proxies", store=store, **words(banks, other=other)))

    refused(banks[0], banks[0], r"augments by \[\] .* of `python -m memscore.estimate --augment crop flip`")
    refused(banks[1], banks[0], "give first the bank without")
    refused(banks[0], tiny.make_bank(tmp_path, train_limit=100, models=8), "has other data than .* --train-limit")


def test_the_usual_proxies_are_those_that_a_bank_has_by_name():
    assert list_scores(tiny.make_context("finetune")) == NAMES
    assert PROXIES == ("events_confidence", "events_accuracy", "holdout")
    sweeps = make_sweeps(tiny.make_context("finetune"))
    assert {plan.forget for plan in sweeps.values()} == {f"{name}:union" for name in NAMES}
    assert all(plan.scores == (name,) and plan.variants == VARIANTS for name, plan in sweeps.items())


def made(tow, wall, salun_there=None):
    """ToW of finetune under (vanilla, shuffle, RUM^F by each score), seconds of vanilla and RUM^F; salun below it."""
    prefixes = ("",) if salun_there is None else ("", OTHER_PREFIX)
    results = {}
    for prefix in prefixes:
        for name, refined in zip(NAMES, tow[2], strict=True):
            own = []
            for variant, value, seconds in (
                ("vanilla", tow[0], wall[0]),
                ("shuffle", tow[1], wall[1]),
                (f"rum {name}", refined, wall[1]),
            ):
                below = 0.1 if not prefix else salun_there
                cost = {"wall_s": seconds, "rrt_wall": seconds / 10}
                for one, level in (("finetune", value), ("salun", value - below)):
                    own += tiny.make_rows(one, variant, tow_test=level, tow_mia_test=1 - level, **cost)
            results[prefix + name] = own
    return results


def test_verdicts():
    said = proxies.check_claims(made((0.7, 0.6, (0.9, 0.9, 0.7)), (2, 4)), tiny.make_context("finetune", "salun"))
    assert tiny.list_verdicts(said, "finetune: RUM^F by holdout is above vanilla (ToW)") == ["holds"]
    assert tiny.list_verdicts(said, "salun: RUM^F by holdout is above vanilla (ToW-MIA)") == ["fails"]
    assert tiny.list_verdicts(said, "mean of all: RUM^F by el2n is above vanilla (ToW)") == ["undecided"]
    assert tiny.list_verdicts(said, "vanilla is above shuffle, union by holdout (ToW)") == ["holds"]
    assert tiny.list_verdicts(said, "takes longer than vanilla") == ["holds"] * 3
    assert tiny.list_verdicts(said, "takes less time than retraining") == ["holds"] * 3
    assert tiny.list_verdicts(said, f"holdout refines better than {tiny.SCORE}") == ["undecided"]
    assert tiny.list_verdicts(said, "holdout refines better than el2n") == ["holds"]
    assert not tiny.list_verdicts(said, "augmentation")


def test_run_times_are_over_vanillas_and_over_retrainings():
    said = proxies.check_claims(made((0.7, 0.6, (0.9, 0.9, 0.7)), (20, 15)), tiny.make_context("finetune", "salun"))
    longer, less = (next(one for one in said if words in one.claim) for words in ("takes longer", "less time than"))
    assert longer.value.value == pytest.approx(15 / 20 - 1, abs=0.01)
    assert less.value.value == pytest.approx(1 - 15 / 10, abs=0.02)
    assert (longer.verdict, less.verdict) == ("fails", "fails")


@pytest.mark.parametrize(("below", "verdict"), [(0.3, "holds"), (0.1, "undecided"), (-0.2, "fails")])
def test_what_augmentation_does_to_salun(below, verdict):
    asked = tiny.make_context("finetune", "salun", other="there")
    said = proxies.check_claims(made((0.7, 0.6, (0.9, 0.9, 0.9)), (2, 4), below), asked)
    assert tiny.list_verdicts(said, "augmentation widens") == [verdict]
    assert tiny.list_verdicts(said, "below the mean of the others") == ["fails" if verdict == "fails" else "holds"]
    assert tiny.list_verdicts(said, f"{OTHER_PREFIX}finetune: RUM^F by holdout is above vanilla (ToW)") == ["holds"]
