"""Status of a bank from its files: banks that are whole, incomplete, damaged, imported, or in use by a run."""

import io
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cluster.pool import SerialPool
from memscore.estimators.memorization import compute_bank_rmse, count_by_membership, sum_variances_from_counts
from memscore.estimators.memorization_blend import estimate_blend
from memscore.monitoring.default_store import choose_store
from memscore.monitoring.heartbeat import (
    HEARTBEAT_PATH,
    Heartbeat,
    find_driver,
    get_pid_namespace,
    has_exited,
    read_heartbeat,
    write_heartbeat,
)
from memscore.monitoring.status import ArmStatus, compute_bank_status, compute_rate
from memscore.pipeline import map_reduce
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import DIVERGED
from memscore.pipeline.runner import estimate
from memscore.statistics.reliability import draw_arm_halves
from memscore.status import main
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.tables.status_table import explain_errors, print_status
from tests.fixtures import banks
from tests.fixtures.opened import open_bank

ROOT = Path(__file__).parents[3]
ARM = banks.ARM["name"]


def make_heartbeat(**changes):
    now = time.time()
    default = Heartbeat(run="r", pid=os.getpid(), host=socket.gethostname(), began=now - 60, at=now, every_s=10)
    return replace(default, **changes)


def format_status(status):
    text = io.StringIO()
    print_status(Console(width=160, file=text), status)
    return text.getvalue()


def test_a_bank_without_a_progress_record_has_the_status_of_its_files(tmp_path):
    status = compute_bank_status(banks.bank(tmp_path / "bank"))
    [arm] = status.arms
    assert (arm.models, arm.planned, arm.whole_blocks, arm.failed, arm.diverged) == (3, None, 3, 0, 0)
    assert status.driver.state == "none"
    assert status.beat is None
    assert status.bytes == sum(path.stat().st_size for path in (tmp_path / "bank" / "shards").iterdir())
    assert status.problems == []
    assert "iid-k0.700" in format_status(status)


def test_precision_of_a_bank_that_has_only_first_models_is_its_unbiased_rmse(tmp_path, monkeypatch):
    """Sixteen models, all of them the arm's first: sqrt(mean of k (n - k) / (n^2 (n - 1)) over both sides), n = 8.

    That is of the counts, which alone are read of very many examples.
    """
    store = Store.create(tmp_path / "bank", banks.manifest(), banks.examples())
    store.add_arm({"name": "exact-k0.500-b16", "design": "exact", "keep": 0.5, "block": 16, "clusters": None})
    rng = np.random.default_rng(0)
    member = rng.permuted(np.repeat([True, False], 8)[:, None].repeat(banks.N, axis=1), axis=0)
    correct = []
    for index in range(16):
        columns = banks.shard(index) | {"member": member[index]}
        correct.append(columns["correct"])
        store.write_shard(format_model_name("exact-k0.500-b16", index), "exact-k0.500-b16", columns)
    [blended] = compute_bank_status(store).arms
    columns = next(store.read_blocks(blended.name, range(16), ["correct", "gap", "member"])).columns
    halves = draw_arm_halves(store.manifest.seed, blended.name, np.arange(16))
    train_rows = [columns[name][:, : banks.SIZES[0]] for name in ("correct", "gap", "member")]
    assert blended.rmse == pytest.approx(estimate_blend(*train_rows, halves)[1].rmse, rel=1e-10)
    monkeypatch.setattr(map_reduce, "MIN_PARALLEL_CELLS", 16)
    [arm] = compute_bank_status(store).arms
    assert (arm.rmse_of, blended.rmse_of) == ("memorization", "memorization_blend")
    right, train = np.array(correct)[:, : banks.SIZES[0]], member[:, : banks.SIZES[0]]
    k_in, n_in, k_out, n_out = count_by_membership(right, train)
    variance = k_in * (n_in - k_in) / (n_in**2 * (n_in - 1)) + k_out * (n_out - k_out) / (n_out**2 * (n_out - 1))
    assert arm.rmse == pytest.approx(np.sqrt(variance.mean()), rel=1e-10)
    assert arm.rmse_from == 16
    assert arm.rmse == compute_bank_rmse([sum_variances_from_counts(k_in, n_in, k_out, n_out)])
    assert arm.whole_blocks == 1


