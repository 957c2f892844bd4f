"""An algorithm's parameters as a user writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints

import torch

from memscore.choices import pick
from memscore.pipeline.jobs import new_model
from memscore.store.store import Store
from unlearn.algorithms import Algorithm, algorithm
from unlearn.trials import ORACLE, config_of


def params_of(name: str, words: Sequence[str], architecture: str, whose: str = "") -> dict[str, Any]:
    """Parameters of an algorithm from words such as lr=0.05.

    Args:
        name: of the algorithm.
        words: one for each parameter.
        architecture: of the bank.
        whose: what the user wrote before each word, for messages.

    Returns:
        Name -> value of the field's type.

    Raises:
        ValueError: a word without "=", an unknown name, or a value that is none of its type or breaks its rule.
    """
    if name == ORACLE:
        raise ValueError(
            f"{ORACLE!r} is no algorithm but the retrained model that each is measured against, and its row is always "
            "printed; for a second one beside it, under a seed of its own, use retrain"
        )
    entry = algorithm(name)
    found: dict[str, str] = {}
    for word in words:
        field, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"--set {whose + word!r} must be NAME=VALUE, as {whose}lr=0.05")
        if field in found:
            raise ValueError(f"--set gives {whose}{field} twice, {found[field]} and {text}; give it once")
        found[field] = text
    values = {field: _value(entry, field, text, whose) for field, text in found.items()}
    if not words:
        return {}
    try:
        config_of(entry, values, architecture)
    except ValueError as error:
        raise ValueError(f"--set {' '.join(whose + word for word in words)}: {error}") from None
    return values


def refuse_unfit(store: Store, name: str, params: Mapping[str, Any]) -> None:
    """Stop where an algorithm cannot change networks of a bank's kind, before any is trained.

    Args:
        store: open; says architecture, images and classes.
        name: of the algorithm.
        params: of it, name -> value.

    Raises:
        ValueError: in the algorithm's words, as of CF-k with more layers than there are.
    """
    entry, manifest = algorithm(name), store.manifest
    if entry.fits:
        network = new_model(store, "untrained", 0, torch.device("cpu"))
        entry.fits(network, manifest.input_shape, config_of(entry, params, manifest.architecture))


def _value(entry: Algorithm, name: str, text: str, whose: str) -> Any:
    """Text as the type of a config's field."""
    hints = get_type_hints(entry.config)
    hints.pop("SPACE", None)
    kind = hints[pick(f"parameter of {entry.fn.__name__}", name, hints)]
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind in {int, float}:
            return kind(text)
        if get_origin(kind) is tuple:
            inner = get_args(kind)[0]
            return tuple(inner(part) for part in text.split(",") if part)
    except (ValueError, KeyError):
        default = next(field.default for field in fields(entry.config) if field.name == name)  # type: ignore[arg-type]
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "numbers with commas")
        raise ValueError(f"--set {whose}{name}={text}: {name} is {wanted}, as {default} is by default") from None
    return text
