"use strict";
// The filters beside the views: a histogram with a brush for each score that is shown, and lists for classes.

/**
 * @typedef {{id: string, column: Column, edges: number[], canvas: HTMLCanvasElement, card: HTMLElement,
 *   thumbs: HTMLInputElement[], fields: HTMLInputElement[], missing: number}} Histogram
 * @typedef {{id: string, column: Column, card: HTMLElement, list: HTMLElement, search: HTMLInputElement | null,
 *   codes: number[], more: HTMLElement}} Facet
 */

const SHORT_LIST = 10;
const PADDING = 9; // of the histogram in its canvas: half a handle

/** @type {Map<string, Histogram>} */
const histograms = new Map();
/** @type {Facet[]} */
const facets = [];
let logCounts = false;

/**
 * @param {Column} column
 * @returns {Histogram}
 */
function addHistogram(column) {
  const { id } = column;
  const values = readScore(id);
  const [lo, hi] = findRange(values);
  const edges = makeEdges(lo, hi);
  const counted = filters.countBins(id, findBins(values, edges), edges.length - 1);
  const valued = counted.totals.reduce((sum, count) => sum + count, 0);
  const canvas = makeFigure(`Histogram of ${column.title}`, "histogram", (context, width, height) =>
    drawHistogram(context, width, height, id),
  );
  const thumbs = [0, 1].map(
    (end) =>
      /** @type {HTMLInputElement} */ (
        make("input", {
          type: "range",
          class: "thumb-input",
          min: 0,
          max: edges.length - 1,
          step: 1,
          value: end ? edges.length - 1 : 0,
          "aria-label": `${column.title}, ${end ? "to" : "from"}`,
          oninput: () => moveThumb(id, end),
          onfocus: () => redraw(canvas),
          onblur: () => redraw(canvas),
        })
      ),
  );
  const fields = [0, 1].map(
    (end) =>
      /** @type {HTMLInputElement} */ (
        make("input", {
          type: "text",
          inputmode: "decimal",
          class: "bound",
          "aria-label": `${column.title} ${end ? "at most" : "at least"}`,
          onchange: () => readBounds(id),
        })
      ),
  );
  const card = make(
    "section",
    { class: "filter-card", "data-name": column.name, "aria-label": column.title },
    make(
      "header",
      {},
      make("h4", { title: [column.name, column.about || column.source].filter(Boolean).join(": ") }, column.title),
      make("span", { class: "bounds", hidden: true }, fields[0], " to ", fields[1]),
      make(
        "button",
        {
          type: "button",
          class: "icon clear",
          hidden: true,
          title: "Clear this filter",
          "aria-label": `Clear the filter on ${column.title}`,
          onclick: () => filters.set(id, null),
        },
        "×",
      ),
      make(
        "button",
        {
          type: "button",
          class: "icon remove",
          title: "Take this histogram off the list",
          "aria-label": `Do not show ${column.title}`,
          onclick: () => showScore(column, false),
        },
        "–",
      ),
    ),
    make("div", { class: "brush" }, canvas, ...thumbs),
    valued < N ? make("p", { class: "fine" }, `${formatCount(N - valued)} without a value`) : null,
  );
  const histogram = { id, column, edges, canvas, card, thumbs, fields, missing: N - valued };
  histograms.set(id, histogram);
  listenForBrush(histogram);
  return histogram;
}

