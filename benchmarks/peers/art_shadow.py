"""Peer: the Adversarial Robustness Toolbox's shadow models and its black-box membership inference.

python art_shadow.py FOLDER    (in an environment with adversarial-robustness-toolbox)
"""

import time
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from art.attacks.inference.membership_inference import MembershipInferenceBlackBox, ShadowModels
from art.estimators.classification import PyTorchClassifier
from art.utils import to_categorical
from sklearn.metrics import roc_auc_score
from task import Net, Task, report
from torch.optim.lr_scheduler import CosineAnnealingLR


class Trained(PyTorchClassifier):  # type: ignore[misc]
    """The tool fits shadow models with its own epochs and batch; this sets the task's, and a cosine by the epoch."""

    task: Task

    def fit(self, x: np.ndarray, y: np.ndarray, **_: Any) -> None:
        """Train the classifier as the task says."""
        cosine = CosineAnnealingLR(self.optimizer, self.task.epochs)
        super().fit(x, y, batch_size=self.task.batch, nb_epochs=self.task.epochs, scheduler=cosine)


def main() -> None:
    """Train the target and the shadow models, then attack the target."""
    started, task = time.perf_counter(), Task.given()
    torch.set_num_threads(1)
    Trained.task = task
    pixels, labels = task.data()
    n, classes = task.n_train, int(labels.max()) + 1
    rows = np.random.default_rng(0).permutation(n)
    inside, outside = rows[: round(task.keep * n)], rows[round(task.keep * n) :]
    torch.manual_seed(0)
    model = Net(**task.network(classes))
    target = Trained(
        model=model,
        loss=torch.nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(model.parameters(), lr=task.lr, momentum=0.9, weight_decay=5e-4),
        input_shape=(pixels.shape[1],),
        nb_classes=classes,
        device_type="cpu",
    )
    target.fit(pixels[inside], labels[inside])
    shadows = ShadowModels(target, num_shadow_models=task.models, random_state=0)
    members, others = shadows.generate_shadow_dataset(pixels[:n], to_categorical(labels[:n], classes), task.keep)
    attack = MembershipInferenceBlackBox(target, attack_model_type="rf")
    attack.fit(members[0], members[1], others[0], others[1], members[2], others[2])
    scores = [attack.infer(pixels[part], labels[part], probabilities=True).ravel() for part in (inside, outside)]
    found = float(roc_auc_score(np.repeat([1, 0], [len(inside), len(outside)]), np.concatenate(scores)))
    np.save(f"{task.folder}/attack.npy", np.concatenate(scores))
    right = target.predict(pixels[n:]).argmax(1) == labels[n:]
    report(started, test_accuracy=float(right.mean()), auc=found, version=version("adversarial-robustness-toolbox"))


if __name__ == "__main__":
    main()
