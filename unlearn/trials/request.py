"""Options of `python -m unlearn.trial` as a user writes them. Imports no torch, so that --help answers at once."""

from dataclasses import dataclass

import tyro

from memscore.cli.options import Maybe, Several


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """Request the trials of one algorithm: one for each original.

    Attributes:
        store: path or URL of a bank, whose recipe trains originals and oracles.
        algorithm: finetune, neggrad-plus, salun, ... (an unknown name lists them all), or module:function, a function
            (model, retain, forget) of your own that returns the unlearned model.
        forget: random, SCORE:high as memorization_k0.500:high, class:3, ids:FILE, ...; an unknown one lists them all.
        size: number of examples to forget, where --forget does not give it.
        with_copies: forget the exact copies of these examples in the training set too.
        set: parameters of the algorithm, as lr=0.05 epochs=5.
        seeds: number of originals, each with its own oracle.
        measures: beyond the core ones (an unknown name lists them all), or module:function of your own.
        seed: of the forget set's draw, and of the algorithm's random streams.
        data: the bank's data set by name or path, if its manifest is not enough to find it.
        folder: folder of the data set.
    """

    store: tyro.conf.Positional[str]
    algorithm: str
    forget: str = "random"
    size: int = 100
    with_copies: bool = False
    set: Several = ()
    seeds: int = 3
    measures: Several = ()
    seed: int = 0
    data: Maybe[str] = None
    folder: Maybe[str] = None
