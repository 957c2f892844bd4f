"""Data sets of torchvision: read as published, and what is said of missing and damaged files."""

import gzip
import hashlib
import http.server
import pickle
import shutil
import tarfile
import threading
import urllib.error
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
import torch
import torchvision

from memscore.data import published
from memscore.data.datasets import load_dataset
from memscore.data.publisher_files import list_publisher_files


def pixels(n, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()  # the checksum that torchvision keeps


def idx(values):
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def idx_folder(root, n=30):
    root.mkdir(parents=True, exist_ok=True)
    for prefix, seed in (("train", 0), ("t10k", 1)):
        labels = (np.arange(n) % 3).astype(np.uint8)
        (root / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels(n, (28, 28), seed))))
        (root / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return root


def test_idx_files_are_read_before_any_download(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "DEBIAN_FASHION_MNIST", str(idx_folder(tmp_path)))
    fashion = load_dataset("fashion-mnist", validation=0)
    assert (fashion.train.images[:, 0] == pixels(30, (28, 28), 0)).all()
    assert (fashion.test.images[:, 0] == pixels(30, (28, 28), 1)).all()
    assert fashion.test.images.flags.writeable  # torch.from_numpy warns otherwise
    assert load_dataset("fashion-mnist", validation=0, folder=str(tmp_path)).fingerprint == fashion.fingerprint


@pytest.mark.parametrize(
    "broken",
    [b"", b"no gzip", gzip.compress(b"\0\0"), gzip.compress(idx(pixels(3, (4, 5)))[:-1])],
    ids=["empty", "no gzip", "no header", "too short"],
)
def test_a_broken_idx_file_is_named(tmp_path, broken):
    (idx_folder(tmp_path) / "t10k-labels-idx1-ubyte.gz").write_bytes(broken)
    with pytest.raises(OSError, match=r"t10k-labels-idx1-ubyte.gz is not a readable gzipped idx file"):
        load_dataset("fashion-mnist", folder=str(tmp_path))


@pytest.mark.skipif(
    not Path(published.DEBIAN_FASHION_MNIST).is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_is_whole():
    fashion = load_dataset("fashion-mnist", validation=0)
    assert fashion.train.images.shape == (60_000, 1, 28, 28)
    assert fashion.test.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(fashion.train.labels).tolist() == [6000] * 10
    assert np.bincount(fashion.test.labels).tolist() == [1000] * 10
    assert fashion.train.labels[:5].tolist() == [9, 0, 0, 3, 0]
    np.testing.assert_allclose((fashion.mean, fashion.std), ((0.2860,), (0.3530,)), atol=5e-5)  # widely used constants


def test_torchvision_objects_of_every_layout_become_channels_first():
    colour = pixels(6, (32, 32, 3))
    mnist = SimpleNamespace(data=torch.from_numpy(pixels(6, (28, 28))), targets=torch.arange(6))
    cifar = SimpleNamespace(data=colour, targets=list(range(6)))
    svhn = SimpleNamespace(data=np.transpose(colour, (0, 3, 1, 2)), labels=np.arange(6))
    assert (published._extract_arrays("train", mnist).images[:, 0] == pixels(6, (28, 28))).all()
    for part in (published._extract_arrays("train", cifar), published._extract_arrays("train", svhn)):
        assert (part.images == colour.transpose(0, 3, 1, 2)).all()
        assert part.images.flags.c_contiguous
        assert part.labels.tolist() == list(range(6))


def fake_cifar(root, monkeypatch, kind, key):
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    names = [name for name, _ in kind.train_list + kind.test_list]
    for seed, name in enumerate(names):
        batch = {"data": pixels(20, (3072,), seed), key: [position % 4 for position in range(20)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: list("abcd")}))
    known = [[name, md5(folder / name)] for name in names]
    monkeypatch.setattr(kind, "train_list", known[:-1])
    monkeypatch.setattr(kind, "test_list", known[-1:])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(folder / kind.meta["filename"])})
    monkeypatch.setattr(kind, "url", (root / "nowhere.tar.gz").as_uri())
    return folder


@pytest.mark.parametrize(("name", "key", "batches"), [("cifar10", "labels", 5), ("cifar100", "fine_labels", 1)])
def test_cifar_batches_are_read_in_order(tmp_path, monkeypatch, name, key, batches):
    kind = getattr(torchvision.datasets, name.upper())
    fake_cifar(tmp_path, monkeypatch, kind, key)
    monkeypatch.setenv("MEMSCORE_DATA", str(tmp_path))
    cifar = load_dataset(name, validation=0)
    assert cifar.input_shape == (3, 32, 32)
    assert len(cifar.train) == 20 * batches
    assert (cifar.test.images == pixels(20, (3072,), batches).reshape(20, 3, 32, 32)).all()
    assert (cifar.train.images[:20] == pixels(20, (3072,), 0).reshape(20, 3, 32, 32)).all()


def test_a_cifar_batch_with_another_checksum_is_never_unpickled(tmp_path, monkeypatch):
    folder = fake_cifar(tmp_path, monkeypatch, torchvision.datasets.CIFAR10, "labels")
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": pixels(20, (3072,), 9), "labels": [0] * 20}))
    with pytest.raises(OSError, match=r"cifar10 is not complete in .*") as caught:
        load_dataset("cifar10", folder=str(tmp_path))
    line = str(caught.value)
    [known] = [value for name, value in torchvision.datasets.CIFAR10.train_list if name == "data_batch_3"]
    assert f"{folder / 'data_batch_3'} has md5 {md5(folder / 'data_batch_3')}, expected {known}" in line
    assert "missing" not in line
    assert "delete data_batch_3, fetch from file://" in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"])
