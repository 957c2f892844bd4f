"""Forget sets with exact copies in the retain set or held out: what trials and sweeps say, and --with-copies."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from memscore.data.datasets import load_dataset
from memscore.data.duplicates import Copies
from memscore.estimate import main as estimate
from unlearn import sweep, trial
from unlearn.forget_sets import ForgetSet
from unlearn.trials.forgotten_copies import add_copies, find_retained_copies
from unlearn.trials.prepare import prepare_trials
from unlearn.trials.request import TrialRequest
from unlearn.trials.tables import list_remarks
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.prepare import prepare_sweep
from unlearn.tuning.tuning_set import describe_copies_of_sets, select_tuning_set

GROUPS = np.array([0, 0, 0, -1, 1, 1, 2, -1, 2])  # the last row is a test example
COPIES = Copies(
    groups=GROUPS,
    ids=np.array([f"id{row}" for row in range(9)]),
    labels=np.array([0, 0, 1, 0, 1, 0, 1, 0, 1]),
    sizes=(8, 0, 1),
)
SERIAL = "--pool serial --device cpu"
BANK = "--arch mlp-8 --recipe digits --epochs 8 --design exact --block 2 --models 4 --originals 1 --validation 0.2"


def test_copies_that_stay_are_those_in_the_retain_set():
    retained = find_retained_copies(COPIES, (0, 3, 5, 6))
    # row 6 has a copy in the test set alone, and row 5 one of another label
    assert (retained.pairs, retained.same_label, retained.n_forget) == ((("id0", "id1"), ("id5", "id4")), 1, 4)
    assert retained.describe().startswith("2 of 4 forgotten examples have exact copies that stay in the retain set")
    assert "1 under other labels only" in retained.describe()
    assert find_retained_copies(COPIES, (0, 1, 2, 3)).describe() == ""


def test_a_forget_set_is_completed_by_all_its_copies():
    completed = add_copies(COPIES, ForgetSet(name="mine", rows=(0, 3), by_class=True))
    assert completed == ForgetSet(name="mine with 2 exact copies", rows=(0, 1, 2, 3), by_class=False)
    assert not find_retained_copies(COPIES, completed.rows).pairs
    alone = ForgetSet(name="mine", rows=(3, 6), by_class=True)
    assert add_copies(COPIES, alone) is alone
    with pytest.raises(ValueError, match="all 8 training examples"):
        add_copies(COPIES, ForgetSet(name="mine", rows=(0, 3, 4, 6, 7)))


@pytest.mark.parametrize(
    ("forget", "oracle_change", "advises"),
    [
        ((0,), 0.0, False),  # the oracle knows the image
        ((0,), 0.3, False),  # and where it does not, that is chance: a copy of the same label stays
        ((0, 3), 0.0, False),
        ((0, 3), 0.3, True),  # retraining forgot the example without a copy
        ((3, 7), 0.0, False),  # no copy explains it, but retraining forgot nothing either
        ((3, 7), 0.3, True),
        ((5,), 0.3, True),  # the copy that stays has another label
    ],
)
def test_a_larger_lr_is_no_advice_where_copies_explain_what_was_not_forgotten(forget, oracle_change, advises):
    changes = {"oracle": oracle_change, "finetune": 0.0}
    rows = [
        {
            "algorithm": name,
            "forget_set": "ids",
            "index": 0,
            "status": "ok",
            "forget_accuracy": 0.9 - change,
            "forget_accuracy_gap_original": change,
            "retain_accuracy": 1.0,
            "accuracy_test": 0.9,
            "beyond_its_purpose": False,
        }
        for name, change in changes.items()
    ]
    text = " ".join(list_remarks(rows, "finetune", find_retained_copies(COPIES, forget)))
    assert ("larger lr" in text) == advises
    assert ("that is no failure" in text) != advises


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bank of 150 digits: the first five are in its training file four times, and the first in the test set."""
    folder, digits = tmp_path_factory.mktemp("copied"), load_dataset("digits")
    images, labels = digits.train.images[:150], digits.train.labels[:150]
    np.savez(
        folder / "data.npz",
        train_images=np.concatenate([images, *[images[:5]] * 3]),
        train_labels=np.concatenate([labels, *[labels[:5]] * 3]),
        test_images=np.concatenate([digits.test.images[:40], images[:1]]),
        test_labels=np.concatenate([digits.test.labels[:40], labels[:1]]),
    )
    assert estimate(f"--data {folder}/data.npz {BANK} {SERIAL} --store {folder}/store".split()) == 0
    splits = load_dataset(str(folder / "data.npz"), validation=0.2)
    equal = (splits.train.images == splits.train.images[:, None]).all((2, 3, 4)).sum(1)
    (folder / "ids.txt").write_text(f"{splits.train.ids[np.argmax(equal)]}\n{splits.train.ids[np.argmin(equal)]}")
    (folder / "n").write_text(str(equal.max()))
    return folder


