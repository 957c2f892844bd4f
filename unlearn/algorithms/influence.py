"""Influence unlearning: one step to the weights without the forget set, to first order.

    theta_u = theta_o + alpha k,   k ~ H^-1 v,   v = (1/N) sum_F grad l - (|F| / (N |R|)) sum_R grad l,   N = |F| + |R|

Izzo et al. 2021, Koh & Liang 2017; RUM section 5. All gradients are at theta_o, in evaluation mode, not augmented.
Where theta_o is a minimum of mean l + (lam/2) |theta|^2 over R and F, v is minus the gradient of the same objective
over R alone, so that alpha 1 is Newton's step to the retrained weights: exact for a quadratic l.

Two approximations of H^-1 v:

- "woodfisher", as released (Jia et al. 2023) and as RUM runs it: with single examples of R, o = g_1, k = v, and for
  each further g:  t = o.g,  k -= (k.g / (n + t)) o,  o -= (t / (n + t)) o.  It is not the inverse of the Fisher
  information that it is named after, where o would be the inverse times g, recomputed for each g. n is 1,000, or
  |R| if that is less; the examples are drawn, while the code takes the first ones (available by `order`), and two
  more. Its ImageNet branch takes R's gradient over F; this one does not.
- "ihvp-cg": (G + damping I) k = v by conjugate gradients, G the Gauss-Newton matrix of the mean loss on R, which is
  the Hessian of a network that is linear in its weights, and never indefinite. `damping` is the weight decay of theta_o
  for Newton's step; deep networks need larger values.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from unlearn.optimization.curvature import (
    Loss,
    compute_gradient,
    conjugate_gradient,
    gauss_newton_product,
    split_like_parameters,
    summed_cross_entropy,
)
from unlearn.optimization.loop import StepCallback, copy_model, finish_one_shot, require
from unlearn.problem import ExampleSet
from unlearn.search_space import NOT_SEARCHED, Choice, Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class InfluenceConfig:
    """RUM A.2: alpha 1 to 100, by WoodFisher.

    Attributes:
        alpha: step length; 1 is Newton's step for "ihvp-cg".
        variant: "woodfisher" or "ihvp-cg".
        samples: n of WoodFisher.
        order: "drawn": random rows of R; "first": the first rows of R.
        damping: added to the diagonal of G.
        iterations: maximum number of conjugate-gradient iterations, each a pass over R.
        tolerance: of the residual, as a share of |v|.
        batch: examples per forward pass in sums; results do not depend on it.
    """

    alpha: float = 1.0
    variant: Literal["woodfisher", "ihvp-cg"] = "woodfisher"
    samples: int = 1000
    order: Literal["drawn", "first"] = "drawn"
    damping: float = 0.01
    iterations: int = 20
    tolerance: float = 1e-3
    batch: int = 256

    SPACE: ClassVar[dict[str, Domain]] = {
        "alpha": LogUniform(
            low=0.01, high=100.0, paper=(1.0, 100.0), source="RUM A.2 1 to 100, SalUn 1 to 20; its users below 1"
        ),
        "damping": LogUniform(low=1e-4, high=1.0, paper=NOT_SEARCHED, source="of ihvp-cg; no paper has it"),
        "variant": Choice(
            values=("woodfisher", "ihvp-cg"),
            paper=NOT_SEARCHED,
            source="RUM A.2 the first; Koh & Liang 2017, section 3, the second",
        ),
    }

    def __post_init__(self) -> None:
        rules = (
            ("alpha", 0 < self.alpha < math.inf, "above 0 and finite"),
            ("variant", self.variant in {"woodfisher", "ihvp-cg"}, "woodfisher or ihvp-cg"),
            ("samples", self.samples >= 2, "2 or more"),
            ("order", self.order in {"drawn", "first"}, "drawn or first"),
            ("damping", self.damping >= 0, "0 or more"),
            ("iterations", self.iterations >= 1, "1 or more"),
            ("tolerance", self.tolerance > 0, "above 0"),
            ("batch", self.batch >= 1, "1 or more"),
        )
        for name, holds, rule in rules:
            require("InfluenceConfig", name, getattr(self, name), rule, holds=holds)


def influence(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: InfluenceConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Take one step, from gradients and curvature at theta_o."""
    theta = copy_model(theta_o).eval()
    # [P]; it points up F's loss and down R's, so that the step adds k.
    v = removal_gradient(theta, retain, forget, config.batch)
    if config.variant == "woodfisher":
        n = min(config.samples, len(retain))
        # The recursion depends on the order of the examples; a permutation draws both.
        rows = np.arange(n) if config.order == "first" else rng.permutation(len(retain))[:n]
        k = woodfisher(theta, retain.select(torch.from_numpy(rows).to(retain.rows.device)), v)
    else:
        # (G + damping I) u; damping above 0 makes the matrix definite, as conjugate gradients require.
        def multiply(u: Tensor) -> Tensor:
            return gauss_newton_product(theta, retain, u, config.batch) + config.damping * u

        k = conjugate_gradient(multiply, v, config.iterations, config.tolerance)
    with torch.no_grad():
        # One vector [P] back into parameters; running statistics stay.
        for weight, part in zip(theta.parameters(), split_like_parameters(k, theta), strict=True):
            weight.add_(part, alpha=config.alpha)
    return finish_one_shot(theta, step_callback, "try a smaller alpha or more damping")


def removal_gradient(
    theta: nn.Module, retain: ExampleSet, forget: ExampleSet, batch: int, loss: Loss = summed_cross_entropy
) -> Tensor:
    """Compute v, the gradient of removing F from the training objective, as one vector.

    Args:
        theta: in evaluation mode.
        retain: R.
        forget: F.
        batch: examples per forward pass.
        loss: summed over a batch.

    Returns:
        [P], in the order of theta.parameters(); 0 where F and R have the same mean gradient.
    """
    # Both gradients are sums. share scales R's to |F| examples, so v is 0 where the two means agree.
    n, share = len(retain) + len(forget), len(forget) / len(retain)
    return (compute_gradient(theta, forget, batch, loss) - share * compute_gradient(theta, retain, batch, loss)) / n


def woodfisher(theta: nn.Module, examples: ExampleSet, v: Tensor) -> Tensor:
    """Compute the released code's k, [P], from all examples of a set, one at a time, in their order."""
    # In the code's names: k starts as v, and o, the first gradient, is scaled by n / (n + t) at each step.
    n, k, o = len(examples), v.clone(), torch.empty(0)
    for step in range(n):
        g = compute_gradient(theta, examples.select(torch.tensor([step], device=examples.rows.device)), 1)
        # The first example gives o only; k changes from the second on.
        if step == 0:
            o = g
            continue
        t = o @ g
        k = k - (k @ g) / (n + t) * o
        o = o - t / (n + t) * o
    return k
