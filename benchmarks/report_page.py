"""Claim: a report page of 60,000 examples and 40 scores is drawn in under 2 s and follows a brush within 100 ms.

    python -m benchmarks.report_page [--examples 60000] [--scores 40] [--rounds 5] [--quick]

Made-up data in Debian's Chromium, headless, without a graphics processor and without a network; playwright moves the
pointer. First picture: from the start of the navigation to a task after the first frame with figures, gallery and
filters. Brush: from a pointer's move to a task after the frame that shows it, everything that it filters included.
CPU: of the page's process, which says on a busy machine what a quiet one would take. Memory: proportional set size of
that process, after all columns were decoded. --quick is one round.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import tyro
from playwright.sync_api import Browser, sync_playwright

from benchmarks.results_file import save, spread
from memscore.report.render import render_page
from tests.memscore.report.synthetic_page import make_page

MOVES = 30
WATCH_BRUSH = """() => {
  window.brushes = [];
  const channel = new MessageChannel();
  let began = 0;
  channel.port1.onmessage = () => { if (began) window.brushes.push(performance.now() - began); began = 0; };
  addEventListener('pointermove', (event) => {
    if (event.buttons !== 1 || began) return;
    began = event.timeStamp;
    requestAnimationFrame(() => channel.port2.postMessage(0));
  }, true);
}"""


def main(examples: int = 60_000, scores: int = 40, rounds: int = 5, quick: bool = False) -> None:
    """Measure.

    Args:
        examples: rows of the page.
        scores: columns with a histogram.
        rounds: how often the page is opened.
        quick: one round, whose numbers mean little.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("there is no chromium on the PATH; on Debian: apt install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "page.html"
        path.write_text(render_page(make_page(examples, scores)), encoding="utf-8")
        megabytes = path.stat().st_size / 1e6
        measured = []
        for _ in range(1 if quick else rounds):
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            measured.append(measure(browser, path))
            browser.close()
            print({name: max(values) for name, values in measured[-1].items()}, flush=True)
    found = {name: spread([value for each in measured for value in each[name]]) for name in measured[0]}
    what = f"{examples:,} examples, {scores} scores, {megabytes:.1f} MB, window of 1440 x 900"
    print(found) if quick else save("report_page", {"what": what, "page_mb": megabytes, **found})


def measure(browser: Browser, path: Path) -> dict[str, list[float]]:
    """Open the page once and move a brush over its first histogram."""
    session: Any = browser.new_browser_cdp_session()
    page = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True).new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    while not (marks := page.evaluate("performance.getEntriesByName('report-painted').map((mark) => mark.startTime)")):
        page.wait_for_timeout(50)
    loaded_s, _ = measure_renderer(session)
    [first_paint] = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint').map((paint) => paint.startTime)"
    )
    page.wait_for_timeout(3000)  # columns are decoded when nothing else is to do
    page.evaluate(WATCH_BRUSH)
    canvas = page.locator(".filter-card canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    if box is None:
        raise RuntimeError("the first histogram is not on the page")
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 20, middle)
    page.mouse.down()
    before_s, _ = measure_renderer(session)
    for move in range(MOVES):
        page.mouse.move(box["x"] + 20 + (box["width"] - 40) * (move + 1) / MOVES, middle)
        page.wait_for_timeout(100)
    after_s, megabytes = measure_renderer(session)
    page.mouse.up()
    return {
        "first_content_ms": [first_paint],
        "first_picture_ms": marks[:1],
        "first_picture_cpu_ms": [1e3 * loaded_s],
        "brush_ms": page.evaluate("window.brushes"),
        "brush_cpu_ms": [1e3 * (after_s - before_s) / MOVES],
        "renderer_mb": [megabytes],
    }


def measure_renderer(session: Any) -> tuple[float, float]:
    """CPU seconds and proportional set size in megabytes of the largest renderer."""
    measured = []
    for process in session.send("SystemInfo.getProcessInfo")["processInfo"]:
        if process["type"] == "renderer":
            text = Path(f"/proc/{process['id']}/smaps_rollup").read_text()
            [line] = [line for line in text.splitlines() if line.startswith("Pss:")]
            measured.append((int(line.split()[1]) / 1e3, float(process["cpuTime"])))
    megabytes, cpu_s = max(measured)
    return cpu_s, megabytes


if __name__ == "__main__":
    tyro.cli(main)
