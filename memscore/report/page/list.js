"use strict";
// The shown examples in order of a score: as a gallery, and as a table of which only the rows in view are made.

const PER_GALLERY = 60;
const PER_NARROW_GALLERY = 24;
const PER_TABLE = 1000;
const ROW_HEIGHT = 34;

const listed = {
  /** @type {"gallery" | "table"} */
  view: "gallery",
  sort: "",
  descending: true,
  page: 0,
  /** @type {Int32Array} */
  rows: new Int32Array(0),
  /** where the arrow keys are */
  cursor: 0,
  /** @type {Set<number>} */
  picked: new Set(),
  /** cards of the gallery, and what they were made for @type {Map<number, {key: string, item: HTMLElement}>} */
  cards: new Map(),
  /** changes with every update, so that rows are made anew */
  version: 0,
  /** what of the table is on the page */
  drawn: "",
};

/** @returns {number} examples on a page */
function countPerPage() {
  if (listed.view === "table") return PER_TABLE;
  return matchMedia("(max-width: 32rem)").matches ? PER_NARROW_GALLERY : PER_GALLERY;
}

/** Fill the controls and listen for keys. */
function makeList() {
  const select = /** @type {HTMLSelectElement} */ (element("sort"));
  fillScoreSelect(select, SCORES);
  const others = META.columns.filter((column) => column.role === "id" || isCoded(column));
  const group = make("optgroup", { label: "Others" });
  for (const column of others) group.append(make("option", { value: column.id }, column.title));
  if (others.length) select.append(group);
  select.addEventListener("change", () => sortBy(select.value));
  element("sort-direction").addEventListener("click", () => sortBy(listed.sort, !listed.descending));
  for (const view of /** @type {const} */ (["gallery", "table"])) {
    element(`view-${view}`).addEventListener("click", () => showView(view));
  }
  for (const [id, step] of /** @type {[string, (page: number) => number][]} */ ([
    ["page-first", () => 0],
    ["page-back", (page) => page - 1],
    ["page-next", (page) => page + 1],
    ["page-last", () => Infinity],
  ])) {
    element(id).addEventListener("click", () => showPage(step(listed.page)));
  }
  element("table-scroll").addEventListener("scroll", () => drawTableRows(), { passive: true });
  element("gallery").addEventListener("keydown", (event) => moveInGallery(event));
  element("table-scroll").addEventListener("keydown", (event) => moveInTable(event));
}

/** @param {string} id @param {boolean} [descending] */
function sortBy(id, descending) {
  const column = COLUMNS.get(id);
  if (!column) return;
  const usual = column.role === "id" || isCoded(column) ? false : column.direction !== -1;
  listed.descending = descending === undefined ? usual : descending;
  listed.sort = id;
  listed.page = 0;
  listed.cursor = 0;
  refresh();
}

/** @param {"gallery" | "table"} view */
function showView(view) {
  if (view === listed.view) return;
  const first = listed.page * countPerPage();
  listed.view = view;
  listed.page = Math.floor(first / countPerPage());
  listed.cursor = 0;
  refresh();
}

/** @param {number} page */
function showPage(page) {
  const last = Math.max(0, Math.ceil(listed.rows.length / countPerPage()) - 1);
  listed.page = Math.min(Math.max(page, 0), last);
  listed.cursor = 0;
  element("table-scroll").scrollTop = 0;
  refresh();
}

/** List the shown examples again, and draw the view. */
function updateList() {
  listed.rows = filters.list(orderRows(listed.sort, listed.descending));
  listed.version++;
  const perPage = countPerPage();
  listed.page = Math.min(listed.page, Math.max(0, Math.ceil(listed.rows.length / perPage) - 1));
  const first = listed.page * perPage;
  const last = Math.min(first + perPage, listed.rows.length);
  element("page-place").textContent = listed.rows.length
    ? `${formatCount(first + 1)}–${formatCount(last)} of ${formatCount(listed.rows.length)}`
    : "none";
  for (const id of ["page-first", "page-back"]) disable(id, listed.page === 0);
  for (const id of ["page-next", "page-last"]) disable(id, last >= listed.rows.length);
  /** @type {HTMLSelectElement} */ (element("sort")).value = listed.sort;
  const direction = element("sort-direction");
  direction.textContent = listed.descending ? "highest first ↓" : "lowest first ↑";
  for (const view of ["gallery", "table"]) {
    element(`view-${view}`).setAttribute("aria-pressed", String(view === listed.view));
    element(`${view}-view`).hidden = view !== listed.view;
  }
  element("no-rows").hidden = listed.rows.length > 0;
  if (listed.view === "gallery") drawGallery(listed.rows.subarray(first, last));
  else drawTable();
}

