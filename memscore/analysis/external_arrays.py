"""Where the arrays of an imported bank lie, as a user writes it. Imports no torch, so that --help answers at once."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from memscore.cli.options import Maybe, Several


@dataclass(frozen=True, kw_only=True)
class ExternalArrays:
    """A bank that was trained elsewhere. Arrays are .npy files, .npz files with one array, or file.npz:NAME."""

    store: Annotated[str, tyro.conf.Positional]
    """folder or URL of the store that is created or extended"""
    member: str
    """[models, train examples] of 0 and 1: the example was in the model's training set"""
    correct: Several = ()
    """[models, train examples] of 0 and 1: the prediction was correct; as for the three below, test examples may follow
    as further columns or in a second file. May be left out with --gap, whose sign shows it"""
    gap: Several = ()
    """logit of the label minus the largest other (margins)"""
    logit_confidence: Several = ()
    """logit of the label minus logsumexp of the others, that is log(p / (1 - p))"""
    top_gap: Several = ()
    """largest logit minus the second largest"""
    labels: Maybe[str] = None
    """whole numbers, one per example: train, then test; beside --data they are compared with its own"""
    ids: Maybe[str] = None
    """names, one per example (default: train/00000, ...); beside --data they are compared with its own"""
    data: Maybe[str] = None
    """the data set by name or path, as in estimate, in its own order and without a validation set: gives labels, ids
    and the pictures of the report"""
    folder: Maybe[str] = None
    """folder of a downloadable data set (default: $MEMSCORE_DATA or ~/.cache/memscore/data)"""
    follow_links: bool = False
    """read images of --data behind links that lead out of its folder"""
    design: Literal["iid", "exact"] = "iid"
    """exact: in each --block of models every example is in equally many, which is checked"""
    block: Maybe[int] = None
    """models per block of an exact design (default: 64)"""
    keep: Maybe[float] = None
    """share of the examples in a model's training set (default: of the masks, to two digits)"""
    attacks: Maybe[tuple[str, ...]] = None
    """as in estimate (default: lira, or lira-gap where only gaps are given)"""
