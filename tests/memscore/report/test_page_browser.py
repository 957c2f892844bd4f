"""The page in a browser: filter, sort, one example, A against B, export, link, keys, print; nothing leaves it.

One module, since all its tests share a browser, whose start takes seconds, and the same pages.
"""

import csv
import io
import json
import re

import numpy as np
import pytest

from memscore.data.id_lists import match_ids, read_id_list
from memscore.report.render import render_page
from tests.memscore.report.conftest import PHONE
from tests.memscore.report.synthetic_page import BINS, HOSTILE_IDS, make_page

MEMORIZATION = "memorization_k0.500"
CARD = f'.filter-card[data-name="{MEMORIZATION}"]'


def wait_until(page, condition):
    """Playwright's own wait_for_function builds a function from text, which the page's policy refuses."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never: {condition}")


def read_count(page):
    wait_until(page, "!waiting")
    return int(page.locator("#count").inner_text().replace(",", ""))


def shown_rows(page):
    wait_until(page, "!waiting")
    return page.evaluate("[...listed.rows]")


def settle(page):
    """Wait until the link has the state."""
    wait_until(page, "!waiting && location.hash.replace(/^#/, '') === describeState()")


def drag_brush(page, card, start, end):
    """Draw a brush between two shares of a histogram's width."""
    page.locator(f"{card} canvas").scroll_into_view_if_needed()
    box = page.locator(f"{card} canvas").bounding_box()
    inside, top = box["width"] - 18, box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 9 + start * inside, top)
    page.mouse.down()
    for share in (0.5, 1.0):
        page.mouse.move(box["x"] + 9 + (start + share * (end - start)) * inside, top)
    page.mouse.up()


def test_a_brush_filters_every_part(synthetic, open_page):
    data, path = synthetic
    page = open_page(path)
    values = data.columns[MEMORIZATION]
    assert read_count(page) == 600
    drag_brush(page, CARD, 0.5, 1.02)
    filtered = page.evaluate(f"filters.active.get('{MEMORIZATION}')")
    expected = np.flatnonzero((values >= np.float32(filtered["lo"])) & (values <= np.float32(filtered["hi"])))
    assert 0 < len(expected) < 200
    assert 0.3 < filtered["lo"] < 0.7
    assert read_count(page) == len(expected)
    assert set(shown_rows(page)) == set(expected.tolist())
    # the gallery, the table, other histograms and the classes have the same examples
    assert page.locator("#gallery li").count() == min(60, len(expected))
    assert (
        page.evaluate("filters.counted.get('score_1').counts.reduce((a, b) => a + b)")
        == np.isfinite(data.columns["score_1"][expected]).sum()
    )
    assert (
        page.evaluate("[...filters.counted.get('label').counts].slice(0, 10)")
        == np.bincount(data.columns["label"][expected], minlength=10).tolist()
    )
    # its own histogram shows what the other filters leave: all
    assert page.evaluate(f"filters.counted.get('{MEMORIZATION}').counts.reduce((a, b) => a + b)") == 600
    wait_until(page, f"element('live').textContent === '{len(expected)} of 600 examples shown'")
    page.locator("#chips button").click()
    assert read_count(page) == 600


def test_the_ends_of_a_brush_are_typed_and_moved(synthetic, open_page):
    data, path = synthetic
    page = open_page(path)
    values = data.columns[MEMORIZATION]
    drag_brush(page, CARD, 0.4, 0.9)
    page.get_by_label("Memorization at least").fill("0.123")
    page.get_by_label("Memorization at most").fill("0.456")
    page.keyboard.press("Enter")
    inside = (values >= np.float32(0.123)) & (values <= np.float32(0.456))
    assert read_count(page) == inside.sum()
    before = page.evaluate(f"filters.active.get('{MEMORIZATION}').hi")
    edges = page.evaluate(f"histograms.get('{MEMORIZATION}').edges")
    low, high, inner = ((value - edges[0]) / (edges[-1] - edges[0]) for value in (0.123, before, 0.3))
    drag_brush(page, CARD, inner, inner + 0.2)  # from within it moves the whole brush
    moved = page.evaluate(f"filters.active.get('{MEMORIZATION}')")
    assert moved["lo"] > 0.2
    assert moved["hi"] - moved["lo"] == pytest.approx(before - 0.123, abs=0.05)
    assert low < high
    page.locator(f"{CARD} .clear").click()
    assert read_count(page) == 600