/** @param {string} id @param {boolean} disabled */
function disable(id, disabled) {
  /** @type {HTMLButtonElement} */ (element(id)).disabled = disabled;
}

/** @param {Int32Array} rows */
function drawGallery(rows) {
  const gallery = element("gallery");
  const hadFocus = gallery.contains(document.activeElement);
  listed.cursor = Math.min(listed.cursor, Math.max(0, rows.length - 1));
  /** @type {typeof listed.cards} */
  const cards = new Map();
  const items = [...rows].map((row, place) => {
    // while a brush moves, most cards stay
    const key = [listed.sort, listed.picked.has(row), opened.row === row].join(" ");
    const known = listed.cards.get(row);
    const card = known && known.key === key ? known : { key, item: make("li", {}, makeCard(row)) };
    cards.set(row, card);
    if (card.item.firstElementChild)
      card.item.firstElementChild.setAttribute("tabindex", place === listed.cursor ? "0" : "-1");
    return card.item;
  });
  listed.cards = cards;
  const same = items.length === gallery.childElementCount && items.every((item, k) => gallery.children[k] === item);
  if (!same) gallery.replaceChildren(...items);
  if (hadFocus && !gallery.contains(document.activeElement)) focusCard(listed.cursor);
}

/**
 * @param {number} row
 * @returns {HTMLElement}
 */
function makeCard(row) {
  const column = /** @type {Column} */ (COLUMNS.get(listed.sort));
  const shown = SCORES.includes(column) ? column : null;
  const id = readIds()[row];
  const button = make(
    "button",
    {
      type: "button",
      class: "card",
      tabindex: -1,
      "data-row": row,
      "aria-label": describeExample(row),
      onclick: () => {
        listed.cursor = Math.max(0, listed.rows.indexOf(row) - listed.page * countPerPage());
        openExample(row);
      },
    },
    drawThumbnail(row),
    shown
      ? make(
          "span",
          { class: "card-value num" },
          formatValue(shown.id, readScore(shown.id)[row]),
          " ",
          make("small", {}, formatInterval(shown, row)),
        )
      : null,
    ...describeLabels(row).map((line) => make("span", { class: line.class }, line.text)),
    make("span", { class: "card-id", title: id }, id),
  );
  if (listed.picked.has(row)) button.classList.add("picked");
  if (opened.row === row) button.classList.add("open");
  return button;
}

/**
 * What is known of an example's label: its class, the label before noise, what left-out models answer, its twins.
 * @param {number} row
 * @returns {{class: string, text: string}[]}
 */
function describeLabels(row) {
  const lines = [];
  const label = findRole("class");
  const original = findRole("label_true");
  const answer = findRole("left_out_answer");
  const share = findRole("left_out_share");
  const suspect = findRole("suspect");
  const code = label ? readCodes(label.id)[row] : NO_CODE;
  const name = nameClass(code);
  if (label) lines.push({ class: "card-class", text: /^\d+$/.test(name) ? `label ${name}` : name });
  if (original && readCodes(original.id)[row] !== code && readCodes(original.id)[row] !== NO_CODE) {
    lines.push({ class: "card-note", text: `true label: ${nameClass(readCodes(original.id)[row])}` });
  }
  if (answer && readCodes(answer.id)[row] !== NO_CODE) {
    const answered = readCodes(answer.id)[row];
    const how = share && !Number.isNaN(readScore(share.id)[row]) ? ` (${formatPercent(readScore(share.id)[row])})` : "";
    lines.push({
      class: answered === code ? "card-note" : "card-note other",
      text: `left-out models: ${answered === code ? "the same" : nameClass(answered)}${how}`,
    });
  }
  if (suspect && readCodes(suspect.id)[row] === 1) lines.push({ class: "badge warn", text: "suspected wrong label" });
  const twins = (META.twins || {})[row];
  if (twins) lines.push({ class: "badge", text: twins.length === 1 ? "1 near copy" : `${twins.length} near copies` });
  return lines;
}

