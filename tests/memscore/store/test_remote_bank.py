"""A bank's whole life on an S3 server: the same bytes as on a disk, whoever dies, and no key on file."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.s3_server import server, url_of
from memscore import bank, fidelity, influence
from memscore.store.store import Store
from tests.fixtures.command import MODELS, RAY, SERIAL, SMALL, ended, here, start

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.slow]


@pytest.fixture(scope="module")
def s3():
    with server() as there:
        yield there


def comparable(objects, kinds=("shards/", "scores/", "scores.parquet")):
    """Return the files that are the same bytes after every undisturbed run."""
    return {path: content for path, content in objects.items() if path.startswith(kinds) and not path.endswith("/")}


def on_disk(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def without_keys(objects, *outputs):
    assert not any(b"hush" in content for content in objects.values())
    assert not any("hush" in text for text in outputs)


def wait_for(s3, prefix, count, process):
    while sum(path.startswith("shards/") for path in s3.names(prefix)) < count:
        assert process.poll() is None
        time.sleep(0.05)


def test_a_bank_lives_on_s3_as_on_a_disk(s3, small, tmp_path, capsys):
    url = url_of(s3.port, "life")
    flags = f"{SMALL} {SERIAL} --store {url}"
    process = start(tmp_path, flags)
    wait_for(s3, "life/", 1, process)
    process.kill()
    process.communicate()
    assert 1 <= sum(path.startswith("shards/") for path in s3.objects("life/")) < MODELS
    code, output = here(flags, capsys)
    assert code == 0, output
    assert comparable(s3.objects("life/")) == comparable(on_disk(small))
    before = s3.objects("life/")
    assert bank.main(["verify", url]) == 0
    victim = sorted(path for path in before if path.startswith("shards/"))[3]
    Store.open(url).folder.replace(victim, before[victim][:-100])
    assert bank.main(["verify", url, "--set-aside"]) == 1
    assert victim not in s3.objects("life/")
    assert here(flags, capsys)[0] == 0
    assert comparable(s3.objects("life/")) == comparable(before)
    assert fidelity.main([url, "--draws", "10"]) == 0
    assert influence.main([url]) == 0
    assert here(f"{flags} --proxies all", capsys)[0] == 0
    assert bank.main(["verify", url]) == 0
    without_keys(s3.objects("life/"), output, *capsys.readouterr())


def test_two_drivers_at_once_are_harmless_without_a_lock(s3, small, tmp_path):
    flags = f"{SMALL} {SERIAL} --store {url_of(s3.port, 'two')}"
    with ThreadPoolExecutor() as pool:
        ends = list(pool.map(ended, [start(tmp_path, flags) for _ in range(2)]))
    assert [code for code, _ in ends] == [0, 0], ends
    assert comparable(s3.objects("two/")) == comparable(on_disk(small))
    assert bank.main(["verify", url_of(s3.port, "two")]) == 0


@pytest.mark.ray
def test_workers_of_a_cluster_write_the_same_bytes_to_s3(s3, small, ray_cluster, capsys):
    code, output = here(f"{SMALL} {RAY} --store {url_of(s3.port, 'ray')}", capsys)
    assert code == 0, output
    objects = s3.objects("ray/")
    assert comparable(objects) == comparable(on_disk(small))
    without_keys(objects, output)
