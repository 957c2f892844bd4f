"""An algorithm of the user's own, named module:function, in one of three forms.

    def forget(model, retain, forget): ...                       changes the copy `model` and returns it
    def forget(theta_o, retain, forget, config, rng): ...        the contract of the table's algorithms
    def forget(theta, retain, forget, config, rng): yield loss   one optimizer step on each loss

The first three arguments are the network, the retain set and the forget set, by position; `config`, `rng`, `validation`
and `step_callback` follow by name, as far as the function takes them. Without `rng` the sets are passes of batches
(unlearn.problem.BatchSampler, of config.batch or the bank's batch size); with it they are ExampleSets, whose batches
the function draws itself. A generator changes a copy too. What comes back is checked, since theta_o is used again.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from memscore.user_functions import UserFunctionError, explain_user_error, import_user_function
from unlearn.algorithms.entry import Algorithm
from unlearn.optimization.loop import TrainingDiverged, UnlearningLoop, UnlearningLoopConfig, copy_model
from unlearn.optimization.step_count import count_torch_steps
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Domain

KIND = "algorithm"
MEANING = "a function (model, retain, forget) that returns a network"
OPTIONAL = ("config", "rng", "validation", "step_callback")
"""What a function may take by name beyond its first three arguments."""
FIELD_TYPES = (int, float, bool, str)


@dataclass(frozen=True, kw_only=True)
class NoConfig:
    """The config of a function that takes none."""

    SPACE: ClassVar[dict[str, Domain]] = {}


def load_algorithm(name: str) -> Algorithm:
    """Import an algorithm of the user's own and check what can be known before it runs.

    Args:
        name: module:function.

    Returns:
        Its entry, as of an algorithm of the table.

    Raises:
        ValueError: it cannot be imported, its arguments are others, or its config or search space is none.
    """
    return _describe_algorithm(name, import_user_function(KIND, name, MEANING))


@cache
def _describe_algorithm(name: str, function: Callable[..., Any]) -> Algorithm:
    extra = _list_extra_arguments(name, function)
    config = _find_config(name, function, takes_config="config" in extra)
    steps = inspect.isgeneratorfunction(function)
    if steps and not issubclass(config, UnlearningLoopConfig):
        raise ValueError(
            f"{KIND} {name} yields losses, so its config must say how the steps are taken: give it a parameter "
            "config annotated with a dataclass that inherits from unlearn.optimization.loop.UnlearningLoopConfig"
        )

    def run(
        theta_o: nn.Module,
        retain: ExampleSet,
        forget: ExampleSet,
        config: Any,
        rng: np.random.Generator,
        validation: ExampleSet | None = None,
        step_callback: Any = None,
    ) -> nn.Module:
        return run_user_algorithm(
            name,
            function,
            extra,
            theta_o,
            {"retain": retain, "forget": forget, "validation": validation},
            {"config": config, "rng": rng, "step_callback": step_callback},
        )

    run.__name__ = name
    return Algorithm(
        fn=run,
        config=config,
        summary=(inspect.getdoc(function) or "the user's own").partition("\n")[0],
        paper="the user's own",
        reads_validation="validation" in extra,
        random_labels=bool(getattr(function, "random_labels", False)),
    )


def _list_extra_arguments(name: str, function: Callable[..., Any]) -> tuple[str, ...]:
    """List the arguments of a function beyond the first three; ValueError if they are others than OPTIONAL."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ValueError(f"{KIND} {name} has no signature that can be read; wrap it: {MEANING}") from None
    first, extra = parameters[:3], parameters[3:]
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    unknown = [p.name for p in extra if p.name not in OPTIONAL and p.default is inspect.Parameter.empty]
    if len(first) < 3 or any(p.kind not in by_position for p in first) or unknown:
        raise ValueError(
            f"{KIND} {name} takes ({', '.join(p.name for p in parameters)}); it must take the network, the retain set "
            f"and the forget set, and may take {', '.join(OPTIONAL)} by these names"
        )
    return tuple(p.name for p in extra if p.name in OPTIONAL)


def _find_config(name: str, function: Callable[..., Any], *, takes_config: bool) -> Any:
    """Return the config of a function: the annotation of its parameter or its attribute `Config`; ValueError if bad."""
    if not takes_config:
        return NoConfig
    try:
        config = getattr(function, "Config", None) or get_type_hints(function).get("config")
    except Exception as error:  # of names that are looked up, not of a function that is called
        raise ValueError(f"{KIND} {name}: its annotations cannot be read: {error}") from error
    if not (isinstance(config, type) and is_dataclass(config)):
        raise ValueError(
            f"{KIND} {name} takes config, and nothing says what it is; annotate it with a frozen dataclass, as config: "
            f"{name.partition(':')[2].title().replace('_', '')}Config"
        )
    hints = get_type_hints(config)
    for option in fields(config):
        if option.default is MISSING and option.default_factory is MISSING and option.name != "architecture":
            raise ValueError(f"{KIND} {name}: {option.name} of {config.__name__} has no default; give it one")
        if not _can_be_set(hints[option.name]):
            raise ValueError(
                f"{KIND} {name}: {option.name} of {config.__name__} must be int, float, bool, str, Literal or a tuple "
                f"of them, which --set can read, got {hints[option.name]}"
            )
    space: Any = getattr(config, "SPACE", {})
    names = {option.name for option in fields(config)}
    if not isinstance(space, Mapping) or not space.keys() <= names:
        raise ValueError(
            f"{KIND} {name}: SPACE of {config.__name__} must be a dict of its fields ({', '.join(sorted(names))}), got "
            f"{sorted(space) if isinstance(space, Mapping) else type(space).__name__}"
        )
    for field, domain in space.items():
        if not isinstance(domain, Domain):
            raise ValueError(
                f"{KIND} {name}: SPACE[{field!r}] must be a LogUniform, Uniform, Integer or Choice of "
                f"unlearn.search_space, got {domain!r:.60}"
            )
    return config