/** @param {number} row @returns {string} */
function describeExample(row) {
  const column = COLUMNS.get(listed.sort);
  const value =
    column && SCORES.includes(column)
      ? `, ${column.title} ${formatValue(column.id, readScore(column.id)[row])} ${formatInterval(column, row)}`
      : "";
  return `${readIds()[row]}${value}, ${describeLabels(row)
    .map((line) => line.text)
    .join(", ")}`;
}

/** @param {number} place */
function focusCard(place) {
  const cards = element("gallery").querySelectorAll("button.card");
  const card = cards[place];
  if (!(card instanceof HTMLElement)) return;
  cards.forEach((each, k) => each.setAttribute("tabindex", k === place ? "0" : "-1"));
  listed.cursor = place;
  card.focus();
}

/** @param {KeyboardEvent} event */
function moveInGallery(event) {
  const cards = [...element("gallery").querySelectorAll("button.card")];
  const place = cards.indexOf(/** @type {Element} */ (document.activeElement));
  if (place < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const top = cards[0].getBoundingClientRect().top;
  const across = Math.max(
    1,
    cards.findIndex((card) => card.getBoundingClientRect().top > top + 4),
  );
  const columns = cards[cards.length - 1].getBoundingClientRect().top <= top + 4 ? cards.length : across;
  const steps = /** @type {Record<string, number>} */ ({
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -columns,
    ArrowDown: columns,
    Home: -place,
    End: cards.length - 1 - place,
  });
  if (event.key === "x") pick(Number(/** @type {HTMLElement} */ (cards[place]).dataset.row));
  else if (event.key === "PageDown" || event.key === "PageUp") {
    showPage(listed.page + (event.key === "PageDown" ? 1 : -1));
    updateAll();
    focusCard(0);
  } else if (event.key in steps) focusCard(Math.min(Math.max(place + steps[event.key], 0), cards.length - 1));
  else return;
  event.preventDefault();
}

/** @returns {Column[]} the columns of the table: id, class, the score it is sorted by, the scores shown, other names */
function listTableColumns() {
  const first = META.columns.filter((column) => column.role === "id" || column.role === "class");
  const others = META.columns.filter((column) => isCoded(column) && column.role !== "class");
  const sorted = COLUMNS.get(listed.sort);
  const shown = [...histograms.values()].map(({ column }) => column).filter((column) => column !== sorted);
  return [...first, ...(sorted && SCORES.includes(sorted) ? [sorted] : []), ...shown, ...others];
}

/** Draw the head of the table, and make room for the rows of this page. */
function drawTable() {
  const columns = listTableColumns();
  const head = element("table-head");
  const shown = columns.map((column) => {
    const sorted = column.id === listed.sort;
    const isText = column.role === "id" || isCoded(column);
    return make(
      "th",
      {
        scope: "col",
        class: isText ? "" : "num",
        role: "columnheader",
        "aria-sort": sorted ? (listed.descending ? "descending" : "ascending") : "none",
      },
      make(
        "button",
        {
          type: "button",
          title: [column.name, column.about || column.source].filter(Boolean).join(": "),
          onclick: () => sortBy(column.id, sorted ? !listed.descending : undefined),
        },
        column.title,
        make("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (listed.descending ? " ↓" : " ↑") : ""),
      ),
    );
  });
  const image = META.image
    ? [make("th", { scope: "col", role: "columnheader" }, make("span", { class: "hidden-text" }, "Image"))]
    : [];
  const had = head.contains(document.activeElement);
  head.replaceChildren(
    make(
      "tr",
      { role: "row" },
      make("th", { scope: "col", role: "columnheader", class: "num" }, "#"),
      ...image,
      ...shown,
    ),
  );
  if (had) {
    const again = head.querySelector("[aria-sort=ascending] button, [aria-sort=descending] button");
    if (again instanceof HTMLElement) again.focus();
  }
  element("table-rows").setAttribute("aria-rowcount", String(listed.rows.length + 1));
  listed.drawn = "";
  drawTableRows();
}

/** Make the rows that are in view, and a few above and below. */
function drawTableRows() {
  const scroll = element("table-scroll");
  if (element("table-view").hidden) return;
  const first = listed.page * PER_TABLE;
  const count = Math.min(PER_TABLE, listed.rows.length - first);
  const from = Math.max(0, Math.floor(scroll.scrollTop / ROW_HEIGHT) - 8);
  const to = Math.min(count, Math.ceil((scroll.scrollTop + scroll.clientHeight) / ROW_HEIGHT) + 8);
  const key = [from, to, listed.version, listed.cursor].join(" ");
  if (listed.drawn === key) return;
  const columns = listTableColumns();
  const body = element("table-body");
  const focused = body.contains(document.activeElement);
  const spacer = (/** @type {number} */ rows) => {
    const made = make("tr", { class: "spacer", "aria-hidden": "true" }, make("td", { colspan: columns.length + 2 }));
    made.style.height = `${rows * ROW_HEIGHT}px`;
    return made;
  };
  const made = [];
  for (let place = from; place < to; place++)
    made.push(makeTableRow(columns, listed.rows[first + place], first + place));
  body.replaceChildren(spacer(from), ...made, spacer(count - to));
  listed.drawn = key;
  if (focused) focusRow(listed.cursor, false);
}

/**
 * @param {Column[]} columns
 * @param {number} row
 * @param {number} place among all that are shown
 * @returns {HTMLElement}
 */
function makeTableRow(columns, row, place) {
  const onPage = place - listed.page * PER_TABLE;
  const made = make(
    "tr",
    {
      role: "row",
      "aria-rowindex": place + 2,
      "data-row": row,
      "data-place": onPage,
      tabindex: onPage === listed.cursor ? 0 : -1,
      class: [listed.picked.has(row) ? "picked" : "", opened.row === row ? "open" : ""].join(" ").trim(),
      onclick: () => {
        listed.cursor = onPage;
        openExample(row);
      },
    },
    make("td", { class: "num muted" }, formatCount(place + 1)),
    META.image ? make("td", { class: "image" }, drawThumbnail(row)) : null,
    ...columns.map((column) => {
      if (column.role === "id") {
        return make("td", { class: "id" }, make("span", { title: readIds()[row] }, readIds()[row]));
      }
      if (isCoded(column)) return make("td", { class: "name" }, nameCode(column, readCodes(column.id)[row]));
      return make(
        "td",
        { class: "num" },
        formatValue(column.id, readScore(column.id)[row]),
        " ",
        make("small", {}, formatInterval(column, row)),
      );
    }),
  );
  return made;
}

/** @param {number} place on the page @param {boolean} [scrolls] */
function focusRow(place, scrolls = true) {
  const count = Math.min(PER_TABLE, listed.rows.length - listed.page * PER_TABLE);
  listed.cursor = Math.min(Math.max(place, 0), Math.max(0, count - 1));
  const scroll = element("table-scroll");
  if (scrolls) {
    const top = listed.cursor * ROW_HEIGHT;
    const room = scroll.clientHeight - 2 * ROW_HEIGHT;
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (top > scroll.scrollTop + room) scroll.scrollTop = top - room;
    drawTableRows();
  }
  const row = element("table-body").querySelector(`tr[data-place="${listed.cursor}"]`);
  for (const other of element("table-body").querySelectorAll("tr[tabindex]")) other.setAttribute("tabindex", "-1");
  if (row instanceof HTMLElement) {
    row.setAttribute("tabindex", "0");
    row.focus({ preventScroll: true });
  }
}

/** @param {KeyboardEvent} event */
function moveInTable(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const row = document.activeElement;
  if (!(row instanceof HTMLElement) || row.dataset.place === undefined) return;
  const place = Number(row.dataset.place);
  const steps = /** @type {Record<string, number>} */ ({
    ArrowUp: -1,
    ArrowDown: 1,
    PageUp: -12,
    PageDown: 12,
    Home: -place,
    End: PER_TABLE,
  });
  if (event.key in steps) focusRow(place + steps[event.key]);
  else if (event.key === "Enter" || event.key === " ") openExample(Number(row.dataset.row));
  else if (event.key === "x") pick(Number(row.dataset.row));
  else return;
  event.preventDefault();
}

/** @param {number} row that is picked by hand, or not any more */
function pick(row) {
  if (!listed.picked.delete(row)) listed.picked.add(row);
  if (filters.active.has(PICKED)) showPicked(listed.picked.size > 0);
  announce(
    `${readIds()[row]} ${listed.picked.has(row) ? "picked" : "not picked any more"}; ` +
      `${formatCount(listed.picked.size)} picked`,
  );
  refresh();
}

/** @param {boolean} only */
function showPicked(only) {
  filters.set(PICKED, only ? { kind: "rows", rows: new Set(listed.picked) } : null);
}
