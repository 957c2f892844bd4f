"""What an algorithm reads and steps on, seen from outside."""

import torch

from unlearn.problem import Examples


def read_by(monkeypatch, run):
    """The rows of every batch that is taken while this runs, in order."""
    taken, take = [], Examples.take

    def noted(self, positions):
        taken.append(self.rows[positions].tolist())
        return take(self, positions)

    with monkeypatch.context() as patch:
        patch.setattr(Examples, "take", noted)
        run()
    return taken


def turns(taken, forget):
    """F, R or M (mixed) for each batch."""
    dropped = set(forget.rows.tolist())
    return "".join({0: "R", len(rows): "F"}.get(len(dropped & set(rows)), "M") for rows in taken)


def by_hand(theta, loss, *, lr, weight_decay=0.0):
    """One plain step down a loss, by the textbook: theta - lr (gradient + weight decay theta)."""
    slopes = torch.autograd.grad(loss, list(theta.parameters()), materialize_grads=True)
    with torch.no_grad():
        for parameter, slope in zip(theta.parameters(), slopes, strict=True):
            parameter -= lr * (slope + weight_decay * parameter)


def alike(one, other, *, rtol=1e-4, atol=1e-6):
    """Whether two networks agree up to rounding."""
    ours, theirs = one.state_dict(), other.state_dict()
    return all(torch.allclose(ours[name], theirs[name], rtol=rtol, atol=atol) for name in ours)