def _can_be_set(field_type: Any) -> bool:
    # None: a number that follows from the data
    if get_origin(field_type) in {Union, UnionType}:
        return all(part is type(None) or _can_be_set(part) for part in get_args(field_type))
    if get_origin(field_type) is tuple:
        return all(_can_be_set(part) for part in get_args(field_type) if part is not Ellipsis)
    return field_type in FIELD_TYPES or (
        get_origin(field_type) is Literal and all(isinstance(value, str) for value in get_args(field_type))
    )


def run_user_algorithm(
    name: str,
    function: Callable[..., Any],
    extra: tuple[str, ...],
    theta_o: nn.Module,
    sets: Mapping[str, ExampleSet | None],
    options: Mapping[str, Any],
) -> nn.Module:
    """Run an algorithm of the user's own, and check that it kept its contract.

    Args:
        name: module:function.
        function: what it names.
        extra: which of OPTIONAL it takes.
        theta_o: the original, which the function never gets itself: only a copy.
        sets: the retain, forget and validation sets.
        options: config, rng and step_callback.

    Returns:
        theta_u, in evaluation mode, on theta_o's device.

    Raises:
        UserAlgorithmError: it fails, with its own line; it changed theta_o, or returned no network like theta_o.
        TrainingDiverged: a loss or weight is not finite.
    """
    rng, config = options["rng"], options["config"]
    theta = copy_model(theta_o)
    arguments: dict[str, Any] = dict(sets)
    draws_itself = "rng" in extra
    if not draws_itself:
        # In the order of the names, so that a set that is not read does not change the batches of the others.
        arguments = {
            key: part and BatchSampler(part, getattr(config, "batch", part.recipe.batch), stream)
            for (key, part), stream in zip(sets.items(), rng.spawn(len(sets)), strict=True)
        }
    more = {key: (arguments | dict(options))[key] for key in extra}
    steps = inspect.isgeneratorfunction(function)
    may_change = steps or not draws_itself
    # Training mode where the function changes the copy, as torch users expect; theta_o is in evaluation mode.
    theta.train(may_change)
    with explain_user_error(KIND, name, error_type=UserAlgorithmError, passing=(TrainingDiverged, UserAlgorithmError)):
        # The losses of a generator are counted by the loop, which runs after this.
        with count_torch_steps():
            result = function(theta, arguments["retain"], arguments["forget"], **more)
        if steps:
            loop = UnlearningLoop(theta, config, step_callback=options["step_callback"])
            result = loop.run(_check_losses(name, result))
    if not may_change and _find_difference(theta, theta_o, values=True):
        raise UserAlgorithmError(
            f"{KIND} {name} changed theta_o ({_find_difference(theta, theta_o, values=True)}), which is needed again; "
            "start with theta = copy.deepcopy(theta_o)"
        )
    if not isinstance(result, nn.Module):
        raise UserAlgorithmError(
            f"{KIND} {name} must return the unlearned network, got {type(result).__name__}; end it with `return model`"
        )
    if difference := _find_difference(result, theta_o):
        raise UserAlgorithmError(f"{KIND} {name} must return a network like theta_o, and {difference}")
    result.zero_grad(set_to_none=True)
    trainable = {key: parameter.requires_grad for key, parameter in theta_o.named_parameters()}
    for key, parameter in result.named_parameters():
        parameter.requires_grad_(trainable[key])
    return result.eval()


class UserAlgorithmError(UserFunctionError):
    """A user's algorithm failed, or broke its contract; the message is for the user."""


def _check_losses(name: str, losses: Any) -> Any:
    """Yield what a generator yields; UserAlgorithmError for what is no loss."""
    for loss in losses:
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            kind = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise UserAlgorithmError(
                f"{KIND} {name} must yield losses, scalar tensors that depend on the network's weights, got {kind}"
            )
        yield loss


def _find_difference(theta: nn.Module, theta_o: nn.Module, *, values: bool = False) -> str:
    """Describe the first difference of two networks' tensors in name, shape or type, or in value; empty if none."""
    ours, theirs = theta.state_dict(), theta_o.state_dict()
    if missing := sorted(theirs.keys() - ours.keys()):
        return f"it lacks {missing[0]}"
    if added := sorted(ours.keys() - theirs.keys()):
        return f"it has {added[0]}, which theta_o has not"
    for key, tensor in theirs.items():
        got = ours[key]
        if (got.shape, got.dtype, got.device) != (tensor.shape, tensor.dtype, tensor.device):
            kinds = [f"{value.dtype} {list(value.shape)} on {value.device}" for value in (got, tensor)]
            return f"its {key} is {kinds[0]}, not {kinds[1]}"
        if values and not torch.equal(got, tensor):
            return f"its {key} is another"
    return ""
