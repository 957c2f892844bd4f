"""A pass over a bank gives the same bits on any pool; which pool runs it, on which rows, and how it fails."""

import itertools
import pickle
import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from cluster.pool import Failure
from memscore.pipeline import attack_repeats, map_reduce
from memscore.pipeline.map_reduce import (
    BLOCK_BYTES,
    MAX_BLOCK_BYTES,
    BlockJob,
    MapSpec,
    map_blocks,
    run_block_job,
    split_into_jobs,
)
from memscore.pipeline.scoring import score_arm
from memscore.store import parquet
from memscore.store.parquet import CorruptFile, compute_row_group_size
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.banks import examples, flip, manifest, path_of

TRAIN, VALIDATION, TEST, M = 700, 40, 5, 32
ARM = Arm(design="orthogonal", keep=0.5, block=8)
ATTACKS = ("lira", "lira-gap", "lira-paper", "lira-released-fixed", "rmia")


class Shuffling:
    """A pool whose jobs end in another order, each in what might be another process."""

    workers = 3

    def __init__(self, seed):
        self.seed, self.ran = seed, 0

    def run(self, fn, jobs, shared=None):
        jobs, sent = list(jobs), pickle.dumps((fn, shared))
        random.Random(self.seed).shuffle(jobs)
        for job in jobs:
            self.ran += 1
            work, read = pickle.loads(sent)
            yield job, pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(job)), read)))


class Unused:
    """A pool that must not be used."""

    workers = 8

    def run(self, fn, jobs, shared=None):
        raise AssertionError("a small bank was sent to workers")