def test_classes_and_scores_are_chosen_from_lists(synthetic, open_page):
    data, path = synthetic
    page = open_page(path)
    page.locator('.filter-card[data-name="label"] li', has_text="class 3").locator("input").check()
    page.locator('.filter-card[data-name="label"] li', has_text="class 4").locator("input").check()
    assert read_count(page) == np.isin(data.columns["label"], [3, 4]).sum()
    page.keyboard.press("Escape")  # of the list that has the focus
    assert read_count(page) == 600
    assert page.locator(".filter-card canvas").count() == 4
    page.locator("#score-picker summary").click()
    page.locator("#score-search").fill("score 5")
    boxes = page.locator("#score-list label:visible")
    assert boxes.all_inner_texts()[0].startswith("Score 5")
    assert boxes.count() == 1
    boxes.locator("input").check()
    assert page.locator('.filter-card[data-name="score_5"] canvas').is_visible()
    boxes.locator("input").uncheck()
    assert page.locator('.filter-card[data-name="score_5"]').count() == 0


def test_the_table_is_sorted_and_only_what_is_in_view_is_made(synthetic, open_page):
    data, path = synthetic
    page = open_page(path)
    page.locator("#view-table").click()
    page.get_by_role("button", name="Score 1", exact=True).click()
    values = data.columns["score_1"]
    rows = shown_rows(page)
    missing = int(np.isnan(values).sum())
    assert missing > 0
    assert np.isnan(values[rows[-missing:]]).all(), "those without a value come last"
    assert (np.diff(values[rows[:-missing]]) <= 0).all()
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Score 1")
    page.get_by_role("button", name=re.compile(r"^Score 1")).last.click()
    rows = shown_rows(page)
    assert (np.diff(values[rows[:-missing]]) >= 0).all()
    assert np.isnan(values[rows[-missing:]]).all()
    assert page.locator("#table-body tr[data-row]").count() < 60
    cells = page.locator("#table-body tr[data-row]").first.inner_text()
    assert f"{abs(values[rows[0]]):.3f}" in cells
    page.evaluate("element('table-scroll').scrollTop = 1e9")
    page.wait_for_selector(f'#table-body tr[data-row="{rows[-1]}"]')
    page.get_by_role("button", name="Id", exact=True).click()
    order = shown_rows(page)
    ids = [data.columns["id"][row] for row in order]
    assert ids == sorted(ids, key=lambda text: text.encode("utf-16-be"))


def test_the_gallery_has_pages_and_says_what_left_out_models_answer(synthetic, open_page):
    data, path = synthetic
    page = open_page(path)
    values = data.columns[MEMORIZATION]
    order = np.argsort(-values, kind="stable")
    assert shown_rows(page) == order.tolist()
    first = page.locator("#gallery .card").first
    text = first.inner_text()
    row = order[0]
    lo, hi = (data.columns[f"memorization_{end}"][row] for end in ("lo", "hi"))
    assert f"{values[row]:.3f}" in text
    assert f"[{lo:.3f}, {hi:.3f}]" in text
    names = data.meta["class_names"]
    assert names[data.columns["label"][row]] in text
    answer = data.columns["left_out_answer"][row]
    said = "the same" if answer == data.columns["label"][row] else names[answer]
    assert f"left-out models: {said}" in text
    assert data.columns["id"][row] in text
    page.locator("#page-next").click()
    wait_until(page, "element('page-place').textContent === '61\u2013120 of 600'")
    page.locator("#page-last").click()
    wait_until(page, "element('page-place').textContent === '541\u2013600 of 600'")
    # images are those of their rows: each has one white pixel, whose place is the row
    wait_until(page, "document.querySelectorAll('#gallery canvas').length === 60")
    page.wait_for_timeout(200)
    drawn = page.evaluate(
        """[...document.querySelectorAll('#gallery .card')].map((card) => {
          const canvas = card.querySelector('canvas');
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          let brightest = 0;
          for (let k = 0; k < data.length; k += 4) if (data[k] > data[4 * brightest]) brightest = k / 4;
          return [Number(card.dataset.row), brightest];
        })"""
    )
    assert len(drawn) == 60
    assert all(row % 144 == place for row, place in drawn)


