"""TODO: docstring."""

import gzip
import hashlib
import http.server
import pickle
import threading
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
    "broken", [b"", b"no gzip", gzip.compress(b"\0\0"), gzip.compress(idx(pixels(3, (4, 5)))[:-1])]
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
    message = r"cifar10 is not complete in .* and could not be downloaded \(.*\); put the publisher's files there"
    with pytest.raises(OSError, match=message) as caught:
        load_dataset("cifar10", folder=str(tmp_path))
    assert "\n" not in str(caught.value)


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
    with pytest.raises(OSError, match=r"mnist is not complete in .*corrupted.*; put the publisher's files") as caught:
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
