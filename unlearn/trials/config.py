"""What a trial is, and what its row is called.

An algorithm's parameters as a user writes them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args, get_origin, get_type_hints

import torch

from memscore.choices import validate_choice
from memscore.pipeline.jobs import build_model
from memscore.store.json_records import hash_record
from memscore.store.store import Store
from unlearn.algorithms import Algorithm, get_algorithm
from unlearn.meta.rsu import RsuSchedule

ORACLE = "oracle"
"""Stands where an algorithm's name does, for the row of theta_r itself."""
ROW_VERSION = 1
"""Of rows; another number makes all trials run again."""

Row = dict[str, Any]


Params = tuple[tuple[str, Any], ...]
"""(name, value) of the fields of a config that differ from its defaults, by name."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a sequence.

    Attributes:
        algorithm: a name of ALGORITHMS; "original" is to do nothing.
        params: of its config.
        rows: of the training set, what it forgets; rising.
    """

    algorithm: str
    params: Params = ()
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One trial: an algorithm on a forget set, at the end of a sequence or alone.

    Attributes:
        store: path or URL.
        algorithm: a name of ALGORITHMS, or "oracle".
        params: (name, value) of the config's fields that differ from the defaults.
        forget_set: what the user calls it.
        forget: rows of the training set, rising.
        by_class: whether it is whole classes.
        index: of the original, and of its oracle.
        seed: of the algorithm's own chance; the same for trials that are compared.
        measures: names of MEASURES, beyond the core ones.
        core: whether the core measures are taken; a search that reads one column has no use for them.
        device: "cpu" or "cuda".
        before: steps of a sequence that the algorithm ends; `forget` is the union of all of its parts.
        part: rows that the algorithm forgets at the end of a sequence; () for all of `forget`.
        rounds: of RSU, by which the algorithm is repeated over growing parts; None for once over all.
        judged: rows whose forgetting is measured, where they are not all of `forget`.
        keep: whether theta_u and what it says of every example are kept; no part of the row's name.
        keep_before: whether the thetas of earlier steps are kept, so that other trials go on from there.
        variant: what a table calls the way in which the forget set is cut and ordered; no part of the row's name.
    """

    store: str
    algorithm: str
    params: Params = ()
    forget_set: str
    forget: tuple[int, ...]
    by_class: bool = False
    index: int = 0
    seed: int = 0
    measures: tuple[str, ...] = ()
    core: bool = True
    device: str = "cpu"
    before: tuple[Step, ...] = ()
    part: tuple[int, ...] = ()
    rounds: RsuSchedule | None = None
    judged: tuple[int, ...] = ()
    keep: bool = False
    keep_before: bool = False
    variant: str = "vanilla"

    @property
    def steps(self) -> tuple[Step, ...]:
        """The whole sequence."""
        return (*self.before, Step(algorithm=self.algorithm, params=self.params, rows=self.part or self.forget))

    def until(self, number: int) -> "TrialConfig":
        """The sequence up to its step of that number, counted from 1, as a trial of its own."""
        if number == len(self.steps):
            return self
        *before, last = self.steps[:number]
        forgotten = tuple(sorted({row for step in self.steps[:number] for row in step.rows}))
        return replace(
            self,
            algorithm=last.algorithm,
            params=last.params,
            forget=forgotten,
            before=tuple(before),
            part=() if last.rows == forgotten else last.rows,
            rounds=None,
            judged=(),
        )


def build_algorithm_config(entry: Algorithm, params: Mapping[str, Any], architecture: str) -> Any:
    """An algorithm's config with these fields set.

    Args:
        entry: of the table.
        params: name -> value.
        architecture: of theta_o, for algorithms that build a network of their own.

    Returns:
        The config.

    Raises:
        ValueError: an unknown name, which offers the nearest one, or a value that breaks a rule.
    """
    kinds = {field.name: field.type for field in fields(entry.config)}  # type: ignore[arg-type]
    given = {validate_choice(f"parameter of {entry.fn.__name__}", name, kinds): value for name, value in params.items()}
    if "architecture" in kinds:
        given.setdefault("architecture", architecture)
    return entry.config(**given)


def trial_key(store: Store, trial: TrialConfig) -> str:
    """64 hex digits over all that decides a row: data, recipe, original, forget set, algorithm and its config."""
    known = model_identity(store, trial) | {"core": trial.core, "measures": sorted(trial.measures)}
    if trial.judged:
        known["judged"] = trial.judged
    return hash_record(known)


def model_key(store: Store, trial: TrialConfig) -> str:
    """64 hex digits over all that decides theta_u, whatever is measured of it."""
    return hash_record(model_identity(store, trial) | {"theta": True})


def model_identity(store: Store, trial: TrialConfig) -> dict[str, Any]:
    """What theta_u is a function of."""
    known: dict[str, Any] = {
        "version": ROW_VERSION,
        "manifest": store.manifest.digest,
        **{name: getattr(trial, name) for name in ("algorithm", "forget", "index", "seed")},
    }
    if trial.algorithm != ORACLE:
        known["config"] = resolve_config(store, trial.algorithm, trial.params)
    if trial.before:
        known["part"] = trial.part
        known["before"] = [
            {"algorithm": s.algorithm, "config": resolve_config(store, s.algorithm, s.params), "rows": s.rows}
            for s in trial.before
        ]
    if trial.rounds:
        known["rounds"] = asdict(trial.rounds)
    return known


def resolve_config(store: Store, name: str, params: Params) -> dict[str, Any]:
    """Every field of an algorithm's config."""
    config: dict[str, Any] = asdict(
        build_algorithm_config(get_algorithm(name), dict(params), store.manifest.architecture)
    )
    return config