def test_one_example_has_its_scores_with_ranks_and_all_that_is_known_of_it(synthetic, open_page):
    data, path = synthetic
    page = open_page(path)
    page.evaluate("openExample(10)")
    panel = page.locator("#example")
    assert panel.locator("h3").inner_text() == data.columns["id"][10]
    scores = panel.locator("table.scores tbody tr", has=page.locator("td"))
    told = {cells[0]: cells for cells in (row.split("\t") for row in scores.all_inner_texts())}
    for name, title in ((MEMORIZATION, "Memorization"), ("score_0", "Score 0"), ("score_1", "Score 1")):
        values = data.columns[name]
        direction = next(column["direction"] for column in data.meta["columns"] if column["id"] == name)
        rank = 1 + int((direction * values > direction * values[10]).sum())
        assert told[title][2] == str(rank)
        assert told[title][1].replace("\u2212", "-").startswith(f"{values[10]:.3f}")
    held = int(data.columns["inside"][10].sum())
    assert (
        panel.get_by_role("img", name=f"Confidence: {held} models trained on it and {held} that were not").count() == 1
    )
    assert page.evaluate("readColumn('inside').length") == 600 * BINS
    assert panel.get_by_role("button", name=f"{data.columns['id'][11]} 0.31").is_visible()  # whom it helps
    assert panel.get_by_role("button", name=f"{data.columns['id'][13]} 0.40").is_visible()  # who helps it
    assert panel.get_by_role("heading", name="Near copy").is_visible()
    assert panel.get_by_text("Rebuilt from its gradient").is_visible()
    trial = panel.get_by_role("row", name=re.compile(r"^SalUn"))
    assert [f"{data.columns[name][10]:.3f}" for name in ("trial0_before", "trial0_after", "trial0_oracle")] == (
        trial.locator("td").all_inner_texts()
    )
    panel.get_by_role("button", name=f"{data.columns['id'][13]} 0.40").click()
    assert panel.locator("h3").inner_text() == data.columns["id"][13]
    place = shown_rows(page).index(13)
    page.keyboard.press("j")
    assert page.evaluate("opened.row") == shown_rows(page)[place + 1]
    page.keyboard.press("k")
    assert page.evaluate("opened.row") == 13
    page.keyboard.press("Escape")
    assert panel.is_hidden()


def test_a_against_b_lists_who_changed_most(synthetic, open_page):
    data, path = synthetic
    page = open_page(path)
    page.locator("#compare-a").select_option("trial0")
    page.locator("#compare-b").select_option("trial2")
    wait_until(page, "!waiting")
    forgotten = data.columns["trial0_forget"]
    change = data.columns["trial2_after"] - data.columns["trial0_after"]
    rows = [int(row) for row in page.evaluate("compared.rows")]
    assert set(rows) == set(np.flatnonzero(forgotten).tolist())
    assert (np.diff(np.abs(change[rows])) <= 0).all()
    first = page.locator("#compare-table tbody tr").first
    assert first.get_attribute("data-row") == str(rows[0])
    assert f"+{change[rows[0]]:.3f}" in first.inner_text()
    assert "higher on average" in page.locator("#compare-caption").inner_text()
    measures = page.locator("#compare-measures tbody tr").all_inner_texts()
    assert [line.split("\t") for line in measures] == [
        ["Tug of war", "0.950", "0.350", "0.900 to 1.00"],
        ["Forget accuracy", "0.400", "0.800", "0.350 to 0.450"],
    ]
    page.locator("#compare-set").select_option("retain")
    wait_until(page, "!waiting")
    assert len(page.evaluate("compared.rows")) == 500
    page.locator("#compare-export").click()
    assert page.locator("#export-total").inner_text() == "500 examples"
    page.locator("#export-close").click()
    page.locator("#compare-table tbody button").first.click()
    assert page.locator("#example").is_visible()


def test_exported_ids_are_read_as_a_forget_set(synthetic, open_page, tmp_path):
    """Also those with commas, quotes, line breaks and spaces at their ends."""
    data, path = synthetic
    page = open_page(path)
    page.evaluate("for (const row of [0, 1, 2, 3, 4, 5, 6, 7, 42]) pick(row)")
    page.keyboard.press("e")
    assert page.locator("#export-total").inner_text() == "9 examples"
    with page.expect_download() as started:
        page.locator("#export-download").click()
    file = tmp_path / started.value.suggested_filename
    started.value.save_as(file)
    assert re.fullmatch(r"[\w.-]+\.json", file.name)
    ids = read_id_list(str(file), "--forget ids:")
    assert set(ids.tolist()) == {*HOSTILE_IDS, data.columns["id"][42]}
    assert match_ids(ids, data.columns["id"]).ids.tolist() == ids.tolist()
    command = page.locator("#export-command").inner_text()
    assert command == f"python -m unlearn.trial '~/memscore/synthetic bank' --forget ids:{file.name}"
    page.locator("#export-shown").check()
    page.locator("#export-first").fill("5")
    with page.expect_download() as started:
        page.locator("#export-csv").click()
    table = list(csv.DictReader(io.StringIO(started.value.path().read_text(encoding="utf-8"), newline="")))
    rows = shown_rows(page)[:5]
    assert [line["id"] for line in table] == [data.columns["id"][row] for row in rows]
    assert [float(line[MEMORIZATION]) for line in table] == pytest.approx(data.columns[MEMORIZATION][rows], rel=1e-6)
    assert [float(line["memorization_lo"]) for line in table] == pytest.approx(
        data.columns["memorization_lo"][rows], rel=1e-6, abs=1e-9
    )


