"""Audit a model of your own with a bank as its shadows: `python -m memscore.attack --store S --model W --arch A`."""

import sys
from dataclasses import replace
from typing import Literal

from memscore.cli.app import quiet_interrupt_during_imports, run_command

if __name__ == "__main__":
    quiet_interrupt_during_imports()

import tyro
from rich.console import Console

from memscore.analysis.audit import run_audit, write_audit
from memscore.analysis.user_model import build_member_mask, load_user_model, resolve_normalization
from memscore.cli.options import Maybe
from memscore.data.id_lists import read_id_list
from memscore.estimators.rmia import RmiaConfig
from memscore.pipeline.config import reload_splits
from memscore.store.store import Store
from memscore.tables.audit_table import print_audit
from memscore.training.numerics import resolve_device


def audit_model(
    store: str,
    model: str,
    arch: str,
    members: Maybe[str] = None,
    mean: Maybe[tuple[float, ...]] = None,
    std: Maybe[tuple[float, ...]] = None,
    arm: Maybe[str] = None,
    threshold: float = 0.0,
    rmia: Literal["online", "offline"] = "online",
    gamma: float = 1.0,
    data: Maybe[str] = None,
    folder: Maybe[str] = None,
    out: Maybe[str] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Say of each training example of a bank how likely your model was trained on it; train nothing.

    Args:
        store: path or URL of the bank.
        model: safetensors file of your model's state dict.
        arch: mlp, cnn-32-64, resnet18, ..., or module:function of (input_shape, n_classes) for a network of your own.
        members: ids of its training set (.txt, one a line; .json; .npz): says how well they are told, bounds epsilon.
        mean: per channel, what you subtract from pixels in [0, 1] (default: the bank's).
        std: per channel, what you divide them by (default: the bank's).
        arm: whose models are the shadows, where the bank has several.
        threshold: the verdict is "member" where LiRA's online log-likelihood ratio is above it, in nats.
        rmia: which p(x) RMIA compares with.
        gamma: of RMIA.
        data: the bank's data by name or path, where the name in its manifest is not enough to find it.
        folder: where a downloadable data set lies (default: $MEMSCORE_DATA or ~/.cache/memscore/data).
        out: write the table there (default: the store's reports/).
        device: auto: a GPU where there is one.

    Returns:
        Exit code 0.
    """
    console = Console(width=None if sys.stdout.isatty() else 110)
    bank = Store.open(store)
    where = resolve_device(device)
    constants = resolve_normalization(bank.manifest, mean, std)
    network = load_user_model(model, arch, bank.manifest)
    member = None if members is None else build_member_mask(read_id_list(members), bank)
    splits = replace(reload_splits(bank, data, folder), mean=constants[0], std=constants[1])
    config = RmiaConfig(kind=rmia, gamma=gamma)
    found = run_audit(bank, network, splits, arm=arm, member=member, threshold=threshold, config=config, device=where)
    print_audit(console, found, write_audit(bank, found, model, out))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors of the user's making are one line and exit code 2, Ctrl-C is 130."""
    return run_command(lambda: tyro.cli(audit_model, prog="python -m memscore.attack", args=arguments))


if __name__ == "__main__":
    sys.exit(main())