def test_what_a_folder_lacks_is_listed_with_address_checksum_and_place(tmp_path, monkeypatch, name):
    kind = getattr(torchvision.datasets, published.TORCHVISION_CLASSES[name])
    monkeypatch.setattr(published, "DEBIAN_FASHION_MNIST", str(tmp_path))
    for download in ("_get_redirect_url", "_urlretrieve"):  # no network, whatever this machine has
        monkeypatch.setattr(torchvision.datasets.utils, download, offline)
    with pytest.raises(OSError, match=r"it could not be downloaded: <urlopen error no route") as caught:
        load_dataset(name, folder=str(tmp_path))
    line = str(caught.value)
    files = list_publisher_files(kind, tmp_path)
    assert files
    for file in files:
        source = file.archive or file
        assert str(file.path.relative_to(tmp_path)) in line.split(" (it could not")[0]
        assert f"{source.path.name} (md5 {source.md5})" in line
        assert f"into {source.path.parent}, or name a folder" in line
    assert "--folder or $MEMSCORE_DATA" in line
    assert "\n" not in line


def offline(*_, **__):
    raise urllib.error.URLError("no route")


def test_a_folder_of_batches_that_lie_one_folder_too_high_says_where_they_belong(tmp_path, monkeypatch):
    folder = fake_cifar(tmp_path, monkeypatch, torchvision.datasets.CIFAR10, "labels")
    with pytest.raises(OSError, match=r"is not complete") as caught:
        load_dataset("cifar10", folder=str(folder))
    assert f"move {folder / 'data_batch_1'} to {folder / 'cifar-10-batches-py'}, " in str(caught.value)
    with pytest.raises(ValueError, match=r"data_batch_1 is a file; give the folder that it lies in"):
        load_dataset("cifar10", folder=str(folder / "data_batch_1"))


def test_an_archive_is_unpacked_and_one_that_cannot_be_is_named(tmp_path, monkeypatch):
    kind = torchvision.datasets.CIFAR10
    folder = fake_cifar(tmp_path, monkeypatch, kind, "labels")
    with tarfile.open(tmp_path / kind.filename, "w:gz") as archive:
        archive.add(folder, folder.name)
    monkeypatch.setattr(kind, "tgz_md5", md5(tmp_path / kind.filename))
    shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", lambda *_, **__: (_ for _ in ()).throw(PermissionError("denied")))
        with pytest.raises(
            OSError, match=r"cifar-10-python.tar.gz is there but was not unpacked \(denied\); unpack ci"
        ):
            load_dataset("cifar10", folder=str(tmp_path))
    assert len(load_dataset("cifar10", validation=0, folder=str(tmp_path)).train) == 100
    (tmp_path / kind.filename).write_bytes(b"<html>404</html>")
    shutil.rmtree(folder)
    with pytest.raises(
        OSError, match=r"tar.gz has md5 \w{32}, expected \w{32} .*; delete cifar-10-python.tar.gz, fetch"
    ):
        load_dataset("cifar10", folder=str(tmp_path))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mnist_mirror(tmp_path, monkeypatch):
    """A web server on this machine that publishes a small MNIST with the checksums torchvision expects."""
    published = idx_folder(tmp_path / "published")
    names = sorted(path.name for path in published.iterdir())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=published))
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [(name, md5(published / name)) for name in names])
    yield published
    server.shutdown()
    server.server_close()


def test_mnist_is_downloaded_once(tmp_path, monkeypatch, mnist_mirror):
    mnist = load_dataset("mnist", validation=0, folder=str(tmp_path / "kept"))
    assert (mnist.train.images[:, 0] == pixels(30, (28, 28), 0)).all()
    assert mnist.test.labels.tolist() == [position % 3 for position in range(30)]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    assert load_dataset("mnist", validation=0, folder=str(tmp_path / "kept")).fingerprint == mnist.fingerprint


def test_a_download_with_another_checksum_is_refused_in_one_line(tmp_path, mnist_mirror):
    (mnist_mirror / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(30, np.uint8))))
    with pytest.raises(OSError, match=r"labels-idx1-ubyte.gz has md5 \w{32}, expected \w{32}.*corrupted") as caught:
        load_dataset("mnist", folder=str(tmp_path / "kept"))
    assert "\n" not in str(caught.value)


def test_an_unpacked_file_that_was_cut_is_refused_in_one_line(tmp_path, mnist_mirror):
    load_dataset("mnist", validation=0, folder=str(tmp_path / "kept"))
    cut = tmp_path / "kept" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    for size in (0, 6, 2000):
        cut.write_bytes(cut.read_bytes()[:size] if size < 2000 else idx(pixels(30, (28, 28)))[:size])
        with pytest.raises(
            OSError, match=r"its files are there but cannot be read \(.*\); delete .*raw to have"
        ) as caught:
            load_dataset("mnist", folder=str(tmp_path / "kept"))
        assert "\n" not in str(caught.value)


def test_svhn_reads_label_10_as_the_digit_0(tmp_path, monkeypatch):
    known = {}
    for seed, split in enumerate(("train", "test")):
        path = tmp_path / f"{split}_32x32.mat"
        values = pixels(30, (32, 32, 3), seed).transpose(1, 2, 3, 0)
        scipy.io.savemat(path, {"X": values, "y": (np.arange(30) % 10 + 1)[:, None].astype(np.uint8)})
        known[split] = [(tmp_path / "nowhere").as_uri(), path.name, md5(path)]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", known)
    svhn = load_dataset("svhn", validation=0, folder=str(tmp_path))
    assert (svhn.train.images == pixels(30, (32, 32, 3), 0).transpose(0, 3, 1, 2)).all()
    assert svhn.train.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert svhn.test.ids[-1] == "test/00029"
