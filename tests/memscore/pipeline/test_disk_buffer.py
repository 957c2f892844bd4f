"""What is put a few columns at a time comes back as rows in pairs, and nothing stays on disk."""

import numpy as np

from memscore.pipeline.map_reduce import DiskBuffer


def test_columns_put_in_any_order_come_back_as_signed_pairs_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = np.arange(4 * 10, dtype=np.float32).reshape(4, 10)
    with DiskBuffer(10) as shelf:
        for part in (slice(7, 10), slice(0, 3), slice(3, 7)):
            shelf.put("single", part, said[:, part])
            shelf.put("double", part, said[:, part].astype(np.float64))
        assert len(list(tmp_path.iterdir())) == 1
        assert shelf.names == ["single", "double"]
        for name, kind in (("single", np.float32), ("double", np.float64)):
            pairs = list(shelf.pairs(name, -1))
            assert all(row.dtype == kind for pair in pairs for row in pair)
            np.testing.assert_array_equal([row for pair in pairs for row in pair], -said)
    assert not list(tmp_path.iterdir())


def test_no_halves_are_no_pairs():
    with DiskBuffer(5) as shelf:
        shelf.put("none", slice(0, 5), np.empty((0, 5)))
        assert list(shelf.pairs("none", 1)) == []
