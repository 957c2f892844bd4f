"""Peer: dattri's retraining on random subsets, and its own reading of the checkpoints.

python dattri_bank.py FOLDER    (in an environment with dattri)
"""

import time
from importlib.metadata import version

import numpy as np
import torch
from dattri.metric import calculate_lds_ground_truth
from dattri.model_util.retrain import retrain_lds
from task import Net, Task, report, train
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    """Train, query, write, score."""
    started, task = time.perf_counter(), Task.given()
    torch.set_num_threads(1)
    pixels, labels = (torch.from_numpy(part) for part in task.data())
    classes, n = int(labels.max()) + 1, task.n_train

    def fresh() -> Net:
        return Net(**task.network(classes))

    def train_func(loader: DataLoader, seed: int) -> Net:  # type: ignore[type-arg]
        torch.manual_seed(seed)
        model = fresh()
        train(model, loader, task.epochs, task.lr)
        return model

    def correctness(checkpoint: str, loader: DataLoader) -> torch.Tensor:  # type: ignore[type-arg]
        model = fresh()
        model.load_state_dict(torch.load(checkpoint, weights_only=True))
        model.eval()
        with torch.no_grad():
            return torch.cat([(model(images).argmax(1) == truth).float() for images, truth in loader])

    folder = f"{task.folder}/dattri"
    members = DataLoader(TensorDataset(pixels[:n], labels[:n]), batch_size=task.batch, shuffle=True)
    retrain_lds(train_func, members, folder, num_subsets=task.models, subset_ratio=task.keep, seed=0)
    everyone = DataLoader(TensorDataset(pixels, labels), batch_size=1024)
    values, rows = calculate_lds_ground_truth(correctness, folder, everyone)
    right = np.abs(values.numpy())  # the tool flips the sign
    member = np.zeros((task.models, n), dtype=bool)
    member[np.arange(task.models)[:, None], rows.numpy()] = True
    inside, outside = (np.where(side, right[:, :n], 0).sum(0) / side.sum(0) for side in (member, ~member))
    np.save(f"{task.folder}/memorization.npy", inside - outside)
    report(started, test_accuracy=float(right[:, n:].mean()), version=version("dattri"))


if __name__ == "__main__":
    main()
