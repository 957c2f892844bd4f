"""Configuration of a trial, the keys of its row and model, and an algorithm's parameters as a user writes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch

from memscore.choices import validate_choice
from memscore.pipeline.jobs import build_model, read_recipe
from memscore.store.json_records import hash_record, omit_new_defaults
from memscore.store.store import Store
from memscore.training.recipes import Recipe
from memscore.user_functions import hash_user_sources, require_same_source
from unlearn.algorithms import get_algorithm
from unlearn.algorithms.entry import Algorithm
from unlearn.meta.rsu import RsuSchedule
from unlearn.optimization.steps import get_paper_values, resolve_steps

ORACLE = "oracle"
"""In place of an algorithm's name: the row of theta_r itself."""
ORIGINAL = "original"
"""The algorithm that does nothing."""
ROW_VERSION = 2
"""Version of the rows; another number makes all trials run again, as new columns of stored rows require."""

Row = dict[str, Any]


Params = tuple[tuple[str, Any], ...]
"""(name, value) of the fields of a config that differ from its defaults, sorted by name."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a sequence.

    Attributes:
        algorithm: a name of ALGORITHMS, or module:function; "original" does nothing.
        params: parameters of its config.
        rows: the rows of the training set that it forgets, ascending.
    """

    algorithm: str
    params: Params = ()
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Configure one trial: an algorithm on a forget set, at the end of a sequence or alone.

    Attributes:
        store: path or URL.
        algorithm: a name of ALGORITHMS, module:function, or "oracle".
        params: (name, value) of the config's fields that differ from the defaults.
        forget_set: name of the forget set, as the user wrote it.
        forget: rows of the training set, ascending.
        by_class: whether the forget set consists of whole classes.
        index: of the original, and of its oracle.
        seed: of the algorithm's random streams; the same for trials that are compared.
        measures: names of MEASURES or module:function, beyond the core ones.
        core: whether the core measures are computed; a search that reads one column does not need them.
        device: "cpu" or "cuda".
        before: the earlier steps of a sequence whose last step is the algorithm; `forget` is the union of all parts.
        part: rows that the algorithm forgets at the end of a sequence; () for all of `forget`.
        rounds: RSU schedule by which the algorithm is repeated over growing parts; None to run it once over all.
        times: by which the epochs of the algorithm, given or not, are multiplied.
        judged: rows on which forgetting is measured, if they are not all of `forget`.
        save_model: whether theta_u and its predictions for every example are stored; not part of the row's key.
        save_predictions: whether the predictions of theta_u for every example are stored; not part of the row's key.
        save_checkpoints: whether the models after earlier steps are stored, so that other trials resume from them.
        variant: name of the partition of the forget set and its order, in tables; not part of the row's key.
        sources: (name, SHA-256) of the user's own algorithms and measures, where the trial was made: a worker checks
            that it imports the same.
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
    times: int = 1
    judged: tuple[int, ...] = ()
    save_model: bool = False
    save_predictions: bool = False
    save_checkpoints: bool = False
    variant: str = "vanilla"
    sources: tuple[tuple[str, str], ...] = field(init=False)

    def __post_init__(self) -> None:
        sources = hash_user_sources([*(step.algorithm for step in self.steps), *self.measures])
        object.__setattr__(self, "sources", tuple(sorted(sources.items())))

    @property
    def steps(self) -> tuple[Step, ...]:
        """The whole sequence of steps."""
        return (*self.before, Step(algorithm=self.algorithm, params=self.params, rows=self.part or self.forget))

    def truncate(self, number: int) -> "TrialConfig":
        """Return the first `number` steps of the sequence as a trial of its own."""
        # A whole sequence keeps its rounds and judged rows; a prefix is judged on all that it has forgotten.
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
            # () where the step forgets everything: so a prefix of one step has the key of the plain trial.
            part=() if last.rows == forgotten else last.rows,
            rounds=None,
            times=1,
            judged=(),
        )


def build_algorithm_config(entry: Algorithm, params: Mapping[str, Any], architecture: str) -> Any:
    """Build an algorithm's config with these fields set; ValueError for an unknown name or a value out of range."""
    field_types = {field.name: field.type for field in fields(entry.config)}  # type: ignore[arg-type]
    arguments = {
        validate_choice(f"parameter of {entry.fn.__name__}", name, field_types): value for name, value in params.items()
    }
    if "architecture" in field_types:
        # Some algorithms build a network themselves, which must look like theta_o.
        arguments.setdefault("architecture", architecture)
    return entry.config(**arguments)


