"use strict";
// The page as a whole: what is drawn when, the link that holds its state, keys, colours, and print.

const filters = new Filters();
let hashTimer = 0;
let announceTimer = 0;
let summaryTimer = 0;
let waiting = false;
let comparisonKey = "";
let announced = "";
let pointerIsDown = false;

/** Draw everything in the next frame. */
function refresh() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    if (waiting) updateAll();
  });
}

/** Draw everything that filters, order and choices change. */
function updateAll() {
  waiting = false;
  for (const histogram of histograms.values()) updateHistogram(histogram);
  for (const facet of facets) updateFacet(facet);
  if (scatter.canvas) {
    for (const axis of /** @type {const} */ (["x", "y"])) {
      /** @type {HTMLSelectElement} */ (element(`scatter-${axis}`)).value = scatter[axis];
    }
    redraw(scatter.canvas);
  }
  updateList();
  updateChips();
  updateExamplePlace();
  const key = [compared.a, compared.b, compared.set, compared.set === "shown" ? filters.version : ""].join(" ");
  if (key !== comparisonKey) {
    comparisonKey = key;
    updateComparison();
  }
  updateSummarySoon();
  writeHashSoon();
}

/** Correlation and quantiles follow when the brush rests: they take longer than all that moves with it. */
function updateSummarySoon() {
  clearTimeout(summaryTimer);
  summaryTimer = setTimeout(() => (pointerIsDown ? updateSummarySoon() : updateSummary()), 150);
}

/** Say how many examples are shown, and why; announce it when the brush rests. */
function updateChips() {
  element("count").textContent = formatCount(filters.count);
  element("count-of").textContent = filters.active.size
    ? ` of ${formatCount(N)} examples (${formatPercent(filters.count / N)})`
    : " examples";
  element("chips").replaceChildren(
    ...[...filters.active].map(([id, filter]) =>
      make(
        "li",
        {},
        make(
          "button",
          {
            type: "button",
            class: "chip",
            "aria-label": `Clear the filter ${describeFilter(id, filter)}`,
            onclick: () => filters.set(id, null),
          },
          describeFilter(id, filter),
          make("span", { "aria-hidden": "true" }, " ×"),
        ),
      ),
    ),
  );
  disable("clear-all", filters.active.size === 0);
  const picks = element("show-picked");
  picks.hidden = listed.picked.size === 0 && !filters.active.has(PICKED);
  picks.textContent = `Picked: ${formatCount(listed.picked.size)}`;
  picks.setAttribute("aria-pressed", String(filters.active.has(PICKED)));
  clearTimeout(announceTimer); // until the brush rests
  const text = `${formatCount(filters.count)} of ${formatCount(N)} examples shown`;
  // the page as it opens is no news; what follows is, however soon
  if (announced === "") announced = text;
  announceTimer = setTimeout(() => {
    if (announced !== text) announce(text);
    announced = text;
  }, 350);
}

/** @param {string} text for a screen reader */
function announce(text) {
  element("live").textContent = text;
}

/**
 * @param {string} id
 * @param {Filter} filter
 * @returns {string}
 */
function describeFilter(id, filter) {
  if (filter.kind === "rows") return `${formatCount(filter.rows.size)} picked`;
  const column = /** @type {Column} */ (COLUMNS.get(id));
  if (filter.kind === "codes") {
    const names = [...filter.codes].map((code) => nameCode(column, code));
    return `${column.title}: ${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`;
  }
  return `${column.title} ${formatValue(id, filter.lo)} to ${formatValue(id, filter.hi)}`;
}

