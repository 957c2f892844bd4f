"""Classes in the specification of a forget set, by number or name."""

from collections.abc import Callable, Sequence

from memscore.choices import find_nearest
from memscore.data.splits import Splits


def parse_classes(part: str, splits: Splits) -> list[int]:
    """Parse class numbers or names such as 3, cat or 0,1,3; unknown, repeated or all classes are an error."""
    whole = part in (splits.class_names or ())  # a name may hold a comma
    classes = [parse_class(one, splits) for one in ([part] if whole else part.split(","))]
    for number in classes:
        if classes.count(number) > 1:
            raise ValueError(f"class:{part} names class {number} more than once; name each class once")
    if len(classes) > 1 and len(classes) == splits.n_classes:
        raise ValueError(
            f"class:{part} names all {splits.n_classes} classes, and at least one must be retained; leave one out"
        )
    return classes


def number_classes(spec: str, splits: Splits) -> str:
    """Replace the class names of a specification by numbers, so that both ways of writing it draw one set."""
    kind, _, part = spec.partition(":")
    parsers: dict[str, Callable[[str, Splits], Sequence[int]]] = {
        "class": parse_classes,
        "partial-class": lambda part, splits: [parse_class(part, splits)],
        "confusion": parse_two_classes,
    }
    return f"{kind}:{','.join(map(str, parsers[kind](part, splits)))}" if kind in parsers else spec


def parse_class(part: str, splits: Splits) -> int:
    """Parse a class number or name; digits are always the number, even where a class is named by other digits."""
    if part.isdecimal() and int(part) < splits.n_classes:
        return int(part)
    if part in (names := splits.class_names or ()):
        return names.index(part)
    words = [name for name in names if not name.isdecimal()]
    hint = f"; did you mean {near!r}?" if (near := find_nearest(part, words)) else ""
    named = f", or their names such as {words[0]!r}" if words else ""
    raise ValueError(f"{part!r} is no class{hint} (classes are the numbers 0 to {splits.n_classes - 1}{named})")


def parse_two_classes(part: str, splits: Splits) -> tuple[int, int]:
    """Parse two different classes such as 0,1."""
    first, comma, second = part.partition(",")
    if not comma:
        raise ValueError(f"confusion:{part} needs two classes, as confusion:0,1")
    pair = parse_class(first, splits), parse_class(second, splits)
    if pair[0] == pair[1]:
        raise ValueError(f"confusion:{part} swaps a class with itself; name two different ones")
    return pair
