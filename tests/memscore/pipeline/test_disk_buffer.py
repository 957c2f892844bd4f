"""Columns that are written in parts are read as pairs of rows, and nothing stays on disk."""

import numpy as np

from memscore.pipeline.map_reduce import DiskBuffer


def test_columns_written_in_any_order_are_read_as_signed_pairs_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    values = np.arange(4 * 10, dtype=np.float32).reshape(4, 10)
    with DiskBuffer(10) as buffer:
        for part in (slice(7, 10), slice(0, 3), slice(3, 7)):
            buffer.write("single", part, values[:, part])
            buffer.write("double", part, values[:, part].astype(np.float64))
        assert len(list(tmp_path.iterdir())) == 1
        assert buffer.names == ["single", "double"]
        for name, kind in (("single", np.float32), ("double", np.float64)):
            pairs = list(buffer.read_pairs(name, -1))
            assert all(row.dtype == kind for pair in pairs for row in pair)
            np.testing.assert_array_equal([row for pair in pairs for row in pair], -values)
    assert not list(tmp_path.iterdir())


def test_no_halves_are_no_pairs():
    with DiskBuffer(5) as buffer:
        buffer.write("none", slice(0, 5), np.empty((0, 5)))
        assert list(buffer.read_pairs("none", 1)) == []
