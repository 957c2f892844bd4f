"""Render a page: one HTML file with its data, style and scripts, that asks no other file or server for anything."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

PAGE_FOLDER = Path(__file__).parent / "page"
SCRIPTS = (
    *("data.js", "format.js", "filters.js", "plot.js", "histograms.js", "scatter.js", "list.js", "example.js"),
    *("compare.js", "attacks.js", "proxies.js", "unlearning.js", "export.js", "main.js"),
)
"""In the order in which the page runs them: the last one starts it."""
TYPES = {"float32": "f4", "uint8": "u1", "bool": "bool", "uint16": "u2", "int32": "i4"}
"""Types of values in a page, by NumPy's name."""
MOST_EXAMPLES = 2**21
"""The page sorts an example's value and place as one number of 53 bits, which leaves 21 for the place."""
ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page after its explorer.

    Attributes:
        id: anchor; figures of the sections attacks, proxies, unlearning and audits are placed in them by the page.
        title: heading.
        html: what it shows.
    """

    id: str
    title: str
    html: Markup


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """What a page shows.

    Attributes:
        title: heading of the page.
        meta: all that its scripts read but columns and images; columns are described in meta["columns"].
        columns: by id: one value an example, a matrix [n, bins], or a list of text.
        sprites: PNG files by id, of many small images each.
        head: what stands above the explorer.
        sections: what stands below it.
    """

    title: str
    meta: Mapping[str, Any]
    columns: Mapping[str, np.ndarray | Sequence[str]]
    sprites: Mapping[str, bytes]
    head: Markup
    sections: Sequence[Section]


@cache
def load_environment() -> jinja2.Environment:
    """Load the templates; every value is escaped that is not marked as HTML, and an unknown one is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_part(template: str, **values: Any) -> Markup:
    """Render one template of the page's folder; text among the values is escaped."""
    return Markup(load_environment().get_template(template).render(**values))


def render_page(page: Page) -> str:
    """Render the page as one file.

    Args:
        page: its content.

    Returns:
        HTML. Scripts and style are allowed by their hashes, so that no text of a data set can run, and the page may
        not connect to anything.

    Raises:
        ValueError: a column of an unknown type or length, or more examples than a page can sort.
    """
    n = page.meta["n"]
    if n > MOST_EXAMPLES:
        raise ValueError(f"a page shows at most {MOST_EXAMPLES:,} examples, got {n:,}; show a part of them")
    # read before the policy is made: it names the hashes of exactly these texts
    style = read_asset("report.css")
    scripts = [read_asset(name) for name in SCRIPTS]
    policy = "; ".join((
        "default-src 'none'",
        "img-src data: blob: file: 'self'",  # images beside the page; pages from disk have no origin of their own
        f"style-src {hash_asset(style)}",
        f"script-src {' '.join(hash_asset(script) for script in scripts)}",
        "base-uri 'none'",
        "form-action 'none'",
    ))
    return (
        load_environment()
        .get_template("page.html")
        .render(
            title=page.title,
            subtitle=page.meta.get("subtitle", ""),
            image_about=page.meta.get("image_about", ""),
            policy=Markup(policy),
            style=style,
            scripts=scripts,
            head=page.head,
            sections=page.sections,
            meta=dump_json(page.meta),
            columns=[encode_column(name, values, n) for name, values in page.columns.items()],
            sprites={name: base64.b64encode(png).decode() for name, png in page.sprites.items()},
        )
    )


def read_asset(name: str) -> Markup:
    """Read a script or style sheet of the page, which stands in it as it is."""
    return Markup((PAGE_FOLDER / name).read_text(encoding="utf-8"))


def hash_asset(text: str) -> str:
    """Return the source expression by which a policy allows this script or style and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def dump_json(value: Any) -> Markup:
    r"""Write JSON that can stand in a page: no character of it ends a script or begins a tag; NaN is null.

    Args:
        value: of Python's and NumPy's types.

    Returns:
        The text, which needs no further escaping.

    >>> dump_json({"id": "</script>", "value": float("nan")})
    Markup('{"id":"\\u003c/script\\u003e","value":null}')
    """
    # characters beyond ASCII are escaped too: a lone surrogate in an id could not be written as UTF-8
    text = json.dumps(replace_missing(value), allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(ESCAPED))


def replace_missing(value: Any) -> Any:
    """Replace every number that JSON does not have by None, and NumPy's values by Python's."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):  # JSON has neither NaN nor infinity
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): replace_missing(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [replace_missing(each) for each in value]
    return value


def encode_column(name: str, values: np.ndarray | Sequence[str], n: int) -> dict[str, str | Markup]:
    """Encode a column: little-endian values in base64, or text as JSON."""
    if not isinstance(values, np.ndarray):
        if len(values) != n:
            raise ValueError(f"column {name!r} has {len(values)} values for {n} examples")
        return {"id": name, "type": "str", "mime": "application/json", "text": dump_json(list(values))}
    if values.dtype.name not in TYPES:
        raise ValueError(f"column {name!r} is {values.dtype}; a page has {', '.join(TYPES)}")
    if values.shape[:1] != (n,):
        raise ValueError(f"column {name!r} has the shape {values.shape} for {n} examples")
    # a matrix row after row, whatever its order in memory; browsers run on little-endian machines
    content = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
    mime = "application/octet-stream;base64"
    return {"id": name, "type": TYPES[values.dtype.name], "mime": mime, "text": base64.b64encode(content).decode()}