@pytest.fixture
def bank(tmp_path, monkeypatch):
    """One arm of four orthogonal blocks; row groups of 64 rows, several blocks of examples a pass."""
    monkeypatch.setattr(parquet, "ROW_GROUP_SIZE", 64)
    monkeypatch.setattr(parquet, "MAX_ROW_GROUPS", 4)
    monkeypatch.setattr(map_reduce, "BLOCK_BYTES", 1)
    # as little as shows whether workers change it
    monkeypatch.setattr(attack_repeats, "MAX_PAIRS", 1)
    monkeypatch.setattr(attack_repeats, "PERMUTED_CELLS", 2**10)
    n = TRAIN + VALIDATION + TEST
    store = Store.create(tmp_path / "bank", manifest(split_sizes=(TRAIN, VALIDATION, TEST)), examples(n))
    store.add_arm({"name": ARM.name, "design": ARM.design, "keep": ARM.keep, "block": ARM.block, "clusters": None})
    rng = np.random.default_rng(0)
    member = np.zeros((M, n), bool)
    member[:, :TRAIN] = draw_membership(ARM, range(M), TRAIN, np.arange(TRAIN) // 7)
    for m in range(M):
        phi = (rng.normal(1, 2, n) + member[m]).astype(np.float32)
        columns = {"row": np.arange(n, dtype=np.int32), "member": member[m], "correct": phi > 0}
        columns |= {"logit_confidence": phi, "gap": phi, "top_gap": np.abs(phi)}
        store.write_shard(format_model_name(ARM.name, m), ARM.name, columns)
    return store


def score_bank(store, pool=None, attacks=ATTACKS):
    """Every score file of a bank, its bytes, and what holds for the arm as a whole."""
    result = score_arm(store, ARM.name, store.find_valid_shards(ARM.name), attacks, pool)
    files = {name: store.folder.read(f"scores/{name}") for name in store.folder.names("scores")}
    curves = {name: curve.measures["auc"].per_target.tolist() for name, curve in result.attacks.items()}
    # as text, which has every bit of a number and in which NaN equals NaN
    whole = (result.rmse, result.rmse_block, result.reliability, result.undefined, result.names, result.success)
    return files, curves, repr(whole)


def test_any_number_of_workers_in_any_order_gives_the_same_bits(bank, monkeypatch):
    here = score_bank(bank)
    # statistics and the blend, then for each attack two scores, two kinds of success, and the agreement of decisions
    assert len(here[0]) == 5 + 5 * len(ATTACKS)
    monkeypatch.setattr(map_reduce, "MIN_PARALLEL_CELLS", 0)
    for seed in range(2):
        pool = Shuffling(seed)
        assert score_bank(bank, pool) == here
        assert pool.ran > 3 * len(ATTACKS)


def test_a_block_has_the_same_columns_whatever_the_row_groups_are(bank, monkeypatch):
    columns = ["member", "gap"]
    before = [part for _, part in map_blocks(bank, ARM.name, range(M), columns, np_columns)]
    assert len(before) > 2
    for m in range(0, M, 2):  # as an older version wrote them
        path = path_of(bank, f"shards/{format_model_name(ARM.name, m)}.parquet")
        table = parquet.decode(path.read_bytes())
        with monkeypatch.context() as older:
            older.setattr(parquet, "MAX_ROW_GROUPS", 1000)
            path.write_bytes(parquet.encode(table))
    assert parquet.open_parquet(str(path)).num_row_groups == 12
    again = [part for _, part in map_blocks(bank, ARM.name, range(M), columns, np_columns)]
    assert [part.keys() for part in again] == [part.keys() for part in before]
    assert all((a[name] == b[name]).all() for a, b in zip(again, before, strict=True) for name in columns)


def np_columns(block):
    return block.columns


def test_a_small_bank_stays_in_the_driver(bank):
    assert score_arm(bank, ARM.name, bank.find_valid_shards(ARM.name), ("lira",), Unused()).models == M


def test_rows_may_be_others_than_those_of_training(bank):
    rows = slice(TRAIN, TRAIN + VALIDATION)
    result = list(map_blocks(bank, ARM.name, range(M), ["gap"], np_columns, rows=rows))
    assert result[0][0].start == TRAIN
    assert sum(part["gap"].shape[1] for _, part in result) == VALIDATION


def test_a_workers_failure_is_one_line_with_the_examples_and_the_reason(bank, monkeypatch):
    monkeypatch.setattr(map_reduce, "MIN_PARALLEL_CELLS", 0)
    failing = SimpleNamespace(workers=2, run=lambda fn, jobs, shared: ((job, Failure(error="it died")) for job in jobs))
    with pytest.raises(OSError, match=r"examples 0 to 256 of orthogonal-k0.500-b8 could not be scored: it died"):
        score_arm(bank, ARM.name, bank.find_valid_shards(ARM.name), (), failing)
    assert bank.folder.names("scores") == []


def test_a_damaged_page_is_named_here_and_on_a_worker(bank):
    path = path_of(bank, f"shards/{format_model_name(ARM.name, 3)}.parquet")
    at = parquet.open_parquet(str(path)).metadata.row_group(0).column(4).data_page_offset
    flip(path, at + 60)
    shared = MapSpec(store=bank.url, arm=ARM.name, models=tuple(range(M)), columns=("gap",), map_fn=np_columns)
    with pytest.raises(CorruptFile, match=r"00003\.parquet is damaged"):
        run_block_job(BlockJob(start=0, stop=64), shared)
    with pytest.raises(CorruptFile, match=r"00003\.parquet is damaged"):
        list(map_blocks(bank, ARM.name, range(M), ["gap"], np_columns))


def test_a_worker_that_cannot_see_the_store_says_where_it_is(tmp_path):
    shared = MapSpec(store=str(tmp_path / "gone"), arm="a", models=(0,), columns=("gap",), map_fn=np_columns)
    with pytest.raises(FileNotFoundError, match=r"gone is not visible from node .*; use a path that every node shares"):
        run_block_job(BlockJob(start=0, stop=1), shared)


@pytest.mark.parametrize("models", [1, 64, 2000, 4000, 50_000])
@pytest.mark.parametrize("n", [1, 1200, 60_000, 1_281_167])
def test_blocks_cover_the_examples_end_with_row_groups_and_fit_into_memory(models, n):
    columns, group = ["correct", "member", "logit_confidence", "gap"], compute_row_group_size(n)
    jobs = split_into_jobs(slice(0, n), n, models, columns)
    assert jobs[0].start == 0
    assert jobs[-1].stop == n
    assert all(a.stop == b.start for a, b in itertools.pairwise(jobs))
    for job in jobs:
        assert 10 * models * (job.stop - job.start) <= max(BLOCK_BYTES, MAX_BLOCK_BYTES, 10 * models)
        assert not job.start % group or job.start // group == (job.stop - 1) // group  # none touches two in part
    assert n < 1e6 or models > 2000 or len(jobs) < 200  # a footer of many groups takes longer to read than a block


def test_a_worker_that_reduces_imports_no_torch():
    code = "import sys, memscore.pipeline.map_reduce, memscore.pipeline.scoring; "
    code += "print('torch' in sys.modules, 'ray' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", "False"]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_workers_of_a_cluster_give_the_same_bits(bank, monkeypatch):
    from cluster.ray_pool import RayPool

    here = score_bank(bank, attacks=("lira",))
    monkeypatch.setattr(map_reduce, "MIN_PARALLEL_CELLS", 0)
    with RayPool(workers=2) as pool:
        assert score_bank(bank, pool, ("lira",)) == here