def resolve_configs(
    trial: TrialConfig, architecture: str, n_train: int, recipe: Recipe, *, split: bool = False
) -> list[Any]:
    """Build the config of each step, with numbers for its own part and for what is retained beside it.

    With `split` the last one is that of a round of RSU, if its schedule divides the epochs; the batch of a round is
    that of the whole part. Raises ValueError for an unknown parameter, or a value out of range.
    """
    rounds = trial.rounds.n if split and trial.rounds and trial.rounds.epochs == "split" else 1
    forgotten: set[int] = set()
    configs = []
    for number, step in enumerate(trial.steps, start=1):
        # What earlier parts forgot is in no later retain set, and parts may repeat an example.
        forgotten.update(step.rows)
        config = build_algorithm_config(get_algorithm(step.algorithm), dict(step.params), architecture)
        is_last = number == len(trial.steps)
        n_rounds, times = (rounds, trial.times) if is_last else (1, 1)
        configs.append(resolve_steps(config, n_train - len(forgotten), len(step.rows), recipe, n_rounds, times))
    return configs


def resolve_in_store(store: Store, trial: TrialConfig, *, split: bool = False) -> list[Any]:
    """Build the config of each step of a trial with numbers, as resolve_configs does, for the bank of a store."""
    manifest = store.manifest
    return resolve_configs(trial, manifest.architecture, manifest.split_sizes[0], read_recipe(store), split=split)


def list_config_records(store: Store, trial: TrialConfig) -> list[dict[str, Any]]:
    """List the config of each step as the record that is hashed: with numbers, without defaults of later versions."""
    return [omit_new_defaults(config) for config in resolve_in_store(store, trial)]


def trial_key(store: Store, trial: TrialConfig) -> str:
    """Hash everything that decides a row: data, recipe, forget set, algorithm and config."""
    record = model_identity(store, trial) | {"core": trial.core, "measures": sorted(trial.measures)}
    if sources := {name: digest for name, digest in trial.sources if name in trial.measures}:
        record["measure_sources"] = sources
    if trial.judged:
        record["judged"] = trial.judged
    return hash_record(record)


def model_key(store: Store, trial: TrialConfig) -> str:
    """Hash everything that decides theta_u, whatever is measured of it; 64 hex digits."""
    return hash_record(model_identity(store, trial) | {"theta": True})


def model_identity(store: Store, trial: TrialConfig) -> dict[str, Any]:
    """Return the record of everything that decides theta_u."""
    record: dict[str, Any] = {
        "version": ROW_VERSION,
        "manifest": store.manifest.digest,
        **{name: getattr(trial, name) for name in ("algorithm", "forget", "index", "seed")},
    }
    if trial.algorithm != ORACLE:
        *before, record["config"] = list_config_records(store, trial)
        # Left out where they say nothing, so that a trial without a sequence or rounds keeps its key.
        if trial.before:
            record["part"] = trial.part
            record["before"] = [
                {"algorithm": s.algorithm, "config": config, "rows": s.rows}
                for s, config in zip(trial.before, before, strict=True)
            ]
    if trial.rounds:
        record["rounds"] = omit_new_defaults(trial.rounds)
    # The algorithms' own sources, so that an edited function runs again.
    algorithms = {step.algorithm for step in trial.steps}
    if sources := {name: digest for name, digest in trial.sources if name in algorithms}:
        record["sources"] = sources
    return record


def require_same_sources(trial: TrialConfig) -> None:
    """Raise ValueError in a worker that imports another source of a user's function than the command did."""
    for name, digest in trial.sources:
        require_same_source("the function", name, digest, "this command, which was started before it was edited")


def describe_trial(store: Store, trial: TrialConfig) -> Row:
    """Return the columns of a row that describe its trial."""
    config, beyond_purpose, before = dict[str, Any](), False, list[dict[str, Any]]()
    if trial.algorithm != ORACLE:
        # Numbers, not None: a reader of the row sees what ran.
        *earlier, config = list_config_records(store, trial)
        before = [
            {"algorithm": s.algorithm, "config": record, "n_forget": len(s.rows)}
            for s, record in zip(trial.before, earlier, strict=True)
        ]
        # Algorithms for whole classes also run on other sets; their rows say so.
        beyond_purpose = any(
            get_algorithm(s.algorithm).granularity == "class" and not trial.by_class for s in trial.steps
        )
    return {
        "algorithm": trial.algorithm,
        "variant": trial.variant,
        "config": json.dumps(config, sort_keys=True),
        "before": json.dumps(before, sort_keys=True),
        "rounds": json.dumps(asdict(trial.rounds), sort_keys=True) if trial.rounds else "null",
        "plan": format_plan(">".join(step.algorithm for step in trial.steps)),
        "forget_set": trial.forget_set,
        "n_forget": len(trial.judged or trial.forget),
        "forget_sha256": hash_record({"rows": trial.forget}),
        "index": trial.index,
        "seed": trial.seed,
        "beyond_its_purpose": beyond_purpose,
        # Only where there are some: the columns of other rows are as they were.
        **({"sources": json.dumps(dict(trial.sources), sort_keys=True)} if trial.sources else {}),
    }


