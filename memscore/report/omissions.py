"""What a page cannot show: each thing with its reason and what to do, named on the page instead of an error."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from memscore.store.remote import StoreUnavailable
from memscore.visible_text import escape_controls

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Omission:
    """Something that a page does not show, such as a damaged file; the reason says what to do.

    `is_fault` tells what is damaged from what was not made yet.
    """

    what: str
    reason: str
    is_fault: bool = True


def read_or_omit(
    what: str, omissions: list[Omission], read: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T | None:
    """Call a reader; where a file is damaged, deleted or of another version, add an omission and return None.

    StoreUnavailable is raised: where nothing can be read there is no page.
    """
    try:
        return read(*args, **kwargs)
    except StoreUnavailable:
        raise
    except (OSError, ValueError) as error:
        omissions.append(Omission(what=what, reason=escape_controls(" ".join(str(error).split()))))
    except (LookupError, TypeError, AttributeError) as error:
        # the records of audits, comparisons and sweeps have entries that each version may add
        reason = f"its record is not as this version writes it ({type(error).__name__}: {error}); make it again"
        omissions.append(Omission(what=what, reason=reason))
    return None
