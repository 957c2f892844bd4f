"""Clusters of a bank through the command: their source, that they never change, and their effect on subsets."""

from itertools import combinations

import numpy as np
import pyarrow.parquet as pq
import pytest

from memscore.store.store import Store
from memscore.subsets.clustering import cluster_images
from memscore.subsets.designs import Arm
from tests.fixtures.command import SERIAL, contents, here, receipts, refused

pytestmark = pytest.mark.usefixtures("home")

TINY = f"--train-limit 120 --epochs 1 --batch 8 --originals 0 {SERIAL}"
FOUR = f"{TINY} --block 16 --models 16"


def members(store, arm):
    """Bool [M, n] of an arm, from its shards."""
    indices = sorted(store.find_valid_shards(arm))
    return np.concatenate([block.columns["member"] for block in store.read_blocks(arm, indices, ["member"])], axis=1)


@pytest.mark.parametrize(("flags", "keep", "cap"), [("--clusters pilot", 0.5, 63), ("", 0.75, 21)])
def test_examples_of_a_cluster_are_included_independently_exactly(flags, keep, cap, tmp_path, capsys):
    """keep**2 of the 64 models hold both of any two, and keep * (1 - keep) the one without the other."""
    code, said = here(f"{TINY} {flags} --keep {keep} --models 64 --store {tmp_path / 's'}", capsys)
    assert code == 0, said
    store = Store.open(tmp_path / "s")
    arm = Arm(keep=keep).name
    member, clusters = members(store, arm).astype(int), store.clusters()
    sizes = np.bincount(clusters)
    assert 1 < sizes.max() <= cap
    pairs = [pair for number in range(len(sizes)) for pair in combinations(np.flatnonzero(clusters == number), 2)]
    first, second = np.array(pairs).T
    assert (member.sum(0) == 64 * keep).all()
    assert ((member[:, first] & member[:, second]).sum(0) == 64 * keep**2).all()
    assert ((member[:, first] & ~member[:, second] & 1).sum(0) == 64 * keep * (1 - keep)).all()


def test_a_pilot_is_the_original_that_the_proxies_use(tmp_path, capsys):
    flags = f"{FOUR} --clusters pilot --proxies none --store {tmp_path / 's'}"
    assert here(flags, capsys)[0] == 0
    store = Store.open(tmp_path / "s")
    [key] = [name.removesuffix(".parquet") for name in store.folder.names("outputs")]
    embeddings = store.read_outputs(key)[1][:120]
    np.testing.assert_array_equal(store.clusters(), cluster_images(embeddings, 15, 0))
    said = pq.read_schema(tmp_path / "s" / "clusters.parquet").metadata
    assert (said[b"made_from"], said[b"pilot"]) == (b"pilot", key.encode())
    [record] = store.arms().values()
    assert record["clusters_from"] == "pilot"
    before = receipts(tmp_path / "s")
    assert here(flags.replace("--originals 0", "--originals 2"), capsys)[0] == 0
    after = receipts(tmp_path / "s")
    assert set(after) - set(before) == {"original-00001.json"}
    assert before.items() <= after.items()  # nothing was trained again
    assert key in {name.removesuffix(".parquet") for name in store.folder.names("outputs")}


def test_a_store_keeps_its_first_clusters(tmp_path, capsys):
    pilot, pixels = (f"{FOUR} --store {tmp_path / kind}" for kind in ("pilot", "pixels"))
    assert here(f"{pilot} --clusters pilot", capsys)[0] == 0
    assert here(f"{pixels}", capsys)[0] == 0
    before = contents(tmp_path / "pilot"), contents(tmp_path / "pixels")
    assert before[0] != before[1]
    line = refused(*here(f"{pilot} --clusters pixels", capsys))
    assert "made from a pilot's embeddings (pilot), requested pixels (pixels)" in line
    assert "leave out --clusters, or give another --store" in line
    assert "made from pixels (pixels), requested a pilot's" in refused(*here(f"{pixels} --clusters pilot", capsys))
    assert here(pilot, capsys)[0] == 0  # no option: as stored
    (tmp_path / "pilot" / "clusters.parquet").unlink()
    assert here(pilot, capsys)[0] == 0  # the arm's record has the source
    assert (contents(tmp_path / "pilot"), contents(tmp_path / "pixels")) == before


def test_an_arm_with_fewer_columns_than_a_cluster_has_examples_is_rejected_before_it_is_stored(tmp_path, capsys):
    flags = f"{TINY} --store {tmp_path / 's'}"
    assert here(f"{flags} --block 64 --models 64", capsys)[0] == 0
    line = refused(*here(f"{flags} --keep 0.75 --block 16 --models 16", capsys))
    assert "orthogonal-k0.750-b16 can take clusters of 5 examples at most" in line
    assert "give another --store" in line
    assert list(Store.open(tmp_path / "s").arms()) == ["orthogonal-k0.500"]


def test_a_pilot_that_diverges_is_an_error_with_a_hint(tmp_path, capsys):
    line = refused(*here(f"{FOUR} --clusters pilot --lr 1e30 --store {tmp_path / 's'}", capsys))
    assert "the pilot could not be trained: it diverged; try a smaller --lr (--clusters pixels needs no pilot)" in line


def test_clusters_are_for_orthogonal_subsets(tmp_path, capsys):
    line = refused(*here(f"{TINY} --design iid --clusters pilot --models 4 --store {tmp_path / 's'}", capsys))
    assert "--clusters pilot is for orthogonal subsets, and iid subsets need no clusters" in line