@pytest.mark.parametrize(("models", "score"), [(6, "memorization"), (24, "memorization_blend")])
def test_status_and_estimate_give_the_same_error_of_the_same_models(models, score, tmp_path):
    """Few models of an iid arm, where the number of models without an example differs most from its mean.

    Halves of six models define no blend.
    """
    plan = BankConfig(
        train_limit=200, epochs=2, design="iid", keep=0.7, models=models, originals=0, store=str(tmp_path / "s")
    )
    bank = open_bank(plan)
    [scored] = estimate(bank, SerialPool()).arms
    [arm] = compute_bank_status(bank.store).arms
    expected = scored.rmse if score == "memorization" else scored.blend.rmse
    assert (arm.rmse, arm.rmse_from) == (pytest.approx(expected, rel=1e-12), models)
    # all of them are the first ones, so that nothing is scaled
    assert f"\nRMSE of {score} (independent models)\n" in format_status(compute_bank_status(bank.store))


def test_what_is_scaled_from_first_models_says_so(tmp_path):
    plan = BankConfig(
        train_limit=200, epochs=1, design="iid", keep=0.5, models=40, originals=0, store=str(tmp_path / "s")
    )
    bank = open_bank(plan)
    estimate(bank, SerialPool())
    text = format_status(compute_bank_status(bank.store))
    assert (
        "\nRMSE of memorization_blend (independent models): from the first 32 models of an arm, scaled to all\n" in text
    )


def test_arms_with_other_errors_are_named_with_theirs():
    blended = ArmStatus(
        **dict.fromkeys(("planned", "failed", "diverged"), 0),
        **{"name": "iid-k0.500", "models": 64, "block": 1, "whole_blocks": 64},
        **{"rmse": 0.02, "rmse_of": "memorization_blend", "rmse_estimate": "independent models", "rmse_from": 32},
    )
    counted = replace(blended, name="iid-k0.700", models=8, rmse_of="memorization", rmse_from=8)
    unknown = replace(blended, name="iid-k0.900", rmse=None, rmse_of="", rmse_estimate="", rmse_from=0)
    scaled = "from the first 32 models of an arm, scaled to all"
    assert list(explain_errors([blended, counted, unknown])) == [
        f"RMSE of memorization_blend (independent models): {scaled} (iid-k0.500)",
        "RMSE of memorization (independent models) (iid-k0.700)",
    ]


def test_two_models_leave_the_precision_undefined(tmp_path):
    store = banks.bank(tmp_path / "bank")
    banks.path_of(store, f"shards/{format_model_name(ARM, 2)}.parquet").unlink()
    [arm] = compute_bank_status(store).arms
    assert arm.rmse is None
    assert "RMSE of" not in format_status(compute_bank_status(store))


def test_a_second_look_reads_no_shard_again(tmp_path):
    store, variances = banks.bank(tmp_path / "bank"), {}
    before = compute_bank_status(store, variances)
    for path in (tmp_path / "bank" / "shards").iterdir():
        path.write_bytes(b"")
    assert len(variances) == 1
    assert compute_bank_status(store, variances).arms == before.arms


