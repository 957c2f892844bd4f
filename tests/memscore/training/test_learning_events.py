"""Learning events are counted without a wait for the device, and equal a loop over visits."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memscore.training.learning_events import AVERAGED_EVENTS, LearningEvents
from memscore.training.loop import count_visits

CPU = torch.device("cpu")
S, N, K = 2, 12, 3
WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "_unique2"}


class RefuseWaits(TorchDispatchMode):
    """Refuses operations whose result the host must wait for on a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if by_mask or name in WAITING:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def make_window(ending, seed=0):
    """8 visits of each of 2 models: the end of one pass, then the start of the next; some examples occur in both."""
    rng = np.random.default_rng(seed)
    rows = np.stack([np.concatenate([rng.permutation(N)[:end], rng.permutation(N)[: 8 - end]]) for end in ending])
    logits = rng.normal(size=(S, 8, K)).astype(np.float32)
    return torch.from_numpy(rows), torch.from_numpy(logits)


def test_counting_a_window_waits_for_nothing(monkeypatch):
    events, labels = LearningEvents.zeros(S, N, CPU), torch.arange(N) % K
    rows, logits = make_window([3, 0])

    def fail(*arguments, **options):
        raise AssertionError("torch.tensor copies a list to a GPU from pageable memory, and waits")

    monkeypatch.setattr(torch, "tensor", fail)
    with RefuseWaits():
        count_visits(events, rows, logits, labels, [3, 0])
    assert events.visits.sum() == S * 8


@pytest.mark.parametrize("operation", [lambda t: t[t > 0], lambda t: bool((t > 0).any()), lambda t: t.nonzero()])
def test_the_check_for_waits_sees_one(operation):
    with RefuseWaits(), pytest.raises(AssertionError, match="waits for the device"):
        operation(torch.ones(3))


def test_an_example_that_ends_a_pass_and_starts_the_next_is_counted_in_that_order():
    """Several windows, whose passes end in the middle and at either edge, against a loop over single visits."""
    events, labels = LearningEvents.zeros(S, N, CPU), torch.arange(N) % K
    visits, repeated = [[[] for _ in range(N)] for _ in range(S)], 0
    for number, ending in enumerate(([4, 6], [0, 8], [5, 1], [8, 0])):
        rows, logits = make_window(ending, number)
        repeated += 8 - len(set(rows[0].tolist()))
        count_visits(events, rows, logits, labels, ending)
        for s in range(S):
            for row, z in zip(rows[s].tolist(), logits[s].double(), strict=True):
                p, y = z.softmax(0), int(labels[row])
                right = float(int(z.argmax()) == y)
                visits[s][row].append((float(p[y]), float(p.max()), float(-(p * p.log()).sum()), right))
    assert repeated > 0  # some are visited by both passes of a window
    for s in range(S):
        table = events.compute_averages(s)
        for row, each in enumerate(visits[s]):
            assert table["visits"][row] == len(each)
            for name, mean in zip(AVERAGED_EVENTS, np.mean(each, 0), strict=True):
                assert table[name][row] == pytest.approx(mean, rel=1e-5)
            right = [visit[3] for visit in each]
            assert table["forgetting"][row] == sum(a > b for a, b in pairwise(right))


def test_a_visit_of_no_pass_changes_nothing_whatever_its_logits():
    events, labels = LearningEvents.zeros(1, N, CPU), torch.zeros(1, 2, dtype=torch.int64)
    rows, logits = torch.tensor([[3, 5]]), torch.tensor([[[2.0, 0, 0], [torch.nan, torch.inf, 0]]])
    events.add(rows, logits, labels, torch.tensor([[True, False]]))
    assert events.visits.nonzero().tolist() == [[0, 3]]
    assert torch.isfinite(events.sums).all()
    assert events.sums[0, :, 5].tolist() == [0, 0, 0, 0]