def format_plan(name: str) -> str:
    """Format the name of a method as --plans takes it: the part of a plan to which nothing is done is "nothing".

    >>> format_plan("original>finetune>salun"), format_plan("original")
    ('nothing>finetune>salun', 'original')
    """
    return ">".join("nothing" if part == ORIGINAL else part for part in name.split(">")) if ">" in name else name


def name_steps(trial: TrialConfig) -> str:
    """Name the algorithms of a trial in turn, as format_plan names a method; also of a step of a plan alone."""
    is_of_plan = bool(trial.before or trial.part)
    return ">".join("nothing" if is_of_plan and step.algorithm == ORIGINAL else step.algorithm for step in trial.steps)


def parse_params(name: str, settings: Sequence[str], architecture: str, prefix: str = "") -> dict[str, Any]:
    """Parse an algorithm's parameters from settings such as lr=0.05, each to its field's type.

    `prefix` is what the user wrote before each setting, for messages. Raises ValueError for a setting without "=", an
    unknown name, or a value of another type or out of its range.
    """
    if name == ORACLE:
        raise ValueError(
            f"{ORACLE!r} is not an algorithm but the retrained model that each is measured against, and its row is "
            "always printed; for a second retrained model with another seed, use retrain"
        )
    entry = get_algorithm(name)
    texts: dict[str, str] = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {prefix + setting!r} must be NAME=VALUE, as {prefix}lr=0.05")
        if field in texts:
            raise ValueError(f"--set gives {prefix}{field} twice, {texts[field]} and {text}; give it once")
        texts[field] = text
    values = {field: _parse_value(entry, field, text, prefix) for field, text in texts.items()}
    if not settings:
        return {}
    try:
        build_algorithm_config(entry, values, architecture)
    except ValueError as error:
        raise ValueError(f"--set {' '.join(prefix + setting for setting in settings)}: {error}") from None
    return values


def get_paper_params(name: str, *, tuned: bool) -> dict[str, Any]:
    """Get the paper's numbers for the parameters that otherwise follow from the data; not those that are searched."""
    if name == ORACLE:
        return {}
    config = get_algorithm(name).config
    space = getattr(config, "SPACE", {}) if tuned else {}
    return {field: value for field, value in get_paper_values(config).items() if field not in space}


def check_applicable(store: Store, name: str, params: Mapping[str, Any]) -> None:
    """Check that an algorithm can change networks of a bank's architecture, before any is trained.

    Raises the algorithm's own ValueError, as for CF-k with more layers than the network has.
    """
    entry, manifest = get_algorithm(name), store.manifest
    if entry.check_fit:
        network = build_model(store, "untrained", 0, torch.device("cpu"))
        entry.check_fit(network, manifest.input_shape, build_algorithm_config(entry, params, manifest.architecture))


def _parse_value(entry: Algorithm, name: str, text: str, prefix: str) -> Any:
    """Convert text to the type of a config's field."""
    # The type of the field decides how the text is read; class variables such as SPACE are no parameters.
    hints = get_type_hints(entry.config)
    known = [field.name for field in fields(entry.config)]  # type: ignore[arg-type]
    field_type = strip_none(hints[validate_choice(f"parameter of {entry.fn.__name__}", name, known)])
    try:
        if field_type is bool:
            return {"true": True, "false": False}[text.lower()]
        if field_type in {int, float}:
            return field_type(text)
        if get_origin(field_type) is tuple:
            inner = get_args(field_type)[0]
            return tuple(inner(part) for part in text.split(",") if part)
    except (ValueError, KeyError):
        default = next(field.default for field in fields(entry.config) if field.name == name)  # type: ignore[arg-type]
        expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(
            field_type, "numbers with commas"
        )
        shown = f", as {default} is by default" if default is not None else ""
        raise ValueError(f"--set {prefix}{name}={text}: {name} is {expected}{shown}") from None
    return text


def strip_none(field_type: Any) -> Any:
    """Return T for T | None, which a number that follows from the data may be, and any other type as it is."""
    inner = [each for each in get_args(field_type) if each is not type(None)]
    return inner[0] if get_origin(field_type) in {Union, UnionType} and len(inner) == 1 else field_type
