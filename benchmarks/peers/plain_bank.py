"""Peer: a plain PyTorch loop with a DataLoader, models one after the other; memorization from 0/1 correctness.

python plain_bank.py FOLDER
"""

import time

import numpy as np
import torch
from task import Net, Task, report, train
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    """Train, query, write, score."""
    started, task = time.perf_counter(), Task.given()
    torch.set_num_threads(1)
    pixels, labels = (torch.from_numpy(part) for part in task.data())
    rng = np.random.default_rng(0)
    member = np.zeros((task.models, task.n_train), dtype=bool)
    correct = np.zeros((task.models, len(labels)), dtype=bool)
    for m in range(task.models):
        torch.manual_seed(m)
        rows = rng.choice(task.n_train, round(task.keep * task.n_train), replace=False)
        member[m, rows] = True
        model = Net(**task.network(int(labels.max()) + 1))
        subset = TensorDataset(pixels[rows], labels[rows])
        train(model, DataLoader(subset, batch_size=task.batch, shuffle=True), task.epochs, task.lr)
        with torch.no_grad():
            correct[m] = (model(pixels).argmax(1) == labels).numpy()
        np.savez(f"{task.folder}/model-{m}.npz", correct=correct[m], member=member[m])
    right = correct[:, : task.n_train]
    with np.errstate(invalid="ignore"):
        score = np.where(member, right, 0).sum(0) / member.sum(0) - np.where(~member, right, 0).sum(0) / (~member).sum(
            0
        )
    np.save(f"{task.folder}/memorization.npy", score)
    report(started, test_accuracy=float(correct[:, task.n_train :].mean()))


if __name__ == "__main__":
    main()
