"""A page as a file: what is escaped, what is refused, and what its policy allows."""

import base64
import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from markupsafe import Markup

from memscore.report.render import MOST_EXAMPLES, SCRIPTS, Section, read_asset, render_page, render_part
from tests.memscore.report.synthetic_page import HOSTILE_IDS, make_page


@pytest.fixture(scope="module")
def page():
    return make_page(40, 3)


def find_blocks(html, attribute):
    """(attributes, text) of the scripts that have an attribute."""
    blocks = re.findall(r"<script([^>]*)>(.*?)</script>", html, re.DOTALL)
    return [(head, text) for head, text in blocks if f"{attribute}=" in head]


def test_columns_are_read_back_as_they_were(page):
    html = render_page(page)
    blocks = {
        re.search(r'data-column="([^"]*)"', head)[1]: (head, text) for head, text in find_blocks(html, "data-column")
    }
    assert blocks.keys() == page.columns.keys()
    for name, values in page.columns.items():
        head, text = blocks[name]
        if isinstance(values, list):
            assert json.loads(text) == values
            assert set(HOSTILE_IDS) <= set(values)
        else:
            kind = re.search(r'data-type="(\w+)"', head)[1]
            read = np.frombuffer(
                base64.b64decode(text), {"bool": "?", "f4": "<f4", "u2": "<u2", "u1": "u1", "i4": "<i4"}[kind]
            )
            np.testing.assert_array_equal(read.reshape(values.shape), values)


def test_no_text_of_the_data_is_markup_and_nan_is_null(page):
    meta = {**page.meta, "class_names": ["</script><script>alert(1)</script>", "\u2028"], "value": float("nan")}
    meta["more"] = [np.float32(0.5), np.int64(3), np.array([1.0, np.inf])]
    section = Section(id="attacks", title="<b>Attacks</b>", html=Markup("<p>as it is</p>"))
    html = render_page(replace(page, title="<i>x</i>", meta=meta, sections=[section]))
    assert "alert(1)</script>" not in html
    assert "\u2028" not in html
    assert "<i>x</i>" not in html
    assert "<b>Attacks</b>" not in html
    assert "<p>as it is</p>" in html
    [(_, text)] = [(head, text) for head, text in find_blocks(html, "id") if 'id="meta"' in head]
    read = json.loads(text)
    assert read["class_names"] == meta["class_names"]
    assert read["value"] is None
    assert read["more"] == [0.5, 3, [1.0, None]]


def test_the_policy_allows_the_pages_own_scripts_and_style_only(page):
    html = render_page(page)
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    allowed = set(re.findall(r"'sha256-([^']+)'", policy.replace("&#39;", "'")))
    running = [text for head, text in re.findall(r"<script([^>]*)>(.*?)</script>", html, re.DOTALL) if not head]
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(running) == len(SCRIPTS)
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in [*running, *styles]}
    assert hashes == allowed
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")
    assert not re.findall(r"(?:src|href|action)\s*=\s*[\"']?(?:https?:)?//", html), "it asks for nothing"
    assert not re.findall(r"\bfetch\(|XMLHttpRequest|WebSocket|import\(|url\(", "".join([*running, *styles]))
    # the mark by which a page is known as one of memscore's
    assert html.find('<meta name="generator" content="memscore') < 4096


@pytest.mark.parametrize("name", [*SCRIPTS, "report.css"])
def test_no_script_or_style_ends_its_own_element(name):
    assert not re.search(r"</(script|style)|<!--", read_asset(name), re.IGNORECASE)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (np.zeros(40), "float64; a page has float32"),
        (np.zeros(39, np.float32), r"shape \(39,\) for 40 examples"),
        (["a"], "has 1 values for 40 examples"),
    ],
)
def test_columns_that_the_page_cannot_read_are_refused(page, column, problem):
    with pytest.raises(ValueError, match=problem):
        render_page(replace(page, columns={"score": column}))


def test_more_examples_than_the_page_can_sort_are_refused(page):
    with pytest.raises(ValueError, match=r"at most 2,097,152 examples, got 2,097,153"):
        render_page(replace(page, meta={**page.meta, "n": MOST_EXAMPLES + 1}))


def test_parts_escape_their_values():
    assert "&lt;b&gt; of images" in render_part("explorer.html", image_about="<b> of images")