def test_ids_are_copied(synthetic, open_page):
    _, path = synthetic
    page = open_page(path, permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("pick(2); pick(3)")
    page.keyboard.press("e")
    page.locator("#export-copy").click()
    wait_until(page, "element('export-said').textContent !== ''")
    assert page.locator("#export-said").inner_text() == "copied"
    assert set(json.loads(page.evaluate("navigator.clipboard.readText()"))) == {HOSTILE_IDS[2], HOSTILE_IDS[3]}


def test_the_link_holds_the_state(synthetic, open_page):
    _, path = synthetic
    page = open_page(path)
    drag_brush(page, CARD, 0.3, 0.9)
    page.locator('.filter-card[data-name="label"] li', has_text="class 3").locator("input").check()
    page.locator("#score-picker summary").click()
    page.locator("#score-search").fill("score 4")
    page.locator("#score-list label:visible input").check()
    page.locator("#view-table").click()
    page.locator("#sort").select_option("score_1")
    page.locator("#sort-direction").click()
    page.locator("#scatter-y").select_option("score_2")
    page.locator("#compare-b").select_option("trial2")
    page.locator("#log-counts").click()
    page.evaluate("pick(0); pick(3); setPrior(0.02); openExample(3)")
    settle(page)
    state, rows = page.evaluate("describeState()"), shown_rows(page)
    assert len(rows) > 0
    again = open_page(path, f"#{state}")
    assert again.evaluate("describeState()") == state
    assert shown_rows(again) == rows
    assert again.locator("#example h3").inner_text() == HOSTILE_IDS[3].replace("\n", " ")
    assert again.evaluate("[listed.view, listed.sort, listed.descending, scatter.y, compared.b, logCounts]") == [
        *("table", "score_1", False, "score_2", "trial2", True)
    ]
    assert again.evaluate("[...listed.picked]") == [0, 3]
    # a link that is pasted into an open page, and the way back
    page.evaluate("location.hash = ''")
    wait_until(page, "filters.count === 600")
    assert page.locator("#example").is_hidden()
    assert page.evaluate("describeState()") == ""


def test_a_link_to_what_the_page_has_not_is_said_and_harmless(synthetic, open_page):
    _, path = synthetic
    page = open_page(
        path, "#range=0.1~0.2~gone&only=1~memorization_k0.500&range=a~b~score_1&sort=x&example=y&from=-4&prior=9"
    )
    assert read_count(page) == 600
    assert page.locator("#link-note").inner_text() == "The link names what this page does not have: gone, x, y."


def test_all_is_reached_by_keys(synthetic, open_page):
    _, path = synthetic
    page = open_page(path)
    page.get_by_label("Memorization, from").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    edges = page.evaluate(f"histograms.get('{MEMORIZATION}').edges")
    assert page.evaluate(f"filters.active.get('{MEMORIZATION}').lo") == edges[5]
    page.keyboard.press("Tab")  # to the other end
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Memorization, to"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(f"filters.active.get('{MEMORIZATION}').hi") == edges[-2]
    assert read_count(page) < 600
    page.keyboard.press("Escape")
    assert read_count(page) == 600
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#keys").is_hidden()
    # gallery: one stop for Tab, arrows within it
    page.locator("#gallery .card[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    row = page.evaluate("Number(document.activeElement.dataset.row)")
    assert row == shown_rows(page)[2]
    page.keyboard.press("x")
    wait_until(page, "!waiting")
    assert page.evaluate("[...listed.picked]") == [row]
    assert page.evaluate("Number(document.activeElement.dataset.row)") == row
    page.keyboard.press("Enter")
    assert page.evaluate("opened.row") == row
    assert page.evaluate("document.activeElement.id") == "example-title"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("opened.row") == shown_rows(page)[3]
    page.keyboard.press("Escape")
    wait_until(page, "!waiting")
    assert page.evaluate("document.activeElement.matches('#gallery .card')")
    page.keyboard.press("t")
    page.wait_for_selector("#table-body tr[data-row]")
    page.locator("#table-body tr[tabindex='0']").focus()
    for _ in range(30):
        page.keyboard.press("ArrowDown")
    assert page.evaluate("Number(document.activeElement.dataset.place)") == 30
    page.keyboard.press("Enter")
    assert page.evaluate("opened.row") == shown_rows(page)[30]
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "score-search"


def test_everything_that_can_be_used_has_a_name(synthetic, open_page):
    _, path = synthetic
    page = open_page(path)
    page.evaluate("openExample(10)")
    nameless = page.evaluate(
        """[...document.querySelectorAll('button,input,select,table,canvas[role=img],[role=region]')].filter((each) => {
          const label = each.getAttribute('aria-label') || each.textContent.trim()
            || (each.labels && [...each.labels].map((label) => label.textContent.trim()).join(''));
          return !label;
        }).map((each) => each.outerHTML.slice(0, 120))"""
    )
    assert nameless == []
    assert page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id).length") == page.evaluate(
        "new Set([...document.querySelectorAll('[id]')].map((each) => each.id)).size"
    )


