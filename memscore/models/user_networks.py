"""Build a network of the user's own, named "module:function": a class or a function, called by its signature.

The rule, for the names of the parameters that can be given by position or by name:

1. one named num_classes, n_classes, classes or n_class gets the number of classes, and one named input_shape, shape or
   image_shape gets (C, H, W); others keep their defaults;
2. where a parameter without a default has another name: two get (C, H, W) and the number of classes by position, a
   single one gets the number of classes;
3. without any such parameter, a function with **kwargs gets num_classes, as torchvision's take it, one with *args gets
   both by position, and any other is called with nothing.

Whichever rule it was, the network must map a batch of images to one logit for each class.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from memscore.user_functions import UserFunctionError, describe_user_place, explain_user_error, import_user_object

Shape = tuple[int, int, int]
KIND, MEANING = "architecture", "a class or function that gives an nn.Module"

CLASS_NAMES = ("num_classes", "n_classes", "classes", "n_class")
SHAPE_NAMES = ("input_shape", "shape", "image_shape")


def import_builder(arch: str) -> Callable[..., Any]:
    """Import the class or function that "module:function" names; ValueError if it cannot be imported or called."""
    builder = import_user_object(KIND, arch, MEANING)
    if isinstance(builder, nn.Module):
        raise ValueError(
            f"{KIND} {arch!r} is a network that exists already, and each model needs its own weights; name its class "
            f"or a function that builds it, such as {arch.partition(':')[0]}:{type(builder).__name__}"
        )
    if not callable(builder):
        raise ValueError(f"{KIND} {arch!r} must be {MEANING}, got {type(builder).__name__}")
    return builder  # type: ignore[no-any-return]


def choose_arguments(builder: Callable[..., Any], shape: Shape, n_classes: int) -> tuple[list[Any], dict[str, Any]]:
    """Choose what a user's class or function is called with, by the rule above.

    Args:
        builder: the class or function.
        shape: (C, H, W).
        n_classes: K.

    Returns:
        What is given by position, and what by name.

    Raises:
        ValueError: a parameter has no default, and nothing is known to give for it.

    >>> choose_arguments(lambda num_classes=1000: None, (3, 32, 32), 10)
    ([], {'num_classes': 10})
    """
    try:
        parameters = [*inspect.signature(builder).parameters.values()]
    except (TypeError, ValueError):  # of a class in C
        return [shape, n_classes], {}
    kinds = {parameter.kind for parameter in parameters}
    named = [p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    required = [
        p for p in parameters if p.default is p.empty and p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}
    ]
    by_name: dict[str, Any] = {}
    for names, value in ((SHAPE_NAMES, shape), (CLASS_NAMES, n_classes)):
        by_name |= {p.name: value for p in named if p.name in names and not by_name.keys() & set(names)}
    unnamed = [p.name for p in required if p.name not in by_name]
    if by_name and not unnamed:
        return [], by_name
    if len(required) == 2 and required[0].name not in CLASS_NAMES:
        return [shape, n_classes], {}
    if len(required) == 1:
        return [n_classes], {}
    if required:
        raise ValueError(f"nothing is known to give for {' and '.join(map(repr, unnamed))}; give these a default")
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return [], {"num_classes": n_classes}
    return ([shape, n_classes], {}) if inspect.Parameter.VAR_POSITIONAL in kinds else ([], {})


def build_user_network(arch: str, shape: Shape, n_classes: int) -> nn.Module:
    """Build a user's network; raise unless a zero batch gives [2, K]; layers keep their mode."""
    builder = import_builder(arch)
    try:
        arguments, by_name = choose_arguments(builder, shape, n_classes)
    except ValueError as error:
        raise ValueError(f"{KIND} {arch!r}: {error}, or name a function of (input_shape, n_classes)") from None
    written = ", ".join([*map(str, arguments), *(f"{name}={value}" for name, value in by_name.items())])
    call = f"{arch.partition(':')[2]}({written})"
    with explain_user_error(KIND, arch, remark=f"called as {call}", passing=(UserFunctionError,)):
        try:
            model = builder(*arguments, **by_name)
        except Exception as error:
            if getattr(error.__traceback__, "tb_next", None) is None:  # the call itself, no line of the user's
                raise UserFunctionError(
                    f"{KIND} {arch!r} cannot be called as {call}: {error}; it gets the shape as input_shape and the "
                    "number of classes as num_classes, or both by position"
                ) from error
            raise
    # a class has no place of its own, and what torch's own code does is no place of the user's
    place = describe_user_place(arch, builder)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{KIND} {arch!r} must return an nn.Module, got {type(model).__name__} of {call}" + (place and f", {place}")
        )
    # Evaluation mode keeps the zero batch out of batch norm's statistics. The modes come back module by module, because
    # a user may have set some layers to evaluation on purpose.
    training = {module: module.training for module in model.modules()}
    with explain_user_error(KIND, arch, remark=f"on a zero batch of {[2, *shape]}"), torch.no_grad():
        logits = model.eval()(torch.zeros(2, *shape))
    for module, mode in training.items():
        module.training = mode
    shape_or_type = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape_or_type != [2, n_classes]:
        place = describe_user_place(arch, type(model).forward, builder)
        advice = f", {place}" if place else ""
        if isinstance(logits, Tensor) and logits.ndim == 2:
            takes_classes = n_classes in (*arguments, *by_name.values())
            advice += f"; {call} does not give one logit for each class, " + (
                "use that number" if takes_classes else "let it take num_classes"
            )
        raise ValueError(
            f"{KIND} {arch!r} must map {[2, *shape]} to logits {[2, n_classes]}, got {shape_or_type}{advice}"
        )
    return model