/** @param {string} id */
function removeHistogram(id) {
  const histogram = histograms.get(id);
  if (!histogram) return;
  filters.set(id, null);
  filters.stopCounting(id);
  forgetFigure(histogram.canvas);
  histogram.card.remove();
  histograms.delete(id);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {string} id
 */
function drawHistogram(context, width, height, id) {
  const histogram = histograms.get(id);
  const counted = filters.counted.get(id);
  if (!histogram || !counted) return;
  const colours = readColours();
  const { edges, thumbs } = histogram;
  const filter = filters.active.get(id);
  const x = makeLinear(edges[0], edges[edges.length - 1], PADDING, width - PADDING, 4);
  const bottom = height - 18;
  const top = 6;
  const most = counted.totals.reduce((a, b) => Math.max(a, b), 1);
  const size = (/** @type {number} */ count) => {
    if (count === 0) return 0;
    const share = logCounts ? Math.log1p(count) / Math.log1p(most) : count / most;
    return Math.max(1.5, share * (bottom - top)); // one example can be seen
  };
  const inside = (/** @type {number} */ value) => Math.min(Math.max(x.map(value), PADDING), width - PADDING);
  if (filter && filter.kind === "range") {
    context.fillStyle = colours.soft;
    context.fillRect(inside(filter.lo), 0, Math.max(1, inside(filter.hi) - inside(filter.lo)), bottom);
  }
  for (const [counts, colour] of /** @type {[Uint32Array, string][]} */ ([
    [counted.totals, colours.rest],
    [counted.counts, colours.accent],
  ])) {
    context.fillStyle = colour;
    for (let k = 0; k < counts.length; k++) {
      const left = Math.round(x.map(edges[k]));
      const right = Math.round(x.map(edges[k + 1]));
      const tall = size(counts[k]);
      if (tall) context.fillRect(left, bottom - tall, Math.max(1, right - left - (right - left > 3 ? 1 : 0)), tall);
    }
  }
  // bars outside the brush are what the other filters leave: pale
  if (filter && filter.kind === "range") {
    context.fillStyle = colours.page;
    context.globalAlpha = 0.55;
    context.fillRect(0, 0, inside(filter.lo), bottom);
    context.fillRect(inside(filter.hi), 0, width - inside(filter.hi), bottom);
    context.globalAlpha = 1;
  }
  context.strokeStyle = colours.muted;
  drawLine(context, PADDING, bottom + 0.5, width - PADDING, bottom + 0.5);
  context.fillStyle = colours.muted;
  context.font = SMALL_FONT;
  context.textBaseline = "top";
  for (const tick of x.ticks) {
    const place = x.map(tick);
    drawLine(context, Math.round(place) + 0.5, bottom, Math.round(place) + 0.5, bottom + 3);
    const half = context.measureText(x.format(tick)).width / 2;
    context.textAlign = "center";
    context.fillText(x.format(tick), Math.min(Math.max(place, half), width - half), bottom + 5);
  }
  const places = filter && filter.kind === "range" ? [filter.lo, filter.hi] : [x.lo, x.hi];
  places.forEach((value, end) => {
    const focused = document.activeElement === thumbs[end];
    if (!focused && !filter) return;
    const place = Math.round(inside(value));
    context.fillStyle = focused ? colours.text : colours.accent;
    context.fillRect(place - 1, 0, 2, bottom);
    context.fillRect(place - (focused ? 5 : 4), bottom / 2 - 9, focused ? 10 : 8, 18);
  });
}

/**
 * The pointer draws a brush, moves one that is there, or moves one of its ends; the brush ends at edges of bins.
 * @param {Histogram} histogram
 */
function listenForBrush({ id, canvas, edges }) {
  /** @type {{mode: "new" | "move" | "lo" | "hi", at: number, lo: number, hi: number} | null} */
  let drag = null;
  const span = edges[edges.length - 1] - edges[0];
  const read = (/** @type {PointerEvent} */ event) => {
    const rectangle = canvas.getBoundingClientRect();
    return edges[0] + ((event.clientX - rectangle.left - PADDING) / (rectangle.width - 2 * PADDING)) * span;
  };
  const snap = (/** @type {number} */ value) => {
    const place = Math.round(((value - edges[0]) / span) * (edges.length - 1));
    return edges[Math.min(Math.max(place, 0), edges.length - 1)];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    const at = read(event);
    const filter = filters.active.get(id);
    const near = (8 / canvas.clientWidth) * span;
    if (filter && filter.kind === "range") {
      const { lo, hi } = filter;
      const mode =
        Math.abs(at - lo) < near ? "lo" : Math.abs(at - hi) < near ? "hi" : at > lo && at < hi ? "move" : "new";
      drag = { mode, at, lo: mode === "new" ? at : lo, hi: mode === "new" ? at : hi };
    } else drag = { mode: "new", at, lo: at, hi: at };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const at = read(event);
    let { lo, hi } = drag;
    if (drag.mode === "new") [lo, hi] = [snap(Math.min(drag.at, at)), snap(Math.max(drag.at, at))];
    else if (drag.mode === "move") {
      const shift = Math.min(Math.max(at - drag.at, edges[0] - lo), edges[edges.length - 1] - hi);
      [lo, hi] = [snap(lo + shift), snap(hi + shift)];
    } else if (drag.mode === "lo") lo = Math.min(snap(at), hi);
    else hi = Math.max(snap(at), lo);
    if (lo < hi) setRange(id, lo, hi);
  });
  const end = (/** @type {PointerEvent} */ event) => {
    // a click without a drag clears the brush
    if (drag && drag.mode === "new" && Math.abs(read(event) - drag.at) < (3 / canvas.clientWidth) * span) {
      filters.set(id, null);
    }
    drag = null;
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", () => {
    drag = null;
  });
}

/**
 * @param {string} id
 * @param {number} lo
 * @param {number} hi
 */
function setRange(id, lo, hi) {
  const current = filters.active.get(id);
  if (current && current.kind === "range" && current.lo === lo && current.hi === hi) return;
  const histogram = histograms.get(id);
  const all = histogram && lo <= histogram.edges[0] && hi >= histogram.edges[histogram.edges.length - 1];
  filters.set(id, all && histogram.missing === 0 ? null : { kind: "range", lo, hi });
}