/** The table of the shown examples beside all: count, mean and quantiles of each score that is shown. */
function updateSummary() {
  const rows = [...histograms.values()].map(({ column }) => {
    const values = readScore(column.id);
    const order = orderRows(column.id, false);
    let [n, sum, total, all] = [0, 0, 0, 0];
    for (let row = 0; row < N; row++) {
      if (values[row] !== values[row]) continue;
      all++;
      total += values[row];
      if (filters.masks[row] === 0) {
        n++;
        sum += values[row];
      }
    }
    const quantiles = [0.1, 0.5, 0.9].map((share) => Math.min(n - 1, Math.floor(share * n)));
    const found = [NaN, NaN, NaN];
    let k = 0;
    for (const row of order) {
      if (filters.masks[row] !== 0 || values[row] !== values[row]) continue;
      quantiles.forEach((place, which) => {
        if (place === k) found[which] = values[row];
      });
      k++;
    }
    const cell = (/** @type {number} */ value) => make("td", { class: "num" }, formatValue(column.id, value));
    return make(
      "tr",
      {},
      make("th", { scope: "row", title: column.name }, column.title),
      cell(n ? sum / n : NaN),
      cell(all ? total / all : NaN),
      ...found.map(cell),
    );
  });
  element("summary-body").replaceChildren(...rows);
  element("scatter-rho").textContent = "";
  if (scatter.x && scatter.y && scatter.x !== scatter.y && filters.count > 2) {
    const { rho, n } = correlate(scatter.x, scatter.y);
    element("scatter-rho").textContent = Number.isNaN(rho)
      ? ""
      : `Spearman's correlation ${formatFixed(rho, 3)} of the ` + `${formatCount(n)} shown`;
  }
}

// ---- the state in the link

/** @returns {string} the state of the page, without what is as it is at first */
function describeState() {
  const state = new URLSearchParams();
  const name = (/** @type {string} */ id) => (COLUMNS.get(id) || { name: id }).name;
  for (const [id, filter] of filters.active) {
    if (filter.kind === "range") state.append("range", `${filter.lo}~${filter.hi}~${name(id)}`);
    else if (filter.kind === "codes") state.append("only", `${[...filter.codes].join(".")}~${name(id)}`);
    else state.set("picked-only", "1");
  }
  const shown = [...histograms.keys()];
  if (shown.join(" ") !== initial.shown.join(" ")) for (const id of shown) state.append("show", name(id));
  if (listed.sort !== initial.sort) state.set("sort", name(listed.sort));
  const column = COLUMNS.get(listed.sort);
  const usual = column && (column.role === "id" || isCoded(column)) ? false : !column || column.direction !== -1;
  if (listed.descending !== usual) state.set("order", listed.descending ? "down" : "up");
  if (listed.view !== "gallery") state.set("view", listed.view);
  // the first example and not the page: phones have shorter ones
  if (listed.page) state.set("from", String(listed.page * countPerPage() + 1));
  if (scatter.x !== initial.x) state.set("x", name(scatter.x));
  if (scatter.y !== initial.y) state.set("y", name(scatter.y));
  if (logCounts) state.set("counts", "log");
  if (opened.row !== null) state.set("example", readIds()[opened.row]);
  for (const row of [...listed.picked].slice(0, 200)) state.append("pick", readIds()[row]);
  if (models.size > 1) {
    const [first, second] = [...models.keys()];
    if (compared.a !== first) state.set("a", compared.a);
    if (compared.b !== second) state.set("b", compared.b);
    if (compared.set !== "forget") state.set("compare", compared.set);
  }
  if (attackView.prior !== 0.5) state.set("prior", String(attackView.prior));
  return state.toString();
}