def describe_trial(store: Store, trial: TrialConfig) -> Row:
    """What a row says of its trial."""
    last, stray = {}, False
    if trial.algorithm != ORACLE:
        last = resolve_config(store, trial.algorithm, trial.params)
        stray = any(get_algorithm(s.algorithm).granularity == "class" and not trial.by_class for s in trial.steps)
    before = [
        {"algorithm": s.algorithm, "config": resolve_config(store, s.algorithm, s.params), "n_forget": len(s.rows)}
        for s in trial.before
    ]
    return {
        "algorithm": trial.algorithm,
        "variant": trial.variant,
        "config": json.dumps(last, sort_keys=True),
        "before": json.dumps(before, sort_keys=True),
        "rounds": json.dumps(asdict(trial.rounds), sort_keys=True) if trial.rounds else "null",
        "plan": format_plan(trial),
        "forget_set": trial.forget_set,
        "n_forget": len(trial.judged or trial.forget),
        "forget_sha256": hash_record({"rows": trial.forget}),
        "index": trial.index,
        "seed": trial.seed,
        "beyond_its_purpose": stray,
    }


def format_plan(trial: TrialConfig) -> str:
    """The algorithms of a sequence in their order, as a user writes them: original>finetune>salun."""
    return ">".join(step.algorithm for step in trial.steps)


def parse_params(name: str, words: Sequence[str], architecture: str, whose: str = "") -> dict[str, Any]:
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
    entry = get_algorithm(name)
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
        build_algorithm_config(entry, values, architecture)
    except ValueError as error:
        raise ValueError(f"--set {' '.join(whose + word for word in words)}: {error}") from None
    return values


def check_applicable(store: Store, name: str, params: Mapping[str, Any]) -> None:
    """Stop where an algorithm cannot change networks of a bank's kind, before any is trained.

    Args:
        store: open; says architecture, images and classes.
        name: of the algorithm.
        params: of it, name -> value.

    Raises:
        ValueError: in the algorithm's words, as of CF-k with more layers than there are.
    """
    entry, manifest = get_algorithm(name), store.manifest
    if entry.check_fit:
        network = build_model(store, "untrained", 0, torch.device("cpu"))
        entry.check_fit(network, manifest.input_shape, build_algorithm_config(entry, params, manifest.architecture))


def _value(entry: Algorithm, name: str, text: str, whose: str) -> Any:
    """Text as the type of a config's field."""
    hints = get_type_hints(entry.config)
    hints.pop("SPACE", None)
    kind = hints[validate_choice(f"parameter of {entry.fn.__name__}", name, hints)]
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