/**
 * A key moved one end of a brush.
 * @param {string} id
 * @param {number} end 0 for the lower one
 */
function moveThumb(id, end) {
  const histogram = histograms.get(id);
  if (!histogram) return;
  const places = histogram.thumbs.map((thumb) => Number(thumb.value));
  if (places[0] >= places[1]) {
    places[end] = end ? places[0] + 1 : places[1] - 1;
    places[end] = Math.min(Math.max(places[end], end ? 1 : 0), histogram.edges.length - (end ? 1 : 2));
    histogram.thumbs[end].value = String(places[end]);
  }
  setRange(id, histogram.edges[places[0]], histogram.edges[places[1]]);
}

/** @param {string} id whose bounds were typed */
function readBounds(id) {
  const histogram = histograms.get(id);
  if (!histogram) return;
  const { edges } = histogram;
  const [lo, hi] = histogram.fields.map((field, end) => {
    const value = Number(field.value.replace(MINUS, "-").replace(/,/g, ""));
    return field.value.trim() === "" || Number.isNaN(value) ? edges[end ? edges.length - 1 : 0] : value;
  });
  setRange(id, Math.min(lo, hi), Math.max(lo, hi));
  updateHistogram(histogram);
}

/** @param {Histogram} histogram */
function updateHistogram({ id, column, edges, canvas, card, thumbs, fields }) {
  const filter = filters.active.get(id);
  const range = filter && filter.kind === "range" ? [filter.lo, filter.hi] : [edges[0], edges[edges.length - 1]];
  const digits = Math.max(countDigits(id), 0);
  thumbs.forEach((thumb, end) => {
    const place = Math.round(((range[end] - edges[0]) / (edges[edges.length - 1] - edges[0])) * (edges.length - 1));
    thumb.value = String(place);
    thumb.setAttribute("aria-valuetext", formatFixed(range[end], digits));
    if (document.activeElement !== fields[end]) fields[end].value = String(Number(range[end].toPrecision(6)));
  });
  card.classList.toggle("filtered", Boolean(filter));
  for (const part of card.querySelectorAll(".bounds, .clear")) /** @type {HTMLElement} */ (part).hidden = !filter;
  canvas.setAttribute(
    "aria-label",
    `Histogram of ${column.title}${
      filter ? `, ${formatFixed(range[0], digits)} to ${formatFixed(range[1], digits)}` : ""
    }`,
  );
  redraw(canvas);
}

/**
 * A list of the values of a column of classes, clusters or truth values, with their counts.
 * @param {Column} column
 */
function addFacet(column) {
  const { id } = column;
  const codes = readCodes(id);
  const largest = codes.reduce((most, code) => Math.max(most, code), 0);
  const bins = new Uint16Array(N).fill(NO_BIN);
  for (let row = 0; row < N; row++) bins[row] = codes[row] === NO_CODE ? largest + 1 : codes[row];
  const counted = filters.countBins(id, bins, largest + 2);
  const present = [...counted.totals.keys()].filter((code) => counted.totals[code] > 0);
  if (present.length < 2) {
    filters.stopCounting(id);
    return;
  }
  const list = make("ul", { class: "facet", "aria-label": column.title });
  const more = make("p", { class: "fine" });
  const search =
    present.length <= SHORT_LIST
      ? null
      : /** @type {HTMLInputElement} */ (
          make("input", {
            type: "search",
            class: "search",
            placeholder: `Find one of ${formatCount(present.length)}`,
            "aria-label": `Find in ${column.title}`,
            oninput: () => updateFacet(facet),
          })
        );
  const card = make(
    "section",
    { class: "filter-card", "data-name": column.name, "aria-label": column.title },
    make(
      "header",
      {},
      make("h4", { title: column.about || column.source }, column.title),
      make(
        "button",
        {
          type: "button",
          class: "icon clear",
          hidden: true,
          title: "Clear this filter",
          "aria-label": `Clear the filter on ${column.title}`,
          onclick: () => filters.set(id, null),
        },
        "×",
      ),
    ),
    search,
    list,
    more,
  );
  const facet = { id, column, card, list, search, codes: present, more };
  facets.push(facet);
  element("facets").append(card);
}