def make_words(folder, words):
    return f"{folder}/store --data {folder}/data.npz --forget ids:{folder}/ids.txt {words} {SERIAL}".split()


def test_a_trial_names_the_copies_that_stay_and_can_forget_them_too(folder, capsys):
    words = make_words(folder, "--algorithm finetune --set epochs=1 --seeds 1")
    assert trial.main(words) == 0
    page = capsys.readouterr().out
    assert "1 of 2 forgotten examples have exact copies that stay in the retain set" in page
    assert "test examples are exact copies of each other" in page
    options = {"store": f"{folder}/store", "data": f"{folder}/data.npz", "forget": f"ids:{folder}/ids.txt"}
    alone, completed = (
        prepare_trials(TrialRequest(algorithm="finetune", with_copies=with_copies, **options)).context
        for with_copies in (False, True)
    )
    rows = alone.select_forget_set(list).rows
    n = int((folder / "n").read_text())
    assert n > 1
    assert (len(rows), len(completed.select_forget_set(list).rows)) == (2, n + 1)
    assert set(rows) < set(completed.select_forget_set(list).rows)


def test_a_sweep_names_them_too_and_is_another_sweep_with_copies(folder, capsys):
    words = (
        "--algorithms finetune --set finetune.epochs=1 --tunings 1 --budget 1 --tune-seeds 1 --seeds 1 --select oracle "
    )
    words += "--variants vanilla"
    assert sweep.main(make_words(folder, words)) == 0
    page = capsys.readouterr().out
    assert len(re.findall(r"have exact copies that stay in the retain set", page)) == 1  # tuned and judged on one set
    stored = next((folder / "store/sweeps").glob("*/chosen.json")).read_text()
    assert "have exact copies that stay in the retain set" in stored
    plain, completed = (SweepConfig(store="store", with_copies=with_copies) for with_copies in (False, True))
    # the names of sweeps that were run before there was the option stay
    assert "with_copies" not in plain.identity
    assert plain.folder_name != completed.folder_name


def test_the_set_for_tuning_is_completed_too(folder):
    options = {"store": f"{folder}/store", "data": f"{folder}/data.npz", "size": 20, "budget": 1}
    config = SweepConfig(
        forget="random", variants=("vanilla",), tune_forget=f"ids:{folder}/ids.txt", with_copies=True, **options
    )
    context = prepare_sweep(config).context
    judged = context.select_forget_set(list)
    tuned = select_tuning_set(config, context, judged, list)
    assert len(tuned.rows) == 1 + int((folder / "n").read_text())
    assert "exact cop" in tuned.name
    for forget_set in (judged, tuned):
        assert not find_retained_copies(context.copies, forget_set.rows).pairs


def test_sets_of_one_name_are_described_each():
    """Those of several tunings: the copies of one are not those of another."""
    sets = [ForgetSet(name="another set", rows=rows) for rows in ((0,), (3, 5), (3, 7))]
    lines = describe_copies_of_sets(SimpleNamespace(copies=COPIES), *sets)
    own = [find_retained_copies(COPIES, one.rows).describe() for one in sets]
    assert [line for line in own if line]
    assert {f"another set: {line}" for line in own if line} <= set(lines)
