"""Options of an experiment that cannot hold are rejected before anything is read or trained."""

from dataclasses import replace

import pytest

from cluster.launch import PoolOptions
from memscore.pipeline.cards import DryRunOptions
from memscore.store.store import Store
from tests.fixtures.opened import open_bank
from tests.fixtures.tiny import PLAN, SCORE, make_bank, make_config
from unlearn import experiment
from unlearn.experiments.base import ExperimentResult, make_record
from unlearn.experiments.config import ExperimentConfig
from unlearn.experiments.prepare import (
    PreparedExperiment,
    depends_on_score,
    prepare_experiment,
)
from unlearn.experiments.registry import EXPERIMENTS
from unlearn.trials.default_scores import find_default_score


@pytest.fixture(scope="module")
def empty_bank(tmp_path_factory):
    """The path of a bank without a model."""
    return open_bank(replace(PLAN, store=str(tmp_path_factory.mktemp("begun") / "store"))).store.url


def test_a_second_bank_is_refused_where_nothing_compares_two():
    with pytest.raises(ValueError, match=r"--other elsewhere: rum reads one bank; two are compared by proxies"):
        prepare_experiment(ExperimentConfig(name="rum", store="nowhere", other="elsewhere"))


def test_an_unknown_experiment_offers_the_nearest():
    with pytest.raises(ValueError, match=r"unknown experiment 'memorisation'; did you mean 'memorization'"):
        prepare_experiment(ExperimentConfig(name="memorisation", store="nowhere"))


def test_a_size_that_a_preset_brings_is_reduced_with_a_line_and_one_that_a_user_gives_is_refused(empty_bank):
    prepared = prepare_experiment(ExperimentConfig(name="rsu", store=empty_bank, preset="paper"))
    assert 0 < prepared.config.size < 100
    assert "of the 5000 that --preset paper asks for" in prepared.notes[0]
    with pytest.raises(ValueError, match=r"^--size 5000: (?!.*--preset)"):
        prepare_experiment(ExperimentConfig(name="rsu", store=empty_bank, size=5000))


def test_the_forget_set_to_tune_on_reaches_every_sweep(empty_bank):
    with pytest.raises(ValueError, match=r"^--tune-forget rendom: unknown forget set 'rendom'"):
        prepare_experiment(ExperimentConfig(name="rsu", store=empty_bank, size=12, tune_forget="rendom"))
    prepared = prepare_experiment(ExperimentConfig(name="rsu", store=empty_bank, tune_forget="same"))
    assert {config.tune_forget for config in prepared.experiment.make_sweeps(prepared.config).values()} == {"same"}


def test_an_experiment_that_says_nothing_of_it_keeps_its_name():
    nothing = ExperimentResult(results={}, claims=[])
    plain = make_record(make_config("finetune"), nothing)["asked"]
    assert "tune_forget" not in plain
    assert make_record(make_config("finetune", tune_forget="same"), nothing)["asked"] == plain | {"tune_forget": "same"}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (("0.500", "0.700", "0.900"), "0.700"),
        (("0.500", "0.900"), "0.500"),
        (("0.900",), "0.900"),
        (("0.300", "0.900"), "0.500"),  # neither is meant more than the other: the usual refusal names them both
        ((), "0.500"),
    ],
)
def test_the_score_that_is_meant_is_rum_s_where_the_bank_has_it(tmp_path, stored, expected):
    store = open_bank(replace(PLAN, store=str(tmp_path / "store"))).store
    for keep in stored:
        for kind in ("memorization", "memorization_probit", "cscore"):
            store.folder.replace(f"scores/{kind}_k{keep}.parquet", b"")
    assert find_default_score(store) == f"memorization_k{expected}"


@pytest.mark.parametrize(("keep", "name"), [(0.7, "memorization_k0.700"), (0.5, SCORE)])
def test_an_experiment_goes_by_the_score_of_its_bank_and_its_record_says_which(tmp_path, keep, name):
    store = make_bank(tmp_path, keep=keep, design="iid", block=None)

    def make_config_record(**more):
        prepared = prepare_experiment(ExperimentConfig(name="rum", store=store, size=9, **more))
        assert {config.scores for config in prepared.experiment.make_sweeps(prepared.config).values()} == {(name,)}
        return make_record(prepared.config, ExperimentResult(results={}, claims=[]))["asked"]

    assert make_config_record() == make_config_record(score=name)
    assert make_config_record()["score"] == name
    with pytest.raises(ValueError, match=r"has no score 'memorization_k0.600', only .* --keep 0.600` adds it"):
        prepare_experiment(ExperimentConfig(name="rum", store=store, size=9, score="memorization_k0.600"))


def test_a_score_is_refused_where_nothing_reads_it(empty_bank):
    not_reading = {
        name
        for name, entry in EXPERIMENTS.items()
        if not depends_on_score(entry, replace(make_config("finetune"), store=empty_bank))
    }
    assert not_reading == {"five-steps", "rsu", "difficulty"}
    for name in sorted(not_reading):
        with pytest.raises(
            ValueError, match=rf"^--score {SCORE}: {name} reads no score that a user names; leave it out"
        ):
            prepare_experiment(ExperimentConfig(name=name, store=empty_bank, score=SCORE))
    prepared = prepare_experiment(ExperimentConfig(name="rsu", store=empty_bank))
    assert prepared.config.score == SCORE  # as it was before a score could be refused, so that folders keep their names


def test_what_is_kept_is_written_under_the_lock(empty_bank, monkeypatch):
    written_names = []

    def keep(store, *more):
        with pytest.raises(BlockingIOError), Store.open(empty_bank).lock():
            pass
        written_names.append(more[1].name)
        return "experiments/here"

    monkeypatch.setattr(PreparedExperiment, "run", lambda *more: ExperimentResult(results={}, claims=[]))
    monkeypatch.setattr("unlearn.experiments.tables.write_experiment", keep)
    options = PoolOptions(pool="serial", device="cpu")
    assert experiment.run_experiment(ExperimentConfig(name="rsu", store=empty_bank), options, DryRunOptions()) == 0
    assert written_names == ["rsu"]


def test_a_risk_is_refused_where_nothing_is_ranked_by_it():
    with pytest.raises(ValueError, match=r"--risk attack_success: rum has no rounds by risk, rsu has; leave it out"):
        prepare_experiment(ExperimentConfig(name="rum", store="nowhere", risk="attack_success"))


def test_an_option_that_was_added_later_is_in_the_identity_only_if_it_is_set():
    plain = ExperimentConfig(name="rsu", store="nowhere")
    assert "risk" not in plain.identity
    assert replace(plain, risk="soft_attack_success_k0.500").identity["risk"] == "soft_attack_success_k0.500"


def test_without_a_name_and_in_the_help_the_experiments_are_listed_with_what_they_ask(capsys):
    assert experiment.main([]) == 2
    with pytest.raises(SystemExit):
        experiment.main(["--help"])
    pages = capsys.readouterr()
    assert pages.err.startswith("error: name an experiment and a bank")
    for page in (pages.err, pages.out):
        text = " ".join(page.rpartition("experiments:\n")[2].split())
        assert text == " ".join(f"{name} {entry.question}" for name, entry in EXPERIMENTS.items())
