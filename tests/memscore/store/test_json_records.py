"""Small JSON records: what JSON cannot hold is null in them."""

import json

import numpy as np
import pytest

from memscore.store.json_records import decode_record, encode_record, replace_nonfinite

RECORD = {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (float("-inf"), 0, None, True, "NaN")}}
FINITE = {"a": None, "b": [1.5, None], "c": {"d": [None, 0, None, True, "NaN"]}}


def test_numbers_that_are_not_finite_become_null_at_any_depth():
    assert replace_nonfinite(RECORD) == FINITE
    json.dumps(replace_nonfinite(RECORD), allow_nan=False)


def test_an_encoded_record_is_decoded_without_them():
    assert decode_record(encode_record(RECORD), require_checksum=True) == FINITE
    with pytest.raises(ValueError, match="do not give the record_sha256"):
        decode_record(encode_record(RECORD).replace(b"1.5", b"2.5"))


def test_numbers_of_numpy_are_those_of_python():
    record = {"flag": np.bool_(True), "count": np.int64(3), "share": np.float32(0.5), "none": np.float32("nan")}
    assert decode_record(encode_record(record)) == {"flag": True, "count": 3, "share": 0.5, "none": None}


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError):
        encode_record({"place": object()})