function writeHashSoon() {
  clearTimeout(hashTimer);
  hashTimer = setTimeout(() => {
    const state = describeState();
    if (location.hash.replace(/^#/, "") !== state) history.replaceState(null, "", state ? `#${state}` : "#");
  }, 200);
}

/** Put the page in the state of its link. What the link names and the page has not is left out, and said. */
function restoreState() {
  const state = new URLSearchParams(location.hash.replace(/^#/, ""));
  /** @type {string[]} */
  const unknown = [];
  const find = (/** @type {string} */ name) => {
    const column = findColumn(name);
    if (!column) unknown.push(name);
    return column;
  };
  const places =
    state.has("pick") || state.has("example")
      ? new Map(readIds().map((id, row) => /** @type {[string, number]} */ ([id, row])))
      : new Map();
  filters.clear();
  const shown = state
    .getAll("show")
    .map(find)
    .filter((column) => column !== undefined);
  const wanted = shown.length ? shown.map((column) => column.id) : initial.shown;
  for (const id of [...histograms.keys()]) if (!wanted.includes(id)) removeHistogram(id);
  for (const id of wanted) {
    const column = COLUMNS.get(id);
    if (column && SCORES.includes(column)) showScore(column, true);
  }
  for (const text of state.getAll("range")) {
    const [lo, hi, ...rest] = text.split("~");
    const column = find(rest.join("~"));
    if (!column || !SCORES.includes(column) || Number.isNaN(Number(lo)) || Number.isNaN(Number(hi))) continue;
    showScore(column, true);
    filters.set(column.id, { kind: "range", lo: Number(lo), hi: Number(hi) });
  }
  for (const text of state.getAll("only")) {
    const [codes, ...rest] = text.split("~");
    const column = find(rest.join("~"));
    if (!column || !isCoded(column)) continue;
    filters.set(column.id, { kind: "codes", codes: new Set(codes.split(".").map(Number)) });
  }
  listed.picked = new Set(
    state
      .getAll("pick")
      .filter((id) => places.has(id))
      .map((id) => Number(places.get(id))),
  );
  if (state.get("picked-only") && listed.picked.size) showPicked(true);
  const sort = state.get("sort") ? find(String(state.get("sort"))) : COLUMNS.get(initial.sort);
  if (sort) sortBy(sort.id, state.has("order") ? state.get("order") === "down" : undefined);
  listed.view = state.get("view") === "table" ? "table" : "gallery";
  const from = Math.floor(Number(state.get("from") || 1));
  listed.page = from > 1 ? Math.floor((from - 1) / countPerPage()) : 0;
  for (const axis of /** @type {const} */ (["x", "y"])) {
    const column = state.get(axis) ? find(String(state.get(axis))) : undefined;
    scatter[axis] = column && SCORES.includes(column) ? column.id : initial[axis];
  }
  setLogCounts(state.get("counts") === "log");
  const [first, second] = [...models.keys()];
  const a = String(state.get("a"));
  const b = String(state.get("b"));
  compared.a = models.has(a) ? a : first || "";
  compared.b = models.has(b) ? b : second || "";
  compared.set = ["retain", "shown", "all"].includes(String(state.get("compare")))
    ? String(state.get("compare"))
    : "forget";
  const prior = Number(state.get("prior") || 0.5);
  setPrior(prior > 0 && prior < 1 ? prior : 0.5);
  updateAll();
  const example = state.get("example");
  if (example !== null && places.has(example)) openExample(Number(places.get(example)));
  else if (opened.row !== null) closeExample();
  if (example !== null && !places.has(example)) unknown.push(example);
  element("link-note").hidden = unknown.length === 0;
  element("link-note").textContent = unknown.length
    ? `The link names what this page does not have: ${unknown.join(", ")}.`
    : "";
}

// ---- keys, colours, print

const KEYS = [
  ["?", "show these keys"],
  ["/", "find a score to show"],
  ["g", "gallery"],
  ["t", "table"],
  ["arrow keys", "move through gallery and table, or move the end of a brush that has the focus"],
  ["Enter", "open the example"],
  ["j, k", "next and previous example"],
  ["x", "pick the example"],
  ["e", "copy or download ids"],
  ["l", "counts linear or logarithmic"],
  ["d", "dark or light"],
  ["Escape", "close what is open, else clear the brush that has the focus, else all filters"],
];

/** @param {KeyboardEvent} event */
function pressKey(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return; // the browser closes a dialog by Escape
  const target = /** @type {HTMLElement} */ (event.target);
  const writes = target.matches("textarea, select, input:not([type=range]):not([type=checkbox]):not([type=radio])");
  if (event.key === "Escape") {
    if (writes) target.blur();
    const card = target.closest(".filter-card");
    const column = card instanceof HTMLElement ? findColumn(card.dataset.name || "") : undefined;
    if (column && filters.active.has(column.id)) filters.set(column.id, null);
    else if (opened.row !== null) closeExample();
    else if (!writes) filters.clear();
    event.preventDefault();
    return;
  }
  if (writes) return;
  const actions = /** @type {Record<string, () => void>} */ ({
    "?": () => /** @type {HTMLDialogElement} */ (element("keys")).showModal(),
    "/": () => {
      /** @type {HTMLDetailsElement} */ (element("filters-box")).open = true;
      /** @type {HTMLDetailsElement} */ (element("score-picker")).open = true;
      element("score-search").focus();
    },
    g: () => showView("gallery"),
    t: () => showView("table"),
    e: () => openExport(),
    l: () => setLogCounts(!logCounts),
    d: switchTheme,
    j: () => stepExample(1),
    k: () => stepExample(-1),
    x: () => {
      if (opened.row !== null) pick(opened.row);
    },
  });
  if (opened.row !== null && element("example").contains(target)) {
    actions.ArrowRight = () => stepExample(1);
    actions.ArrowLeft = () => stepExample(-1);
  }
  const action = actions[event.key];
  if (!action || (target.matches("input[type=range]") && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  action();
}

/** @param {boolean} log */
function setLogCounts(log) {
  logCounts = log;
  const button = element("log-counts");
  button.setAttribute("aria-pressed", String(log));
  refresh();
}

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  redrawAll();
}

const PRINTED_ROWS = 50;

/** Put on paper what is shown: the filters, the summary and the first rows as tables, and figures in dark on white. */
function preparePrint() {
  const root = document.documentElement;
  if (root.dataset.printing) return;
  root.dataset.printing = root.dataset.theme || "none";
  root.dataset.theme = "light";
  updateSummary();
  const columns = listTableColumns();
  const rows = listed.rows.subarray(0, PRINTED_ROWS);
  element("printed").replaceChildren(
    make("h3", {}, "Filters"),
    filters.active.size
      ? make(
          "table",
          { class: "data" },
          make(
            "thead",
            {},
            make("tr", {}, make("th", { scope: "col" }, "Column"), make("th", { scope: "col" }, "Shown")),
          ),
          make(
            "tbody",
            {},
            ...[...filters.active].map(([id, filter]) => {
              const column = COLUMNS.get(id);
              return make(
                "tr",
                {},
                make("th", { scope: "row" }, column ? column.title : "Picked by hand"),
                make(
                  "td",
                  {},
                  column
                    ? describeFilter(id, filter).slice(column.title.length).replace(/^:? /, "")
                    : describeFilter(id, filter),
                ),
              );
            }),
          ),
        )
      : make("p", {}, "None: all examples are shown."),
    make(
      "h3",
      {},
      `The first ${formatCount(rows.length)} of ${formatCount(listed.rows.length)} examples by ` +
        `${(COLUMNS.get(listed.sort) || { title: "" }).title}`,
    ),
    make(
      "table",
      { class: "data" },
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          ...columns.map((column) =>
            make("th", { scope: "col", class: column.role === "id" || isCoded(column) ? "" : "num" }, column.title),
          ),
        ),
      ),
      make(
        "tbody",
        {},
        ...[...rows].map((row) =>
          make(
            "tr",
            {},
            ...columns.map((column) => {
              if (column.role === "id") return make("td", { class: "id" }, readIds()[row]);
              if (isCoded(column)) return make("td", {}, nameCode(column, readCodes(column.id)[row]));
              return make(
                "td",
                { class: "num" },
                formatValue(column.id, readScore(column.id)[row]),
                " ",
                make("small", {}, formatInterval(column, row)),
              );
            }),
          ),
        ),
      ),
    ),
  );
  redrawAll();
}

function finishPrint() {
  const root = document.documentElement;
  if (!root.dataset.printing) return;
  if (root.dataset.printing === "none") delete root.dataset.theme;
  else root.dataset.theme = root.dataset.printing;
  delete root.dataset.printing;
  element("printed").replaceChildren();
  redrawAll();
}

// ---- the start

/** What the page shows at first; its link holds only what is otherwise. */
const initial = (() => {
  const chosen = SCORES.filter((column) => column.chosen);
  const shown = (chosen.length ? chosen : SCORES.slice(0, 4)).map((column) => column.id);
  const columns = shown.map((id) => /** @type {Column} */ (COLUMNS.get(id)));
  const first = columns.find((column) => column.direction === 1) || columns[0];
  const sort = first ? first.id : META.columns[0] ? META.columns[0].id : "";
  const second = columns.find((column) => column.group !== (first && first.group)) || columns[1] || first;
  return { shown, sort, x: sort, y: second ? second.id : sort };
})();

function start() {
  listed.sort = initial.sort;
  scatter.x = initial.x;
  scatter.y = initial.y;
  const hasScores = SCORES.length > 0;
  element("explore").hidden = N === 0;
  element("scatter-block").hidden = SCORES.length < 2;
  element("score-picker").hidden = !hasScores;
  element("keys-list").replaceChildren(...KEYS.flatMap(([key, text]) => [make("dt", {}, key), make("dd", {}, text)]));
  filters.listeners.push(refresh);
  fillScorePicker();
  for (const role of ["suspect", "class", "label_true", "left_out_answer", "split", "cluster"]) {
    for (const column of META.columns.filter((each) => each.role === role)) addFacet(column);
  }
  makeScatter();
  makeList();
  listenForExport();
  placeFigures();
  makeAttackFigures("attacks", META.attacks || []);
  makeAttackFigures("audits", META.audits || []);
  makeProxyFigures();
  makeUnlearningFigures();
  element("score-search").addEventListener("input", updateScorePicker);
  element("log-counts").addEventListener("click", () => setLogCounts(!logCounts));
  element("clear-all").addEventListener("click", () => filters.clear());
  element("show-picked").addEventListener("click", () => showPicked(!filters.active.has(PICKED)));
  element("copy-link").addEventListener("click", async () => {
    history.replaceState(null, "", `#${describeState()}`);
    announce((await copyText(location.href)) ? "link copied" : "the link is in the address bar");
    element("copy-link").textContent = "Link copied";
    setTimeout(() => {
      element("copy-link").textContent = "Copy link";
    }, 1500);
  });
  element("example-close").addEventListener("click", closeExample);
  element("example-back").addEventListener("click", () => stepExample(-1));
  element("example-next").addEventListener("click", () => stepExample(1));
  element("example-pick").addEventListener("click", () => {
    if (opened.row !== null) pick(opened.row);
  });
  element("theme").addEventListener("click", switchTheme);
  element("show-keys").addEventListener("click", () => /** @type {HTMLDialogElement} */ (element("keys")).showModal());
  element("keys-close").addEventListener("click", () => /** @type {HTMLDialogElement} */ (element("keys")).close());
  document.addEventListener("keydown", pressKey);
  for (const [name, down] of /** @type {[string, boolean][]} */ ([
    ["pointerdown", true],
    ["pointerup", false],
    ["pointercancel", false],
  ])) {
    window.addEventListener(
      name,
      () => {
        pointerIsDown = down;
      },
      true,
    );
  }
  // links within the page scroll, and leave the state in the address
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest('a[href^="#"]') : null;
    if (!link) return;
    const target = document.getElementById(decodeURIComponent(String(link.getAttribute("href")).slice(1)));
    event.preventDefault();
    if (target) {
      target.scrollIntoView();
      target.setAttribute("tabindex", "-1");
      target.focus({ preventScroll: true });
    }
  });
  window.addEventListener("hashchange", () => {
    if (location.hash.replace(/^#/, "") !== describeState()) restoreState();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  matchMedia("print").addEventListener("change", (event) => {
    if (event.matches) preparePrint();
    else finishPrint();
    redrawAll(); // in the colours of the medium
  });
  window.addEventListener("beforeprint", preparePrint);
  window.addEventListener("afterprint", finishPrint);
  // a phone shows the examples first, and the filters when they are asked for
  /** @type {HTMLDetailsElement} */ (element("filters-box")).open = matchMedia("(min-width: 60rem)").matches;
  restoreState();
  // a link to some of the examples shows them; their place is known when all is drawn
  if (filters.active.size || opened.row !== null) requestAnimationFrame(() => element("explore").scrollIntoView());
  // the frame that is drawn now is on the screen when a task after it runs
  requestAnimationFrame(() => setTimeout(() => performance.mark("report-painted")));
  document.documentElement.dataset.ready = "true";
  decodeLater(SCORES.map((column) => column.id));
}

/** Put the figures of each part behind its first lines, which say what it shows. */
function placeFigures() {
  for (const host of document.querySelectorAll("[data-plots]")) {
    const section = host.parentElement;
    const lines = section ? [...section.children].filter((each) => !each.matches("h2, [data-plots]")) : [];
    const lead = lines.findIndex((each) => !each.matches("p.lead, ul.warnings"));
    const before = lines[lead < 0 ? lines.length - 1 : lead - 1];
    if (before) before.after(host);
  }
}

/**
 * Decode the other columns when the browser has nothing else to do, so that the first example opens at once.
 * @param {string[]} ids
 */
function decodeLater(ids) {
  const idle = window.requestIdleCallback || ((/** @type {() => void} */ call) => setTimeout(call, 200));
  const next = () => {
    const id = ids.shift();
    if (id === undefined) return;
    readScore(id);
    idle(next);
  };
  idle(next);
}

start();