def test_failures_are_grouped_by_message_and_diverged_models_are_apart(tmp_path):
    store = banks.bank(tmp_path / "bank")
    for index in (5, 6, 7, 8):
        store.write_failure(format_model_name(ARM, index), {"kind": "exception", "error": f"OSError: row {index}"})
    store.write_failure(format_model_name(ARM, 9), DIVERGED)
    status = compute_bank_status(store)
    assert [(group.kind, group.count) for group in status.failures] == [("exception", 4), ("diverged", 1)]
    assert status.failures[0].models == [format_model_name(ARM, index) for index in (5, 6, 7)]
    assert (status.arms[0].failed, status.arms[0].diverged) == (4, 1)
    text = format_status(status)
    assert "4 failed, tried again by the next command (exception): OSError: row 5" in text
    assert "1 diverged, never trained again" in text


def test_a_score_is_stale_as_soon_as_its_arm_has_another_model(tmp_path, small):
    status = compute_bank_status(Store.open(small))
    fresh = {score.name: score.fresh for score in status.scores}
    assert fresh["memorization_k0.500"] is True
    assert fresh["events_forgetting"] is None  # of the originals
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", small, copy], check=True)
    next(iter((copy / "shards").iterdir())).unlink()
    status = compute_bank_status(Store.open(copy))
    assert {score.name for score in status.scores if score.fresh is False} == {n for n, new in fresh.items() if new}
    assert "stale" in format_status(status)


def test_what_is_damaged_is_a_problem_and_the_rest_is_shown(tmp_path):
    store = banks.bank(tmp_path / "bank")
    store.write_failure(format_model_name(ARM, 5), {"kind": "exception", "error": "e"})
    for relpath in (f"failures/{format_model_name(ARM, 5)}.json", f"shards/{format_model_name(ARM, 0)}.parquet"):
        banks.path_of(store, relpath).write_bytes(b"x")
    banks.path_of(store, HEARTBEAT_PATH).write_text("{}")
    status = compute_bank_status(store)
    assert len(status.problems) == 3
    assert status.arms[0].models == 3
    assert status.arms[0].rmse is None
    banks.path_of(store, f"arms/{ARM}.json").write_text("{")
    status = compute_bank_status(store)
    assert status.arms == []
    assert any("3 shards of unknown arms" in problem for problem in status.problems)


def test_a_record_is_read_as_it_was_written_and_one_of_a_later_version_too(tmp_path):
    folder = banks.bank(tmp_path / "bank").folder
    heartbeat = make_heartbeat(planned={ARM: 8}, models={ARM: 3}, rmse={ARM: None}, eta_s=float("nan"))
    write_heartbeat(folder, heartbeat)
    assert read_heartbeat(folder) == replace(heartbeat, eta_s=None)


@pytest.mark.parametrize(
    ("holder", "age_s", "state", "verdict"),
    [
        ("", None, "running", "none"),
        ("", 0, "ended", "none"),
        ("", 1000, "running", "died"),  # it could not write its last record
        ("me", 0, "running", "running"),
        ("me", 1000, "running", "silent"),  # frozen
        ("me", None, "running", "silent"),  # another command
        ("gone", 0, "running", "died"),  # kill -9
        ("elsewhere", 0, "running", "silent"),  # somebody else's record
    ],
)
def test_who_works_on_a_store(tmp_path, holder, age_s, state, verdict):
    store = banks.bank(tmp_path / "bank")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    pids = {"me": os.getpid(), "gone": dead.pid, "elsewhere": 1}
    host = "another" if holder == "elsewhere" else socket.gethostname()
    if holder:
        banks.path_of(store, "lock").write_text(f"pid {pids[holder]} on host {host}\n")
    heartbeat = None if age_s is None else make_heartbeat(at=time.time() - age_s, state=state, planned={ARM: 8})
    driver = find_driver(store.folder, heartbeat)
    assert driver.state == verdict
    if heartbeat:
        write_heartbeat(store.folder, heartbeat)
    assert "driver" in format_status(compute_bank_status(store))


def test_the_rate_of_files_is_between_the_first_and_the_last():
    assert compute_rate([0.0, 1.0, 4.0]) == 0.5
    assert compute_rate([0.0, 1.0]) is None
    assert compute_rate([1.0, 1.0, 1.0]) is None


