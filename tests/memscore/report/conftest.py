"""A headless Chromium for the pages of reports, without a network."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memscore.report.render import render_page
from tests.memscore.report.synthetic_page import make_page

DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium; playwright's own would be a download."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no chromium on the PATH; on Debian: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        # as root it has no sandbox; the page is our own, and the network is off
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A page of 600 examples with everything that a page can show, and the path of its file."""
    page = make_page(600, 8)
    path = tmp_path_factory.mktemp("page") / "bank.html"
    path.write_text(render_page(page), encoding="utf-8")
    return page, path


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a file in the browser: no error may happen in it, and it may ask for nothing but itself.

    What its policy refuses is an error too, but where a test tries that.
    """
    contexts, errors, requests = [], [], []

    def open_file(
        path: Path, state: str = "", *, size: dict[str, int] = DESK, refuses: bool = False, **options: Any
    ) -> Any:
        context = browser.new_context(viewport=size, offline=True, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: errors.append(str(error)))

        def note(message: Any) -> None:
            if message.type == "error" and not (refuses and "Content Security Policy" in message.text):
                errors.append(message.text)

        page.on("console", note)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{path.as_uri()}{state}")
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not errors
    assert requests, "the page itself is one"
    assert {url.partition(":")[0] for url in requests} <= {"file", "blob", "data"}