def test_paper_gets_tables_of_what_is_filtered_and_light_figures(synthetic, open_page):
    data, path = synthetic
    page = open_page(path, f"#range=0.3~1~{MEMORIZATION}", color_scheme="dark")
    rows = shown_rows(page)
    assert page.evaluate("readColours().text") == "#e6eaef"
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_selector("#printed table >> nth=1")
    assert page.evaluate("readColours().text") == "#1a1f26"
    for hidden in ("#gallery-view", ".filters", ".list-tools", ".bar"):
        assert page.locator(hidden).first.is_hidden()
    tables = page.locator("#printed table")
    assert tables.first.locator("tbody").inner_text().split("\t") == ["Memorization", "0.300 to 1.000"]
    assert tables.nth(1).locator("tbody tr").count() == min(50, len(rows))
    assert data.columns["id"][rows[0]] in tables.nth(1).locator("tbody tr").first.inner_text()
    assert page.pdf()[:5] == b"%PDF-"
    page.emulate_media(media="screen", color_scheme="dark")
    wait_until(page, "!document.documentElement.dataset.printing")
    assert page.locator("#printed table").count() == 0
    assert page.evaluate("readColours().text") == "#e6eaef"


def test_markup_in_ids_and_names_stays_text(synthetic, open_page):
    data, path = synthetic
    page = open_page(path)
    assert page.title() == data.title
    assert page.locator("h1").inner_text() == data.title
    page.evaluate("for (let row = 0; row < 8; row++) { pick(row); openExample(row); }")
    page.evaluate("showPicked(true); showView('table')")
    wait_until(page, "!waiting")
    assert set(
        page.evaluate("[...document.querySelectorAll('#table-body td.id')].map((cell) => cell.textContent)")
    ) == (set(HOSTILE_IDS))
    assert page.locator("main img, main b, main i:not(.all):not(.now), aside img, aside b").count() == 0
    assert page.evaluate("window.hacked") is None


def test_no_other_script_runs_and_nothing_is_fetched(synthetic, open_page):
    """Even if markup came into the page."""
    _, path = synthetic
    page = open_page(path, refuses=True)
    refused = page.evaluate(
        """async () => {
          const refused = [];
          document.addEventListener('securitypolicyviolation', (event) => refused.push(event.effectiveDirective));
          const host = document.createElement('div');
          host.innerHTML = '<img src="data:," onerror="window.hacked = 1"><form action="file:///tmp"></form>'
            + '<iframe src="data:text/html,<p>"></iframe><link rel="stylesheet" href="file:///tmp/a.css">';
          const script = document.createElement('script');
          script.textContent = 'window.hacked = 2';
          document.body.append(host, script);
          host.querySelector('form').submit();
          await fetch('http://127.0.0.1:9/').catch(() => 0);
          for (let k = 0; k < 100 && new Set(refused).size < 6; k++) {
            await new Promise((resolve) => setTimeout(resolve, 50));
          }
          return [window.hacked === undefined, ...new Set(refused)].map(String).sort();
        }"""
    )
    assert refused == [
        "connect-src",
        "form-action",
        "frame-src",
        "script-src-attr",
        "script-src-elem",
        "style-src-elem",
        "true",
    ]


