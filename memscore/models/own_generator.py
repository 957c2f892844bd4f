"""Random numbers of one thread from a generator of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class DrawFrom(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside this context, what this thread draws on the CPU comes from one generator, not from torch's global one.

    Other threads draw from the global generator meanwhile, and the numbers are those that it would give.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.generator = generator

    def __torch_dispatch__(  # type: ignore[override]
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Pass the generator to operations that draw."""
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags:
            # torch.randn and its like take a generator in an overload of their own; a few take none
            if "generator" not in {argument.name for argument in func._schema.arguments}:
                overload = "generator" if func._overloadname == "default" else f"{func._overloadname}_generator"
                if overload not in func.overloadpacket.overloads():
                    raise ValueError(f"{func} draws from torch's global generator alone, which other threads use")
                func = getattr(func.overloadpacket, overload)
            kwargs.setdefault("generator", self.generator)
        return func(*args, **kwargs)
