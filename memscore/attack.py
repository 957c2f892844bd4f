"""Audit a model with a bank as shadow models: `python -m memscore.attack STORE --model W`."""

import shlex
import sys
from dataclasses import replace
from typing import Annotated, Literal

from memscore.cli.app import run_command
from memscore.cli.stop_signals import quiet_interrupt, quiet_interrupt_during_imports

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from memscore.cli.command_line import call_command
from memscore.cli.options import Maybe
from memscore.tables.console import open_console
from memscore.visible_text import write_line

PROG = "python -m memscore.attack"
EXAMPLE = "~/memscore/digits --model mine.safetensors --arch mlp --members members.txt"


def audit_model(
    model: str,
    arch: str,
    store: Annotated[Maybe[str], tyro.conf.Positional] = None,
    members: Maybe[str] = None,
    mean: Maybe[tuple[float, ...]] = None,
    std: Maybe[tuple[float, ...]] = None,
    arm: Maybe[str] = None,
    threshold: float = 0.0,
    delta: float = 0.0,
    rmia: Literal["online", "offline"] = "online",
    gamma: float = 1.0,
    data: Maybe[str] = None,
    folder: Maybe[str] = None,
    out: Maybe[str] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Score how likely your model was trained on each training example of a bank; train nothing.

    Args:
        model: weights of your model: .safetensors, or a state dict in a .pt, .pth, .bin or Lightning .ckpt file.
        arch: mlp, cnn-32-64, resnet18, ... (`memscore list architectures` lists all), or module:Class or
            module:function for a network of your own.
        store: path or URL of the bank (default: the one used last in $MEMSCORE_HOME or ~/memscore).
        members: ids of its training set (.txt, one per line; .csv; .json; .npz; .parquet): measures the attacks and
            bounds epsilon.
        mean: per channel, subtracted from pixels in [0, 1] (default: the bank's).
        std: per channel, divisor of pixels after that (default: the bank's).
        arm: arm of the shadow models, if the bank has several.
        threshold: an example is flagged as a member where LiRA's online log-likelihood ratio is above it, in nats.
        delta: of the bounds on epsilon; with members, far less than 1 over the number of training examples.
        rmia: kind of p(x) in RMIA.
        gamma: of RMIA.
        data: where the bank's data are now, by name or path, or module:function (default: where they were read).
        folder: folder of a downloadable data set (default: $MEMSCORE_DATA or ~/.cache/memscore/data).
        out: path of the Parquet table, beside which a .json is written (default: in the store's reports/).
        device: auto: a GPU if there is one.

    Returns:
        Exit code 0, also for an audit that is not to be trusted: the page and the files say so.
    """
    with quiet_interrupt_during_imports():
        from memscore.analysis.audit import run_audit
        from memscore.analysis.audit_copies import describe_copies_in_audit
        from memscore.analysis.audit_report import (
            build_bank_command,
            check_out,
            describe_recipe_options,
            write_audit,
        )
        from memscore.analysis.user_model import load_user_model, read_members, resolve_normalization
        from memscore.data.duplicates import find_copies
        from memscore.estimators.rmia import RmiaConfig
        from memscore.monitoring.default_store import choose_store
        from memscore.pipeline.reload_data import reload_splits
        from memscore.store.store import Store
        from memscore.tables.audit_table import print_audit
        from memscore.training.numerics import resolve_device

    console = open_console()
    check_out(out)
    bank = Store.open(choose_store(store), check_manifest=True)
    torch_device = resolve_device(device)
    mean_std = resolve_normalization(bank.manifest, mean, std)
    user_model = load_user_model(model, arch, bank.manifest)
    member, list_notes = (None, ()) if members is None else read_members(members, bank)
    # the bank's images, normalised as the user's model expects them
    splits = replace(reload_splits(bank, data, folder), mean=mean_std[0], std=mean_std[1])
    result = run_audit(
        bank,
        user_model.network,
        splits,
        arm=arm,
        member=member,
        threshold=threshold,
        delta=delta,
        config=RmiaConfig(kind=rmia, gamma=gamma),
        device=torch_device,
        suspicions=user_model.suspicions,
    )
    notes = [f"weights   {note}" for note in user_model.notes]
    notes += [f"members   {note}" for note in list_notes]
    notes += [f"copies    {line}" for line in describe_copies_in_audit(find_copies(splits), member)]
    path = write_audit(bank, result, model, out)
    command = (build_bank_command(bank, arch, data, folder), describe_recipe_options())
    print_audit(console, result, path, notes=notes, command=command, names=bank.class_names)
    return 0


def accept_store_option(arguments: list[str]) -> tuple[list[str], str]:
    """Turn `--store S`, as it was before the store became a plain word, into the word; and return a note on it."""
    for k, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option == "--store" and (equals or k + 1 < len(arguments)):
            value = value if equals else arguments[k + 1]
            note = f"note: --store is not needed: python -m memscore.attack {shlex.quote(value)} --model ..."
            return [value, *arguments[:k], *arguments[k + (1 if equals else 2) :]], note
    return arguments, ""


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; user errors are one line and exit code 2, Ctrl-C is 130."""
    words, note = accept_store_option(sys.argv[1:] if arguments is None else arguments)
    code = run_command(lambda: call_command(audit_model, prog, words, EXAMPLE))
    if note and not code:  # an error is one line
        write_line(note)
    return code


if __name__ == "__main__":
    sys.exit(main())