def test_the_command_needs_neither_torch_nor_ray_and_reads_a_store_that_it_may_not_write(tmp_path):
    banks.bank(tmp_path / "bank")
    code = (
        "import sys; from memscore.status import main; assert main(sys.argv[1:]) == 0; "
        "assert not {'torch', 'ray', 'sklearn'} & set(sys.modules), 'heavy'; "
        "workers = {name for name in sys.modules if name.startswith('cluster.')}; "
        "assert workers <= {'cluster.pool', 'cluster.device_errors', 'cluster.leftovers'}, workers"
    )
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "bank").rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bank"), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert status["arms"][0]["models"] == 3
    assert status["arms"][0]["rmse"] is None or status["arms"][0]["rmse"] > 0
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "bank").rglob("*"))


@pytest.mark.parametrize(("flags", "line"), [("{tmp}/none", "no store at"), ("--watch 0", "--watch must be 1 second")])
def test_bad_input_is_one_line(flags, line, home, capsys):
    assert main(flags.format(tmp=home).split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert line in error
    assert error.count("\n") == 1


def test_without_a_name_it_is_the_store_that_was_worked_on_last(home, capsys):
    assert main([]) == 2
    assert "no store in" in capsys.readouterr().err
    for name in ("older", "newer", "third"):
        banks.bank(home / "memscore" / name)
    for name, age_s in (("older", 90), ("newer", 30), ("third", 60)):
        os.utime(home / "memscore" / name / "manifest.json", (time.time() - age_s,) * 2)
    assert choose_store(None) == str(home / "memscore" / "newer")
    assert capsys.readouterr().err == "bank: ~/memscore/newer (last used)\n"
    write_heartbeat(Store.open(home / "memscore" / "older").folder, make_heartbeat())
    assert main([]) == 0
    assert f"store   {home}/memscore/older" in capsys.readouterr().out


def test_a_driver_in_another_pid_namespace_is_judged_by_its_record_alone(tmp_path):
    store = banks.bank(tmp_path / "bank")
    pid = 2**22 + 1  # above what the system hands out
    store.folder.replace("lock", f"pid {pid} on host {socket.gethostname()}\n".encode())
    elsewhere = make_heartbeat(pid=pid, host=socket.gethostname(), at=time.time(), state="running", space="pid:[1]")
    assert find_driver(store.folder, elsewhere).state == "running"
    assert find_driver(store.folder, replace(elsewhere, space=get_pid_namespace())).state == "died"


def test_a_process_that_has_ended_has_exited_even_as_a_zombie():
    child = subprocess.Popen([sys.executable, "-c", ""])
    end = time.monotonic() + 30
    while not has_exited(child.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert has_exited(child.pid)
    assert Path(f"/proc/{child.pid}").exists()  # a zombie until it is waited for
    child.wait()
    assert not has_exited(os.getpid())


def test_a_store_that_goes_while_it_is_watched_ends_the_watch(tmp_path, monkeypatch, capsys):
    store = banks.bank(tmp_path / "bank")
    monkeypatch.setattr("memscore.status.time.sleep", lambda seconds: (tmp_path / "bank").rename(tmp_path / "gone"))
    assert main([store.url, "--watch", "1"]) == 2
    assert f"no store at {store.url}" in capsys.readouterr().err


def test_a_truncated_score_is_named_with_its_file_and_a_command(tmp_path):
    store = banks.bank(tmp_path / "bank")
    store.write_score("mem", {"mem": np.ones(40)}, {"mem": banks.FIELD}, {}, "0" * 64)
    content = store.folder.read("scores/mem.parquet")
    store.folder.replace("scores/mem.parquet", content[: len(content) // 2])
    [problem] = compute_bank_status(store).problems
    assert problem.startswith(f"{store.url}/scores/mem.parquet is damaged: ")
    assert "--set-aside`, and the next estimate makes it again" in problem