/** @param {Facet} facet */
function updateFacet({ id, column, card, list, search, codes, more }) {
  const counted = filters.counted.get(id);
  if (!counted) return;
  const filter = filters.active.get(id);
  const chosen = filter && filter.kind === "codes" ? filter.codes : new Set();
  const none = counted.counts.length - 1;
  const word = search ? search.value.trim().toLowerCase() : "";
  const named = codes
    .map((bin) => ({ bin, code: bin === none ? NO_CODE : bin }))
    .map((each) => ({ ...each, name: nameCode(column, each.code) }));
  const matching = named.filter(({ name, code }) => (word ? name.toLowerCase().includes(word) : !chosen.has(code)));
  const first = word ? [] : named.filter(({ code }) => chosen.has(code));
  // in long lists those with most of the shown examples come first
  if (codes.length > SHORT_LIST)
    matching.sort((a, b) => counted.counts[b.bin] - counted.counts[a.bin] || a.bin - b.bin);
  const shown =
    codes.length > SHORT_LIST
      ? [...first, ...matching.slice(0, SHORT_LIST)]
      : named.filter(({ name }) => !word || name.toLowerCase().includes(word));
  const most = Math.max(1, ...shown.map(({ bin }) => counted.totals[bin]));
  const listedCodes = shown.map(({ code }) => code).join(" ");
  if (list.dataset.codes !== listedCodes) {
    list.dataset.codes = listedCodes;
    const focused =
      document.activeElement instanceof HTMLInputElement && list.contains(document.activeElement)
        ? document.activeElement.value
        : null;
    list.replaceChildren(
      ...shown.map(({ code, name }) =>
        make(
          "li",
          {},
          make(
            "label",
            { title: name },
            make("input", { type: "checkbox", value: code, onchange: () => toggleCode(id, code) }),
            make("span", { class: "name" }, name),
            make(
              "span",
              { class: "bar", "aria-hidden": "true" },
              make("i", { class: "all" }),
              make("i", { class: "now" }),
            ),
            make("span", { class: "num" }),
          ),
        ),
      ),
    );
    if (focused !== null) {
      const again = list.querySelector(`input[value="${CSS.escape(focused)}"]`);
      if (again instanceof HTMLElement) again.focus();
    }
  }
  shown.forEach(({ bin, code }, k) => {
    const [box, , bar, count] = list.children[k].children[0].children;
    /** @type {HTMLInputElement} */ (box).checked = chosen.has(code);
    const [all, now] = /** @type {HTMLCollectionOf<HTMLElement>} */ (bar.children);
    all.style.width = `${(100 * counted.totals[bin]) / most}%`;
    now.style.width = `${(100 * counted.counts[bin]) / most}%`;
    count.textContent = formatCount(counted.counts[bin]);
  });
  const hidden = (word ? matching.length : codes.length) - shown.length;
  more.textContent = hidden > 0 ? `and ${formatCount(hidden)} more; type to find them` : "";
  more.hidden = hidden <= 0;
  card.classList.toggle("filtered", Boolean(filter));
  const clear = card.querySelector(".clear");
  if (clear instanceof HTMLElement) clear.hidden = !filter;
}

/** @param {string} id @param {number} code */
function toggleCode(id, code) {
  const filter = filters.active.get(id);
  const codes = new Set(filter && filter.kind === "codes" ? filter.codes : []);
  if (!codes.delete(code)) codes.add(code);
  filters.set(id, codes.size ? { kind: "codes", codes } : null);
}

/** The list in which scores are found, and shown or not. */
function fillScorePicker() {
  const list = element("score-list");
  /** @type {Map<string, Column[]>} */
  const groups = new Map();
  for (const column of SCORES) {
    const group = column.group || "Scores";
    groups.set(group, [...(groups.get(group) || []), column]);
  }
  list.replaceChildren(
    ...[...groups].map(([group, columns]) =>
      make(
        "fieldset",
        {},
        make("legend", {}, group),
        ...columns.map((column) =>
          make(
            "label",
            { title: column.about || column.source || column.name },
            make("input", {
              type: "checkbox",
              value: column.id,
              onchange: (/** @type {Event} */ event) =>
                showScore(column, /** @type {HTMLInputElement} */ (event.target).checked),
            }),
            make("span", {}, column.title),
            make("code", {}, column.name),
          ),
        ),
      ),
    ),
  );
}

/** Show what the list has to its search, and which of it are shown. */
function updateScorePicker() {
  const word = /** @type {HTMLInputElement} */ (element("score-search")).value.trim().toLowerCase();
  for (const fieldset of element("score-list").querySelectorAll("fieldset")) {
    let found = 0;
    for (const label of fieldset.querySelectorAll("label")) {
      const box = label.querySelector("input");
      if (box) box.checked = histograms.has(box.value);
      label.hidden = Boolean(word) && !(label.textContent || "").toLowerCase().includes(word);
      if (!label.hidden) found++;
    }
    fieldset.hidden = found === 0;
  }
  element("score-count").textContent = `${histograms.size} of ${SCORES.length} shown`;
}

/**
 * @param {Column} column
 * @param {boolean} shown
 */
function showScore(column, shown) {
  if (shown && !histograms.has(column.id)) {
    const histogram = addHistogram(column);
    element("histograms").append(histogram.card);
    updateHistogram(histogram);
  } else if (!shown) removeHistogram(column.id);
  updateScorePicker();
  refresh();
}
