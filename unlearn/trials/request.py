"""Options of `python -m unlearn.trial` as a user writes them. Imports no torch, so that --help answers at once."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from memscore.cli.options import Maybe, Several

DEFAULT_ALGORITHM, DEFAULT_TUNING = "neggrad-plus", 10
"""Algorithm of a command that names none, and the configurations that it is tuned on, since no default serves
all banks."""


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """Request the trials of one algorithm: one for each original.

    Attributes:
        store: path or URL of a bank, whose recipe trains originals and oracles.
        algorithm: finetune, neggrad-plus, salun, ... (`unlearn list algorithms` lists all), or module:function, a
            function (model, retain, forget) of your own that returns the unlearned model (default: neggrad-plus, with
            --tune 10 unless its parameters are given).
        forget: random, SCORE:high as memorization_k0.500:high, class:3, ids:FILE, ...; `unlearn list forget-sets` lists
            all (default: memorization_k0.500:union, the least, half and most memorized).
        size: number of examples to forget, where --forget does not give it (default: 100; without --forget the
            largest of which the bank has two without a common example).
        with_copies: forget the exact copies of these examples in the training set too.
        set: parameters of the algorithm, as lr=0.05 epochs=5.
        tune: configurations to evaluate first, on other originals and another forget set of the same kind; the trial
            reports the best one.
        from_sweep: name of a sweep of this bank, whose choice for the algorithm without parts and rounds is taken, and
            reported on the originals that the sweep was judged on.
        steps: scaled: epochs and batches that are left out take as many steps as in the paper's setting, for these
            data; paper: the paper's numbers as they are.
        space: the ranges that --tune searches: wide, or the papers'.
        search: parameters that --tune searches besides, epochs or batch: half to three times the epochs, a quarter to
            four times the batch that the trial would have.
        select: which choice of --tune or --from-sweep: oracle (for evaluation alone), or blind (oracle-free, possible
            for a user).
        seeds: number of originals, each with its own oracle.
        measures: beyond the core ones (`unlearn list measures` lists all), or module:function of your own.
        seed: of the forget set's draw, and of the algorithm's random streams.
        data: where the bank's data are now, by name or path, or module:function (default: where they were read).
        folder: folder of the data set.
    """

    store: tyro.conf.Positional[str]
    algorithm: Maybe[str] = None
    forget: Maybe[str] = None
    size: Maybe[int] = None
    with_copies: bool = False
    set: Several = ()
    tune: int = 0
    from_sweep: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    steps: Literal["scaled", "paper"] = "scaled"
    space: Literal["wide", "paper"] = "wide"
    search: Several = ()
    select: Literal["oracle", "blind"] = "oracle"
    seeds: int = 3
    measures: Several = ()
    seed: int = 0
    data: Maybe[str] = None
    folder: Maybe[str] = None
