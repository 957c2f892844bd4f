"""Whatever is killed, and whenever: no model is lost, no byte differs, next to none is trained twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pyarrow.parquet as pq
import pytest

from memscore import attack
from memscore.estimate import main
from memscore.store.store import Store
from tests.conftest import TOKEN
from tests.fixtures.command import (
    MODELS,
    RAY,
    SERIAL,
    SLOW,
    SMALL,
    contents,
    ended,
    here,
    receipts,
    shards,
    start,
    wait_for_shards,
    wait_until_gone,
)

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The slow bank, uninterrupted; read only."""
    store = tmp_path_factory.mktemp("calm") / "store"
    assert main(f"{SLOW} {SERIAL} --store {store}".split()) == 0
    return contents(store)


@pytest.fixture
def moment():
    """Hits after a random number of models and a random pause; said by pytest where a test fails."""
    count, pause_s = random.randint(1, MODELS // 3), random.uniform(0, 0.4)
    sys.stdout.write(f"{count} models and {pause_s:.3f} s\n")

    def wait(store, running):
        wait_for_shards(store, count, running)
        time.sleep(pause_s)

    return wait


def process_of(receipt):
    return int(json.loads(receipt)["worker"].rpartition(":")[2])


def trained_again(old_receipts, store):
    """Models whose receipt is another one now."""
    return {name for name, text in receipts(store).items() if name in old_receipts and text != old_receipts[name]}


@pytest.mark.ray
def test_a_killed_worker_costs_no_model_and_changes_no_byte(calm, moment, ray_cluster, tmp_path, capsys):
    store = tmp_path / "store"

    def kill():
        moment(store, lambda: not over.done())
        last = max((store / "receipts").glob("[!.]*.json"), key=os.path.getmtime)
        os.kill(process_of(last.read_bytes()), signal.SIGKILL)
        return shards(store), receipts(store)

    with ThreadPoolExecutor() as pool:
        over = Future()
        killed = pool.submit(kill)
        code, output = here(f"{SLOW} {RAY} --store {store}", capsys)
        over.set_result(code)
        kept, old_receipts = killed.result()
    assert code == 0, output
    assert len(kept) < MODELS - 1  # it was hit in the middle of its work
    assert contents(store) == calm
    again = trained_again(old_receipts, store)
    assert len(again) <= 1  # what it had in hand
    assert not {f"{name.removesuffix('.parquet')}.json" for name in kept} & again


@pytest.mark.ray
def test_a_killed_driver_goes_on_where_it_was(calm, moment, ray_cluster, tmp_path, capsys):
    store = tmp_path / "store"
    import ray

    address = ray.get_runtime_context().gcs_address
    process = start(tmp_path, f"{SLOW} {RAY} --store {store} --address {address}", RAY_AUTH_TOKEN=TOKEN)
    moment(store, lambda: process.poll() is None)
    process.kill()
    process.communicate()
    wait_until_gone({process_of(text) for text in receipts(store).values()})
    kept, old_receipts = shards(store), receipts(store)
    assert 1 <= len(kept) < MODELS
    assert {name.removesuffix(".parquet") for name in kept} <= {name.removesuffix(".json") for name in old_receipts}
    code, output = here(f"{SLOW} {RAY} --store {store}", capsys)
    assert code == 0, output
    assert contents(store) == calm
    again = trained_again(old_receipts, store)
    assert len(again) <= 2  # at most those in flight
    assert not {f"{name.removesuffix('.parquet')}.json" for name in kept} & again
    assert pq.read_table(store / "models.parquet").num_rows == MODELS + 1


ROUNDS = int(os.environ.get("MEMSCORE_KILL_ROUNDS", "3"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_bank_that_was_killed_again_and_again_is_the_calm_serial_one(calm, number, tmp_path):
    """Each round kills a worker, the driver while models are missing, and the driver while it scores."""
    random_number = random.Random(number)
    store = tmp_path / "store"
    flags = f"{SLOW} {RAY} --store {store}"

    def run_until(count):
        process = start(tmp_path, flags)
        wait_for_shards(store, count, lambda: process.poll() is None, 400)  # Ray starts anew on a busy machine
        time.sleep(random_number.uniform(0, 0.3))
        return process

    process = run_until(random_number.randint(1, MODELS // 3))
    last = max((store / "receipts").glob("[!.]*.json"), key=os.path.getmtime)
    with suppress(ProcessLookupError):
        os.kill(process_of(last.read_bytes()), signal.SIGKILL)
    wait_for_shards(store, min(len(shards(store)) + 2, MODELS - 2), lambda: process.poll() is None, 400)
    process.kill()
    process.communicate()
    process = run_until(MODELS)
    process.kill()
    process.communicate()
    code, output = ended(start(tmp_path, flags))
    assert code == 0, output
    assert contents(store) == calm
    assert [path for path in store.rglob(".*") if path.is_file()] == []
    assert not (store / "failures").exists() or not list((store / "failures").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("pause_s", [0.0, 0.5, 1.0])
def test_a_driver_killed_while_it_scores_goes_on_to_the_same_scores(calm, pause_s, tmp_path, capsys):
    store = tmp_path / "store"
    process = start(tmp_path, f"{SLOW} {SERIAL} --store {store}")
    wait_for_shards(store, MODELS, lambda: process.poll() is None)
    time.sleep(pause_s)
    process.kill()
    process.communicate()
    assert here(f"{SLOW} {SERIAL} --store {store}", capsys)[0] == 0
    assert contents(store) == calm


@pytest.mark.slow
def test_an_audit_that_is_killed_leaves_the_store_as_it_was_and_can_be_repeated(calm, tmp_path, capsys):
    store = tmp_path / "store"
    assert here(f"{SLOW} {SERIAL} --store {store}", capsys)[0] == 0
    [weights] = (store / "weights").glob("*.safetensors")
    words = ["attack", str(store), "--model", str(weights), "--arch", "cnn-4-8"]
    for _ in range(2):
        code = f"import sys; from memscore.__main__ import main; sys.exit(main({words!r}))"
        process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)})
        time.sleep(random.uniform(3, 8))
        process.kill()
        process.wait()
        assert contents(store) == calm
    assert attack.main(words[1:]) == 0
    assert contents(store) == calm


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(calm, moment, tmp_path, capsys):
    store = tmp_path / "store"
    process = start(tmp_path, f"{SLOW} {SERIAL} --store {store}")
    moment(store, lambda: process.poll() is None)
    process.send_signal(signal.SIGINT)
    code, output = ended(process)
    assert code == 130
    assert "interrupted" in output
    assert "the same command goes on" in output
    assert "Traceback" not in output
    assert 1 <= len(shards(store)) < MODELS
    assert here(f"{SLOW} {SERIAL} --store {store}", capsys)[0] == 0
    assert contents(store) == calm


def test_a_shard_never_lacks_its_receipt(tmp_path, monkeypatch, capsys):
    write, written = Store.write_shard, []

    def stopped_at_the_third(self, *arguments):
        written.append(arguments[0])
        if len(written) == 3:
            raise KeyboardInterrupt
        return write(self, *arguments)

    flags = f"{SMALL} {SERIAL} --store {tmp_path / 'store'}"
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_shard", stopped_at_the_third)
        assert here(flags, capsys)[0] == 130
    assert len(shards(tmp_path / "store")) == 2
    assert here(flags, capsys)[0] == 0
    assert pq.read_table(tmp_path / "store" / "models.parquet").num_rows == MODELS + 1
