"""Match the names of weights in a file with those of a network: prefixes, torchvision's names, further tensors."""

from collections.abc import Collection, Iterator, Mapping

from torch import Tensor

HEADS = ("head", "fc", "heads.head", "classifier", "linear")
"""Names of the last layer: memscore's, torchvision's, and those of CIFAR networks; their other layers lack "body."."""

BODIES = {"features.": "0."}
"""Parts of a body that other networks name: the convolutions of VGG are the first layer of memscore's."""

AS_IN_TORCHVISION = {
    "resnet18": "resnet18-imagenet-stem",
    "resnet50": "torchvision.models:resnet50",
    "resnext50": "torchvision.models:resnext50_32x4d",
    "vgg16": "torchvision.models:vgg16_bn",
}
"""Architectures that differ from torchvision's of a like name, and the --arch that is torchvision's."""

TORCHVISION = "names of weights as torchvision has them were accepted"


def match_names(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Rename a user's tensors as the network names its own, where all names differ in one way; and say how.

    A prefix that all names share is taken off (torch.compile's _orig_mod., DataParallel's module., Lightning's model.)
    or put before all; torchvision's names of a network without the "body." of memscore are accepted. Names that match
    as they stand stay, whatever they begin with. Where one prefix has all of the network behind it, as in Lightning's
    checkpoints, tensors of other names are left out.

    Args:
        tensors: by name, as the file has them.
        wanted: the network's state dict.

    Returns:
        The tensors by the network's names, and what was done, empty for nothing. Where nothing matches, the names
        without the shared prefixes that have the most in common with the network's, for the message of what is missing.

    Raises:
        ValueError: two prefixes have all of the network behind them.
    """
    given = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}  # of torch's AveragedModel
    # a counter that evaluation does not read, and which old files lack
    counters = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")}
    best, best_note, most = given, "", len(given.keys() & wanted.keys())
    for renamed, note in _list_renamings(given, wanted):
        completed = {**{name: counters[name] for name in counters if name not in renamed}, **renamed}
        if completed.keys() == wanted.keys():
            return completed, note
        if (shared := len(completed.keys() & (wanted.keys() - counters.keys()))) > most:
            best, best_note, most = completed, note, shared
    parts: dict[str, tuple[dict[str, Tensor], str]] = {}
    for prefix in list_prefixes(given):
        part = {name: tensor for name, tensor in given.items() if name.startswith(prefix)}
        for renamed, note in _list_renamings(part, wanted):
            completed = {**{name: counters[name] for name in counters if name not in renamed}, **renamed}
            if len(part) < len(given) and completed.keys() == wanted.keys():
                others = f"{len(given) - len(part)} tensors of other names were left out"
                parts.setdefault(prefix, (completed, f"{note}; {others}"))
    # of a prefix and a longer one of the same tensors only the first is of interest
    prefixes = [prefix for prefix in parts if not any(prefix != p and prefix.startswith(p) for p in parts)]
    if len(prefixes) > 1:
        raise ValueError(
            f"the file has the network twice, under {' and '.join(map(repr, prefixes))}; write only the tensors of one"
        )
    return parts[prefixes[0]] if prefixes else (dict(best), best_note)


def list_prefixes(names: Collection[str], depth: int = 3) -> list[str]:
    """List the beginnings of names, one to some whole parts with their dot, each once."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")[:-1]
        found |= dict.fromkeys(
            "".join(f"{part}." for part in parts[:count]) for count in range(1, len(parts[:depth]) + 1)
        )
    return sorted(found)


def _list_renamings(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Iterator[tuple[dict[str, Tensor], str]]:
    """Yield the tensors under other names, those that are changed least first, and what was changed."""
    added_prefixes = _list_shared_prefixes(wanted)[1:]
    for prefix in _list_shared_prefixes(given):
        stripped = {name.removeprefix(prefix): tensor for name, tensor in given.items()}
        note = f"the prefix {prefix!r} of all names of weights was taken off" if prefix else ""
        yield stripped, note
        joined = f"{note}{'; ' if note else ''}"
        if any(name.startswith("body.") for name in wanted):
            for head in HEADS:
                yield {_add_body(name, head): tensor for name, tensor in stripped.items()}, f"{joined}{TORCHVISION}"
        for added in added_prefixes:
            named = {f"{added}{name}": tensor for name, tensor in stripped.items()}
            yield named, f"{joined}{added!r} was put before all names of weights"


def _list_shared_prefixes(names: Collection[str]) -> list[str]:
    """List the prefixes, whole parts of names with their dot, that all names begin with, the empty one first."""
    parts = next(iter(names), "").split(".")[:-1]
    prefixes = ["".join(f"{part}." for part in parts[:count]) for count in range(len(parts) + 1)]
    return [prefix for prefix in prefixes if all(name.startswith(prefix) for name in names)]


def _add_body(name: str, head: str) -> str:
    """Name a tensor of a network without a body as a Classifier does."""
    if name.startswith(f"{head}."):
        return f"head.{name.removeprefix(f'{head}.')}"
    for theirs, ours in BODIES.items():
        if name.startswith(theirs):
            return f"body.{ours}{name.removeprefix(theirs)}"
    return f"body.{name}"
