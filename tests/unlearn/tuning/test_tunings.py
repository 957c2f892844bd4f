"""Several tunings of one sweep: what each draws, chooses on and is judged on, and what an interval over them is."""

import json
from dataclasses import replace

import pytest

from memscore.statistics.means import estimate_mean
from tests.fixtures.sweeps import SCORE, RecordingSearch, make_config, read_files, run_sweep
from tests.memscore.pipeline.test_jobs import InOrder
from unlearn.tuning.config import UNTUNED
from unlearn.tuning.prepare import prepare_sweep
from unlearn.tuning.results import paired_difference, select_rows
from unlearn.tuning.tuning_set import select_tuning_sets

UNION = f"{SCORE}:union"


@pytest.fixture(scope="module")
def tuned(store):
    """Two tunings of one algorithm, alone and refined in two parts."""
    backend = RecordingSearch()
    config = make_config(
        store,
        forget=UNION,
        algorithms=("neggrad-plus",),
        variants=("vanilla", "rum"),
        scores=(SCORE,),
        parts=2,
        tunings=2,
        budget=5,
        seeds=4,
        select="oracle",
    )
    return *run_sweep(config, backend), backend


def list_configs(result, tuning, variant, level):
    [state] = [s for s in result.states if s.tuning == tuning and s.method.variant.startswith(variant)]
    return [config["values"] for number, _, found in state.searches if number == level for config in found]


def test_one_algorithm_tries_the_same_configurations_in_every_variant_and_level(tuned):
    _, result, _ = tuned
    # The design: later configurations follow results, which differ.
    designs = [
        list_configs(result, 0, variant, level)[:4] for variant, level in (("vanilla", 0), ("rum", 0), ("rum", 1))
    ]
    assert designs[0] == designs[1] == designs[2]
    assert len(list_configs(result, 0, "vanilla", 0)) == 5


def test_each_tuning_has_draws_originals_and_a_forget_set_of_its_own(tuned):
    _, result, _ = tuned
    first, second = (list_configs(result, tuning, "vanilla", 0) for tuning in (0, 1))
    assert first[0] == second[0]  # the papers' values
    assert not any(values in second for values in first[1:])
    indices = {t: {row["index"] for row in select_rows(result.tuning_rows, tuning=t)} for t in (0, 1)}
    assert indices == {0: {0}, 1: {1}}
    sets = [set(one.rows) for one in result.tuning_sets]
    assert sets[0] != sets[1]
    assert not (sets[0] | sets[1]) & set(result.judged_set.rows)


def test_each_choice_is_judged_on_originals_of_its_own(tuned):
    _, result, _ = tuned
    for method in ("vanilla", f"rum {SCORE}"):
        rows = select_rows(result.judged_rows, contender="neggrad-plus", variant=method)
        assert {row["index"]: row["tuning"] for row in rows} == {2: 0, 3: 1, 4: 0, 5: 1}
    assert {row["tuning"] for row in select_rows(result.judged_rows, contender="oracle")} == {UNTUNED}
    choices = {s.tuning: dict(s.steps[0][1]) for s in result.states if s.method.variant == "vanilla"}
    assert choices[0] != choices[1]


def test_a_difference_of_two_methods_has_its_interval_over_tunings(tuned):
    _, result, _ = tuned
    vanilla = select_rows(result.judged_rows, contender="neggrad-plus", variant="vanilla")
    oracle = select_rows(result.judged_rows, contender="oracle")
    found = paired_difference(vanilla, oracle, "tow_test")
    by_index = {row["index"]: row["tow_test"] for row in oracle}
    differences = [row["tow_test"] - by_index[row["index"]] for row in vanilla]
    assert found == estimate_mean(differences, [row["tuning"] for row in vanilla])
    assert (found.n, found.n_clusters, found.conditional) == (4, 2, False)


def test_of_a_single_tuning_an_interval_says_that_it_is_given_the_choice(plain):
    _, result, _ = plain
    rows, oracle = (
        select_rows(result.judged_rows, contender=name, select=s)
        for name, s in (("finetune", "oracle"), ("oracle", ""))
    )
    assert paired_difference(rows, oracle, "tow_test").conditional


def test_what_has_nothing_to_choose_is_run_once_and_judged_on_every_original(store):
    config = make_config(
        store, algorithms=("finetune",), set=("finetune.epochs=1", "finetune.lr=0.02"), tunings=2, seeds=3, budget=3
    )
    _, result = run_sweep(config, backend := RecordingSearch())
    assert len(backend.configs) == 1
    rows = select_rows(result.judged_rows, contender="finetune", select="oracle")
    assert [(row["index"], row["tuning"]) for row in rows] == [(2, UNTUNED), (3, UNTUNED), (4, UNTUNED)]


