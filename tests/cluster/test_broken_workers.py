"""Real processes that can do no more, in a pool and on Ray Tune; the rules themselves are in test_faulty_workers.py."""

import json

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

MEASURE = """
import json, sys
from benchmarks import broken_workers as b
print(json.dumps(b.measure(b.CASES[sys.argv[1]], 30, b.run_job, b.evaluate)))
"""


@pytest.mark.parametrize(
    ("case", "failed", "tried_again"),
    [
        ("pool, one GPU breaks", 0, {"gpu": 1}),
        ("pool, both GPUs break", 0, {"gpu": 2}),
        ("search, one GPU breaks", 0, {"gpu": 1}),
        ("search, both GPUs break", 0, {"gpu": 2}),
        ("pool, a job breaks every GPU", 1, {"gpu": 3}),
        ("search, a job breaks every GPU", 1, {"gpu": 3}),
        ("pool, one worker raises", 2, {"exception": 1}),
        ("search, one worker raises", 3, {"exception": 1}),
    ],
)
def test_thirty_jobs_on_two_workers(run_alone, case, failed, tried_again):
    row = json.loads(run_alone("-c", MEASURE, case, limit_s=150))
    assert (row["ok"], row["failed"], row["tried_again"]) == (30 - failed, failed, tried_again)


def test_a_gpu_that_is_broken_for_good_costs_no_job(run_alone):
    row = json.loads(run_alone("-c", MEASURE, "pool, one of two GPUs is broken for good", limit_s=150))
    assert (row["ok"], row["failed"]) == (30, 0)
