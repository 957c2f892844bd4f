"""Stores on an S3 server that is wrong, away, or dies: one line within seconds at the start, waiting in the middle."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.s3_server import Cable, free_port, server, url_of
from memscore.store import remote
from memscore.store.filesystem import Folder
from memscore.store.manifest import build_default_url
from memscore.store.remote import StoreUnavailable, WriteFailed, join_url, redact_credentials
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.store.stored_files import StoredFiles
from tests.fixtures.banks import ARM, bank, examples, manifest, shard

SECONDS = 15  # on a busy machine; a frozen server takes 10


@pytest.fixture(scope="module")
def s3():
    """A server, and keys of the environment that it does not look at."""
    with server() as there:
        yield there


@pytest.fixture
def cable(s3):
    made = Cable(s3.port)
    yield made
    made.cut()


@pytest.fixture
def no_keys(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def refusal(url):
    """Return the errors of opening and creating a store there, within seconds and without a password."""
    began, messages = time.monotonic(), []
    for open_store in (Store.open, lambda place: Store.create(place, manifest(), examples())):
        with pytest.raises((OSError, ValueError)) as refused:
            open_store(url)
        messages.append(" ".join(str(refused.value).split()))
    assert time.monotonic() - began < 2 * SECONDS
    assert "hush" not in "".join(messages)
    return messages


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://", "lacks a bucket and a folder within it; give a URL such as s3://bucket/run"),
        ("s3:///x", "Missing bucket name in S3 URI; give a path, or a URL"),
        ("s3://k:hush@bank?region=x&endpoint_override=h:1", r"s3://\*\*\*@bank\?.* lacks a folder within the bucket"),
        ("s3:/bank/run", "the store s3:/bank/run is neither path nor URL"),
        ("s3://k:hu/hush@bank/run?region=x", r"cannot open s3://\*\*\*@bank/run\?region=x: Cannot parse URI"),
        ("s3://bank/run?secret_key=hush", r"secret_key=\*\*\*: Unexpected query parameter"),
        ("http://me:hush@h/x", r"http://\*\*\*@h/x: Unrecognized filesystem type"),
    ],
)
def test_a_url_that_cannot_be_a_store_is_refused_without_its_password(url, words):
    for message in refusal(url):
        assert re.search(words, message)


def test_a_file_url_is_its_path(tmp_path):
    assert Folder.from_url(f"file://{tmp_path}/run").root == str(tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="a store is a folder"):
        Folder.from_url(f"file://{tmp_path}/file/run")
    with pytest.raises(
        OSError, match=r"^cannot make the store /proc/x: .*; make its place writable, or use another store$"
    ):
        Store.create("file:///proc/x", manifest(), examples())


def test_a_server_that_is_not_there_is_reported_within_seconds():
    for message in refusal(url_of(free_port(), "run")):
        assert re.search(
            r"cannot read s3://bank/run/manifest.json: NETWORK_CONNECTION .*Could not connect to server; check its",
            message,
        )


@pytest.mark.slow
def test_a_server_that_is_frozen_is_reported_within_seconds(s3):
    s3.freeze()
    try:
        for message in refusal(url_of(s3.port, "run")):
            assert re.search(r"NETWORK_CONNECTION .*Timeout was reached; check its address", message)
    finally:
        s3.thaw()


@pytest.mark.slow
def test_a_server_that_freezes_while_a_file_is_written_is_reported_within_seconds(s3, caplog):
    """A request with a body fails after twice the time of another one, so the report does not wait for that."""
    folder, began = Folder.from_url(url_of(s3.port, "frozen")), time.monotonic()
    s3.freeze()
    timer = threading.Timer(SECONDS + 1, s3.thaw)
    timer.start()
    folder.replace("a", b"x" * 1000)
    timer.join()
    first, last = [(record.created, record.getMessage()) for record in caplog.records]
    assert first[0] - last[0] < -2  # long before the end
    assert first[1].startswith("writing s3://bank/frozen/a has taken 10 s and has not ended. Bring its server back if")
    assert re.search(r"frozen/a is written after all, \d+ s later", last[1])
    assert time.monotonic() - began > SECONDS
    assert folder.read("a") == b"x" * 1000


@pytest.mark.parametrize("read", [False, True])
def test_an_attempt_that_does_not_end_is_reported_while_it_lasts(read, caplog, monkeypatch):
    monkeypatch.setattr(remote, "SLOW_S", 0.05)
    reported = []

    def attempt():
        end = time.monotonic() + 10
        while not caplog.records and time.monotonic() < end:
            time.sleep(0.01)
        reported.extend(record.getMessage() for record in caplog.records)
        return "done"

    assert remote.retry(attempt, "s3://bank/a", 60, read=read) == "done"
    assert len(reported) == 1
    assert reported[0].startswith(f"{'reading' if read else 'writing'} s3://bank/a has taken 0.05 s and has not ended")
    assert "after all" in caplog.messages[-1]


def test_an_attempt_that_ends_in_time_and_one_that_is_not_repeated_are_not_reported(caplog, monkeypatch):
    monkeypatch.setattr(remote, "SLOW_S", 0.05)
    assert remote.retry(lambda: "done", "a", 60) == "done"
    assert remote.retry(lambda: time.sleep(0.2), "a", 0) is None
    time.sleep(0.1)
    assert caplog.messages == []


def test_a_bucket_that_is_not_there_is_named(s3):
    for message in refusal(url_of(s3.port, "run").replace("@bank", "@nowhere")):
        assert message.endswith("there is no bucket 'nowhere'; make it first, or give another URL")


def test_keys_that_are_missing_or_wrong_are_named_and_right_ones_of_the_environment_open(no_keys, monkeypatch):
    with server(INITIAL_NO_AUTH_ACTION_COUNT="4") as guarded:
        iam = guarded.client("iam")
        iam.create_user(UserName="me")
        keys = iam.create_access_key(UserName="me")["AccessKey"]
        rule = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [rule]}
        iam.put_user_policy(UserName="me", PolicyName="all", PolicyDocument=json.dumps(policy))
        bare = url_of(guarded.port, "run").replace("k:hush@", "")
        way_out = "ACCESS_DENIED .*; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials, must hold keys"
        for message in refusal(url_of(guarded.port, "run")):
            assert re.search(way_out, message)
        for message in refusal(bare):  # moto answers 500 to what is not signed, where others say ACCESS_DENIED
            assert re.search(f"{way_out}|status 500.* check its address .* and the keys, or give another", message)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        for message in refusal(bare):
            assert re.search(way_out, message)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
        assert Store.create(bare, manifest(), examples()).url == bare


def test_options_of_memscore_home_stay_behind_the_name(monkeypatch):
    monkeypatch.setenv("MEMSCORE_HOME", "s3://bank/memscore/?region=x")
    assert re.fullmatch(
        r"s3://bank/memscore/digits-mlp-paper-\w{8}\?region=x", build_default_url("digits", "mlp", "paper", manifest())
    )


def test_a_redacted_url_has_no_secret():
    for keys in ("k:hush@", "k:h/u@s?hush@", "hush@"):
        assert redact_credentials(f"s3://{keys}bank/run?region=x") == "s3://***@bank/run?region=x"
    assert redact_credentials("s3://bank/run@2") == "s3://bank/run@2"
    for option in ("secretkey=hush", "SECRET_KEY=hush", "secret%5Fkey=hush", "hush", "region=a b hush@c", "=hush"):
        for url in (f"s3://bank/run?{option}&scheme=http", f"s3://bank/run?scheme=http&{option}"):
            assert "hush" not in redact_credentials(url)
            assert "scheme=http" in redact_credentials(url)
    shown = "s3://bank/run?endpoint_override=127.0.0.1:9000&scheme=http&region=us-east-1"
    assert redact_credentials(shown) == shown
    assert redact_credentials("/home/me/what?secret=x") == "/home/me/what?secret=x"


def test_an_unknown_option_is_named_and_its_value_is_not():
    with pytest.raises(ValueError, match=r"cannot open s3://bank/run\?secretkey=\*\*\*&bogus=\*\*\*") as caught:
        Store.open("s3://bank/run?secretkey=hush2&bogus=1&region=x")
    assert "hush2" not in str(caught.value)


def test_the_advice_on_a_store_within_a_bank_keeps_the_options_at_the_end(tmp_path):
    inner = bank(tmp_path / "run" / "scenarios" / "canaries")
    url = "s3://bank/run/scenarios/canaries?region=x&secret_key=hush"
    files = StoredFiles(Store(replace(inner.folder, url=url), inner.manifest), (), {})
    assert files.is_inner
    assert files.bank == "s3://bank/run?region=x&secret_key=***"
    assert join_url("s3://bank/run?region=x", "scenarios/canaries") == "s3://bank/run/scenarios/canaries?region=x"


def away(cable, seconds):
    """Cut the cable now, and join it later."""
    cable.cut()
    timer = threading.Timer(seconds, cable.join)
    timer.start()
    return timer


def test_every_read_and_write_outlasts_an_outage(s3, cable, caplog):
    store = bank(url_of(cable.port, "outage"))
    name, path = format_model_name(ARM["name"], 1), f"shards/{format_model_name(ARM['name'], 1)}.parquet"
    store.write_failure(name, {"kind": "error", "error": "e"})
    opened = store.folder.open(path)
    acts = {
        "open again": lambda: Store.open(store.url, retry_s=60).manifest == store.manifest,
        "has": lambda: store.has_shard(name),
        "check": lambda: list(store.check(ARM["name"]).valid) == [0, 1, 2],
        "footers": lambda: list(store.find_valid_shards(ARM["name"], verify=False)) == [0, 1, 2],
        "records": lambda: list(store.failures()) == [name] and list(store.arms()) == [ARM["name"]],
        "write": lambda: store.write_shard(format_model_name(ARM["name"], 3), ARM["name"], shard(3)),
        "an open file": lambda: opened.read(4) == b"PAR1",
        "blocks": lambda: (
            [
                bool((block.columns["gap"][0] == shard(1)["gap"][:40]).all())
                for block in store.read_blocks(ARM["name"], [1], ["gap"])
            ]
            == [True]
        ),
        "set aside": lambda: store.quarantine(path) == f"damaged/{name}.parquet-1",
        "remove": lambda: store.clear_failure(name) is None and not store.failures(),
    }
    for act, attempt in acts.items():
        timer = away(cable, 0.4)
        assert attempt(), act
        timer.join()
    assert not store.has_shard(name)
    assert "Bring its server back, and it goes on; stored files are kept" in caplog.text


def test_an_outage_is_never_taken_for_damage(s3, cable, monkeypatch):
    store = bank(url_of(cable.port, "lost"))
    opened = store.folder.open(f"shards/{format_model_name(ARM['name'], 1)}.parquet")
    for part in (Folder.read, Folder.exists, Folder._with_retries):
        monkeypatch.setattr(part, "__defaults__", (0.2,))
    monkeypatch.setattr("memscore.store.remote.RETRY_S", 0.2)
    cable.cut()
    from memscore.store.parquet import open_parquet

    reads = [
        lambda: store.check(ARM["name"]),
        lambda: store.check(ARM["name"], verify=False),
        lambda: open_parquet(opened),
        lambda: list(store.read_blocks(ARM["name"], [1], ["gap"])),
        store.receipts,
    ]
    for attempt in reads:
        with pytest.raises(StoreUnavailable, match="bring its server back, and give the same command again") as lost:
            attempt()
        assert lost.value.stops_the_run


def test_a_put_that_is_cut_off_leaves_no_object(s3, cable):
    """The server gets half of the bytes: of one put, and of one in parts."""
    for size, cuts in ((300_000, (0, 150_000, 299_000)), (12_000_000, (6_000_000,))):
        for sent in cuts:
            folder, name = Folder.from_url(url_of(cable.port, "half")), f"{size}-{sent}"
            folder.exists("x")
            cable.cut_after(sent + 600)
            with pytest.raises(WriteFailed, match="bring its server back"):
                folder.publish(name, b"1" * size, retry_s=0.1)
            cable.cut()
            cable.join()
            objects = s3.objects("half/")
            assert len(objects.get(name, b"1" * size)) == size, (size, sent)
            assert folder.publish(name, b"1" * size) == (name not in objects)
    assert {len(content) for content in s3.objects("half/").values()} == {300_000, 12_000_000}


def listen_to_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_writer_hit_in_mid_put_leaves_no_partial_object(s3, number):
    code = textwrap.dedent(
        """
        import sys
        from memscore.store.filesystem import Folder
        folder = Folder.from_url(sys.argv[1])
        for k in range(10**6):
            folder.publish(f"{sys.argv[2]}-{k}", bytes([k % 256]) * 300_000)
            print(k, flush=True)
        """
    )
    prefix = f"hit-{number}"
    for attempt in range(3):
        arguments = [sys.executable, "-c", code, url_of(s3.port, prefix), str(attempt)]
        with subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=listen_to_ctrl_c
        ) as writer:
            for _ in range(3):  # however busy the machine is
                writer.stdout.readline()
            time.sleep(0.017 * attempt)
            writer.send_signal(number)
    objects = s3.objects(f"{prefix}/")
    assert len(objects) > 5
    assert {len(content) for content in objects.values()} == {300_000}
    assert all(len(np.unique(np.frombuffer(content, np.uint8))) == 1 for content in objects.values())


def test_retry_time_is_that_of_the_readme():
    assert remote.RETRY_S == 300