def test_the_prior_sets_what_a_flag_is_worth(synthetic, open_page):
    data, path = synthetic
    page = open_page(path)
    thresholds = data.meta["attacks"][0]["thresholds"]

    def read():
        return page.evaluate(
            "[...document.querySelectorAll('[data-plots=attacks] [data-ppv]')].slice(0, 3).map((e) => +e.dataset.ppv)"
        )

    def expect(prior):
        return [prior * each["tpr"] / (prior * each["tpr"] + (1 - prior) * each["realized_fpr"]) for each in thresholds]

    assert read() == pytest.approx(expect(0.5))
    page.locator("[data-plots=attacks]").get_by_role("button", name=re.compile(r"^1\s%$")).click()
    assert read() == pytest.approx(expect(0.01))
    slider = page.locator("#attacks-prior")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "2.0\N{NO-BREAK SPACE}%"
    assert read() == pytest.approx(expect(0.02))
    row = page.locator("[data-plots=attacks] .thresholds tbody tr").first.inner_text()
    assert f"{100 * expect(0.02)[0]:.1f}\N{NO-BREAK SPACE}%" in row
    # the ends are stored for a prior of 10 %: the odds of being a member are then 1 / 9, and here 1 / 49
    odds = [stored / (1 - stored) * 9 / 49 for stored in (0.4, 0.6)]
    ends = [f"{100 * each / (1 + each):.1f}\N{NO-BREAK SPACE}%" for each in odds]
    assert f"[{ends[0]}, {ends[1]}]" in row


def test_figures_are_drawn_and_a_phone_has_no_overflow(synthetic, open_page):
    _, path = synthetic
    page = open_page(path, size=PHONE, color_scheme="dark", device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.evaluate("openExample(10)")
    assert page.evaluate("document.getElementById('example-body').scrollWidth <= 390")
    page.keyboard.press("Escape")
    page.evaluate("showView('table')")
    page.locator("#filters-box > summary").click()
    wait_until(page, "!waiting")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.wait_for_timeout(100)  # figures that were hidden are drawn when they have a size
    blank = page.evaluate(
        """[...document.querySelectorAll('canvas[role=img]')].filter((each) => each.clientWidth).filter((canvas) => {
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          let inked = 0;
          for (let k = 3; k < data.length; k += 4) if (data[k]) inked++;
          return inked < 200;
        }).map((canvas) => canvas.getAttribute('aria-label'))"""
    )
    assert blank == []
    assert page.locator("canvas[role=img]").count() >= 12


@pytest.mark.parametrize(
    ("n", "scores", "classes", "images"), [(1, 1, 1, True), (0, 1, 2, False), (50, 2, 1000, False), (7, 8, 2, False)]
)
def test_pages_of_little_or_much(n, scores, classes, images, open_page, tmp_path):
    """One example, none, a thousand classes, no images."""
    path = tmp_path / "page.html"
    path.write_text(render_page(make_page(n, scores, classes, with_images=images)), encoding="utf-8")
    page = open_page(path)
    if n:
        assert read_count(page) == n
        page.evaluate(
            "openExample(0); showView('table'); filters.set('label', { kind: 'codes', codes: new Set([-7]) })"
        )
        assert read_count(page) == 0
        assert page.locator("#no-rows").is_visible()
    else:
        assert page.locator("#explore").is_hidden()


def test_a_page_without_scores_or_parts(open_page, tmp_path):
    """A bank that is not scored yet."""
    data = make_page(20, 1, 3, with_images=False)
    optional = ("histograms", "influence", "twins", "rebuilt", "trials", "attacks", "audits", "proxies", "experiments")
    meta = {name: value for name, value in data.meta.items() if name not in {*optional, "sweeps", "sprites"}}
    meta["columns"] = [column for column in data.meta["columns"] if column["role"] in {"id", "class", "cluster"}]
    data = type(data)(**{**vars(data), "meta": meta})
    path = tmp_path / "page.html"
    path.write_text(render_page(data), encoding="utf-8")
    page = open_page(path)
    assert read_count(page) == 20
    assert page.locator("#gallery .card").count() == 20
    page.evaluate("showView('table')")
    page.wait_for_selector("#table-body tr[data-row]")
    page.locator("#table-body tr[data-row]").first.click()
    assert page.locator("#example").is_visible()
