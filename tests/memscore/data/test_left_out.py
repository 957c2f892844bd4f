"""Examples that are left out of a training set: what stays is as it was."""

import numpy as np
import pytest

from memscore.data.datasets import load_dataset
from memscore.data.splits import compute_mean_std


@pytest.fixture(scope="module")
def whole():
    return load_dataset("digits", train_limit=300, label_noise=0.2, seed=5)


def load_without(*words):
    return load_dataset("digits", train_limit=300, label_noise=0.2, seed=5, without=words)


def test_what_stays_has_its_order_its_flipped_labels_and_a_normalization_of_its_own(whole):
    out = whole.train.ids[[3, 250, 17]].tolist()
    rest = load_without(*out)
    staying = np.delete(np.arange(300), [3, 17, 250])
    for part in ("images", "labels", "labels_true", "ids"):
        np.testing.assert_array_equal(getattr(rest.train, part), getattr(whole.train, part)[staying])
    np.testing.assert_array_equal(rest.validation.ids, whole.validation.ids)
    np.testing.assert_array_equal(rest.test.images, whole.test.images)
    assert (rest.mean, rest.std) == compute_mean_std(rest.train.images)
    assert rest.fingerprint != whole.fingerprint
    assert rest.origin["without"] == sorted(out)
    assert "without" not in whole.origin
    assert load_without(*rest.origin["without"]).fingerprint == rest.fingerprint


def test_a_file_names_them_as_well(whole, tmp_path):
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(whole.train.ids[[3, 250, 17]]))
    assert load_without(str(file)).fingerprint == load_without(*whole.train.ids[[3, 17, 250]]).fingerprint


def test_a_file_stands_alone_and_a_wrong_id_in_it_names_it(whole, tmp_path):
    file = tmp_path / "ids.txt"
    file.write_text("all/99999\n")
    with pytest.raises(ValueError, match=r"takes one file of ids or ids, and got the file '.*ids.txt' among 2 ids"):
        load_without(whole.train.ids[0], str(file))
    with pytest.raises(ValueError, match=r"--without 'all/99999' of .*ids.txt is no id of the training set"):
        load_without(str(file))
    with pytest.raises(FileNotFoundError, match=r"no file of ids at '.*', which is a folder; give"):
        load_without(str(tmp_path))


def test_what_cannot_be_left_out_is_one_line(whole):
    with pytest.raises(ValueError, match="--without 'all/99999' is no id of the training set, nor are 1 more; ids are"):
        load_without("all/99999", whole.train.ids[0], whole.validation.ids[0])
    with pytest.raises(
        ValueError, match="--without 'all/99999' is no id of the training set and no file of ids; ids are"
    ):
        load_without("all/99999")
    with pytest.raises(FileNotFoundError, match=r"there is no file of ids at 'nowhere.txt'; give --without a .txt"):
        load_without("nowhere.txt")
    zeros = whole.train.ids[whole.train.labels == 0].tolist()
    with pytest.raises(
        ValueError, match=r"--without \d+ examples leaves no training image of class 0: .*leave out fewer"
    ):
        load_without(*zeros)