def test_a_sweep_of_tunings_ends_with_the_same_bytes_where_it_was_interrupted(store, tuned):
    config = tuned[0].config

    class Interrupted(RecordingSearch):
        def search(self, fn, searches, shared, on_result, **more):
            if len(self.searches) == 1:
                raise KeyboardInterrupt
            super().search(fn, searches, shared, on_result, **more)

    other = replace(config, name="interrupted", seed=1)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(other, Interrupted())
    sweep, result = run_sweep(other, backend := RecordingSearch())
    kept = read_files(store, sweep)
    # The designs of the first level, four in each tuning for both variants, were evaluated before.
    n_configs = sum(len(found) for state in result.states for _, _, found in state.searches)
    assert len(backend.configs) == n_configs - 2 * 2 * 4
    again, _ = run_sweep(other, backend := RecordingSearch())
    assert backend.configs == []
    assert read_files(store, again) == kept


def test_more_tunings_than_originals_to_judge_are_refused(store):
    with pytest.raises(ValueError, match=r"--seeds 2: each of 3 tunings is judged on originals of its own"):
        prepare_sweep(make_config(store, tunings=3, seeds=2))


def test_a_bank_with_few_examples_left_has_sets_that_share_more(store):
    """Half of the examples are judged, so that no third of the others can be left out."""
    sweep = prepare_sweep(make_config(store, forget="random", size=80, tunings=2))
    judged = sweep.context.select_forget_set(list)
    sets = select_tuning_sets(sweep.config, sweep.context, judged, list)
    assert [len(one.rows) for one in sets] == [80, 80]
    result = sweep.run(InOrder(), RecordingSearch(), "cpu")
    assert any("their forget sets of 80 examples have" in note for note in result.notes)


def test_classes_of_each_tuning_follow_those_before(store):
    sweep = prepare_sweep(make_config(store, forget="class:8,9", tunings=3, seeds=3))
    judged = sweep.context.select_forget_set(list)
    sets = select_tuning_sets(sweep.config, sweep.context, judged, list)
    labels = sweep.context.splits.train.labels
    assert [sorted(set(labels[list(one.rows)].tolist())) for one in sets] == [[0, 1], [2, 3], [4, 5]]


def test_vanilla_long_is_vanilla_with_as_many_times_the_epochs_as_there_are_parts(store):
    config = make_config(
        store, algorithms=("finetune", "ssd"), set=("finetune.lr=0.05",), variants=("vanilla", "vanilla-long"), parts=3
    )
    sweep, result = run_sweep(config, budget=1, tuning="defaults", seeds=1)
    epochs = {
        row["variant"]: json.loads(row["config"])["epochs"]
        for row in select_rows(result.judged_rows, contender="finetune", select="oracle")
    }
    assert epochs["vanilla-long"] == 3 * epochs["vanilla"]
    # Without epochs there is nothing that could be longer.
    assert [method.name for method in sweep.methods if method.variant == "vanilla-long"] == ["finetune"]
    by_hand = replace(
        config, set=("finetune.lr=0.05", f"finetune.epochs={3 * epochs['vanilla']}"), variants=("vanilla",)
    )
    _, alone = run_sweep(by_hand, budget=1, tuning="defaults", seeds=1)
    trials = [
        select_rows(found.judged_rows, contender="finetune", variant=variant, select="oracle")[0]["trial"]
        for found, variant in ((result, "vanilla-long"), (alone, "vanilla"))
    ]
    assert trials[0] == trials[1]


def test_an_algorithm_without_epochs_has_no_longer_variant_and_a_line_says_so(store):
    sweep = prepare_sweep(make_config(store, algorithms=("ssd", "finetune"), variants=("vanilla-long",), set=()))
    assert "ssd: no vanilla-long, since there are no epochs to multiply" in sweep.context.notes
    with pytest.raises(ValueError, match="multiplies epochs, and ssd has none"):
        prepare_sweep(make_config(store, algorithms=("ssd",), variants=("vanilla-long",), set=()))


def test_a_line_says_what_intervals_are_over(plain, tuned):
    _, result, _ = plain
    assert any(note.startswith("one tuning: intervals are over originals") for note in result.notes)
    assert any("12.7 standard errors to each side" in note for note in tuned[1].notes)


def test_a_dry_run_counts_what_each_selection_refines_and_knows_when_all_is_stored(store):
    config = make_config(store, algorithms=("finetune",), tunings=2, budget=6, select="both", name="counted", seed=3)
    before = prepare_sweep(config).count()
    # For each tuning a design of four, and two more for either selection; the oracle, the original and both choices on
    # two originals.
    assert (before.planned, before.stored) == (2 * (4 + 2 * 2) + 2 * (2 + 2), 0)
    prepare_sweep(config).run(InOrder(), RecordingSearch(), "cpu")
    after = prepare_sweep(config).count()
    assert after.planned == after.stored
    assert not after.assumed


def test_where_nothing_is_chosen_no_line_speaks_of_tunings(store):
    _, result = run_sweep(make_config(store, algorithms=("finetune",), tunings=3, seeds=3), tuning="defaults", budget=1)
    assert not any("tuning" in note for note in result.notes)
