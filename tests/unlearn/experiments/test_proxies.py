"""SCALE's experiment on proxies: end to end on two small banks, and its verdicts on made rows."""

import pytest

from memscore.store.store import Store
from memscore.store.trial_files import list_trials
from tests.fixtures import tiny
from unlearn.experiments import proxies
from unlearn.experiments.config import PROXIES, ExperimentConfig
from unlearn.experiments.prepare import prepare_experiment
from unlearn.experiments.proxies import OTHER_PREFIX, VARIANTS, list_scores, make_sweeps

NAMES = (tiny.SCORE, "holdout", "el2n")


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    """One bank with holdout retraining of its original, and one of the same data under crop and flip."""
    plain, other = (tmp_path_factory.mktemp(name) for name in ("plain", "augmented"))
    common = {"proxies": ("holdout",), "models": 8}
    return tiny.make_bank(plain, **common), tiny.make_bank(other, recipe="rsu-cifar10", **common)


def make_options(banks, **more):
    defaults = {
        "size": 9,
        "algorithms": ("finetune",),
        "proxies": ("holdout",),
        "other": banks[1],
        "seeds": 1,
        "tunings": 1,
    }
    return defaults | more


def test_every_score_and_both_banks_are_judged(banks):
    prepared, result, path = tiny.run_experiment("proxies", banks[0], **make_options(banks))
    assert set(result.results) == {tiny.SCORE, "holdout", f"{OTHER_PREFIX}{tiny.SCORE}", f"{OTHER_PREFIX}holdout"}
    for part, rows in result.results.items():
        name = part.removeprefix(OTHER_PREFIX)
        assert {row["variant"] for row in rows if row["select"]} == {"vanilla", "shuffle", f"rum {name}"}
    assert not result.incomplete
    assert "the second bank's recipe differs in" in result.remarks[0]
    assert {*list_trials(Store.open(banks[1]))} & {row["trial"] for row in result.results[f"{OTHER_PREFIX}holdout"]}
    assert bytes(prepared.store.folder.read(f"{path}/figure.png"))[:4] == b"\x89PNG"


def test_a_proxy_that_the_bank_lacks_is_refused_with_the_command_that_makes_it(banks):
    with pytest.raises(
        ValueError, match=r"has no score 'el2n'; `python -m memscore.estimate --store .* --proxies el2n` adds it"
    ):
        prepare_experiment(ExperimentConfig(name="proxies", store=banks[0], **make_options(banks, proxies=("el2n",))))


def test_a_second_bank_that_shows_nothing_of_augmentation_is_refused(banks, tmp_path):
    def check_error(store, other, claims):
        with pytest.raises(ValueError, match=claims):
            prepare_experiment(ExperimentConfig(name="proxies", store=store, **make_options(banks, other=other)))

    check_error(banks[0], banks[0], r"augments by none .* of `python -m memscore.estimate --augment crop flip`")
    check_error(banks[1], banks[0], "give first the bank without")
    check_error(banks[0], tiny.make_bank(tmp_path, train_limit=100, models=8), "has other data than .* --train-limit")


def test_the_usual_proxies_are_those_that_a_bank_has_by_name():
    assert list_scores(tiny.make_config("finetune")) == NAMES
    assert PROXIES == ("events_confidence", "events_accuracy", "holdout")
    sweeps = make_sweeps(tiny.make_config("finetune"))
    assert {config.forget for config in sweeps.values()} == {f"{name}:union" for name in NAMES}
    assert all(config.scores == (name,) and config.variants == VARIANTS for name, config in sweeps.items())


def make_results(tow, wall, salun_there=None):
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
                for claim, level in (("finetune", value), ("salun", value - below)):
                    own += tiny.make_rows(claim, variant, tow_test=level, tow_mia_test=1 - level, **cost)
            results[prefix + name] = own
    return results


def test_verdicts():
    claims = proxies.check_claims(
        make_results((0.7, 0.6, (0.9, 0.9, 0.7)), (2, 4)), tiny.make_config("finetune", "salun")
    )
    assert tiny.list_verdicts(claims, "finetune: RUM^F by holdout is above vanilla (ToW)") == ["holds"]
    assert tiny.list_verdicts(claims, "salun: RUM^F by holdout is above vanilla (ToW-MIA)") == ["fails"]
    assert tiny.list_verdicts(claims, "mean of all: RUM^F by el2n is above vanilla (ToW)") == ["undecided"]
    assert tiny.list_verdicts(claims, "vanilla is above shuffle, union by holdout (ToW)") == ["holds"]
    assert tiny.list_verdicts(claims, "takes longer than vanilla") == ["holds"] * 3
    assert tiny.list_verdicts(claims, "takes less time than retraining") == ["holds"] * 3
    assert tiny.list_verdicts(claims, f"holdout refines better than {tiny.SCORE}") == ["undecided"]
    assert tiny.list_verdicts(claims, "holdout refines better than el2n") == ["holds"]
    assert not tiny.list_verdicts(claims, "augmentation")


def test_run_times_are_over_vanillas_and_over_retrainings():
    claims = proxies.check_claims(
        make_results((0.7, 0.6, (0.9, 0.9, 0.7)), (20, 15)), tiny.make_config("finetune", "salun")
    )
    longer, less = (
        next(claim for claim in claims if make_options in claim.claim)
        for make_options in ("takes longer", "less time than")
    )
    assert longer.value.value == pytest.approx(15 / 20 - 1, abs=0.01)
    assert less.value.value == pytest.approx(1 - 15 / 10, abs=0.02)
    assert (longer.verdict, less.verdict) == ("fails", "fails")


@pytest.mark.parametrize(("below", "verdict"), [(0.3, "holds"), (0.1, "undecided"), (-0.2, "fails")])
def test_what_augmentation_does_to_salun(below, verdict):
    config = tiny.make_config("finetune", "salun", other="there")
    claims = proxies.check_claims(make_results((0.7, 0.6, (0.9, 0.9, 0.9)), (2, 4), below), config)
    assert tiny.list_verdicts(claims, "augmentation widens") == [verdict]
    assert tiny.list_verdicts(claims, "below the mean of the others") == ["fails" if verdict == "fails" else "holds"]
    assert tiny.list_verdicts(claims, f"{OTHER_PREFIX}finetune: RUM^F by holdout is above vanilla (ToW)") == ["holds"]
