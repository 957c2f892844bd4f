"""Learning events: statistics of predictions at every visit of the training.

For every visit, before the step that it takes part in (Zhao & Triantafillou 2024, section 2.2):

    confidence = p_y     max_confidence = max_k p_k     entropy = -sum_k p_k log p_k     accuracy = 1[argmax_k z_k = y]

each averaged over visits; and forgetting = how often an example that was right on one visit was wrong on the next
(Toneva et al. 2019). Differs from the paper: entropy is the positive one (the released code stores its negative), and
log p comes from log_softmax, so a probability that underflows adds 0 and not NaN.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

AVERAGED_EVENTS = ("confidence", "max_confidence", "entropy", "accuracy")
"""The rows of LearningEvents.sums; with forgetting they are memscore.score_registry.EVENT_DIRECTIONS."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningEvents:
    """Running sums over visits, for S models and N examples.

    Attributes:
        visits: int32 [S, N].
        sums: float32 [S, 4, N]: confidence, max_confidence, entropy, accuracy.
        forgetting: int32 [S, N].
        was_right: int32 [S, N], 1 if right at the last visit.
    """

    visits: Tensor
    sums: Tensor
    forgetting: Tensor
    was_right: Tensor

    @classmethod
    def zeros(cls, models: int, examples: int, device: torch.device) -> "LearningEvents":
        """Return the sums before the first visit."""
        return cls(
            visits=torch.zeros(models, examples, dtype=torch.int32, device=device),
            sums=torch.zeros(models, 4, examples, device=device),
            forgetting=torch.zeros(models, examples, dtype=torch.int32, device=device),
            was_right=torch.zeros(models, examples, dtype=torch.int32, device=device),
        )

    def add(self, rows: Tensor, logits: Tensor, labels: Tensor, *counted: Tensor) -> None:
        """Count a visit of each of these examples, pass by pass; changes the sums. On a GPU the host does not wait.

        Args:
            rows: int64 [S, L].
            logits: float32 [S, L, K], at the time of the visit.
            labels: int64 [S, L].
            counted: bool [S, L], one for each pass: which visits belong to it; an example occurs at most once in a pass
                of a model. Visits that belong to no pass are ignored.
        """
        models, examples = self.visits.shape
        offset = torch.arange(models, device=rows.device)[:, None]
        by_class = logits.transpose(1, 2).contiguous()  # sums over few classes run along memory this way
        log_p = by_class.log_softmax(1)
        p = log_p.exp()
        p_label = p.gather(1, labels[:, None])[:, 0]
        right = by_class.argmax(1) == labels
        # [S, 4, L] in the order of AVERAGED_EVENTS. The entropy overwrites log_p, of which it is the last use.
        values = torch.stack([p_label, p.amax(1), -log_p.mul_(p).sum(1), right.float()], 1)
        # No mask selects elements, and nothing asks whether one is empty: both make the host wait for a GPU. A visit
        # that is not counted adds 0. Tables are added to as flat vectors, so one index_add_ serves all models: model s
        # starts at s N, its row of the four sums at (4 s + position) N.
        in_any_pass = torch.stack(counted).any(0)
        values = torch.where(in_any_pass[:, None], values, 0.0)
        position = torch.arange(values.shape[1], device=rows.device)[:, None]
        cells = rows[:, None] + (values.shape[1] * offset[:, None] + position) * examples
        self.sums.view(-1).index_add_(0, cells.flatten(), values.flatten())
        index, right = (rows + offset * examples).flatten(), right.flatten().int()
        self.visits.view(-1).index_add_(0, index, in_any_pass.flatten().int())
        # Right at the last visit and wrong now is one forgetting event. An example occurs at most once in a pass, but
        # may also occur uncounted: so was_right is not overwritten, but changed by a difference, which is 0 there.
        for in_pass in counted:
            part, before = in_pass.flatten().int(), self.was_right.view(-1)[index]
            self.forgetting.view(-1).index_add_(0, index, before * (1 - right) * part)
            self.was_right.view(-1).index_add_(0, index, (right - before) * part)

    def select_models(self, model: int, count: int = 1) -> "LearningEvents":
        """Return the sums of `count` models from `model` on, as views of these sums."""
        part = slice(model, model + count)
        return LearningEvents(
            visits=self.visits[part],
            sums=self.sums[part],
            forgetting=self.forgetting[part],
            was_right=self.was_right[part],
        )

    def compute_averages(self, model: int) -> dict[str, np.ndarray]:
        """Compute one model's averages and forgetting, float32 [N], NaN if never visited, and visits, int32 [N]."""
        visits = self.visits[model].cpu().numpy()
        denominator = np.where(visits > 0, visits, np.nan).astype(np.float32)
        sums = self.sums[model].cpu().numpy()
        table: dict[str, np.ndarray] = {"visits": visits}
        for position, name in enumerate(AVERAGED_EVENTS):
            table[name] = sums[position] / denominator
        # Times 1 where visited, NaN elsewhere: a count of 0 would look like an example that was never forgotten.
        table["forgetting"] = self.forgetting[model].cpu().numpy() * (denominator / denominator)
        return table
