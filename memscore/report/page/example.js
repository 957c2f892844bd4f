"use strict";
// One example: its image, how models trained on it and models that left it out answer, its scores with ranks, whom it
// helps and who helps it, its near copies, what each unlearning trial made of it, its image rebuilt from a gradient.

const opened = {
  /** @type {number | null} */
  row: null,
  /** what had the focus before the panel opened @type {Element | null} */
  before: null,
};

/** @param {number} row */
function openExample(row) {
  const panel = element("example");
  if (opened.row === null) opened.before = document.activeElement;
  opened.row = row;
  forgetPanelFigures();
  element("example-title").textContent = readIds()[row];
  element("example-body").replaceChildren(
    ...[
      describeImage(row),
      describeConfidence(row),
      describeTrials(row),
      describeInfluence(row),
      describeTwins(row),
      describeScores(row),
    ].filter((part) => part !== null),
  );
  panel.hidden = false;
  document.body.classList.add("with-example");
  element("example-body").scrollTop = 0;
  updateExamplePlace();
  refresh();
  const title = element("example-title");
  if (!panel.contains(document.activeElement)) title.focus({ preventScroll: true });
}

function closeExample() {
  if (opened.row === null) return;
  opened.row = null;
  forgetPanelFigures();
  element("example").hidden = true;
  document.body.classList.remove("with-example");
  const { before } = opened;
  opened.before = null;
  refresh();
  if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
  else if (listed.view === "gallery") focusCard(listed.cursor);
  else focusRow(listed.cursor, false);
}

/** @param {number} step through the shown examples in their order */
function stepExample(step) {
  if (opened.row === null) return;
  const place = listed.rows.indexOf(opened.row);
  const next = listed.rows[place < 0 ? 0 : Math.min(Math.max(place + step, 0), listed.rows.length - 1)];
  if (next !== undefined && next !== opened.row) openExample(next);
}

/** Say where the example is among those shown. */
function updateExamplePlace() {
  if (opened.row === null) return;
  const place = listed.rows.indexOf(opened.row);
  const column = COLUMNS.get(listed.sort);
  element("example-place").textContent =
    place < 0
      ? "not among the examples that the filters leave"
      : `${formatCount(place + 1)} of ${formatCount(listed.rows.length)} by ${column ? column.title : ""}`;
  const button = element("example-pick");
  const picked = listed.picked.has(opened.row);
  button.setAttribute("aria-pressed", String(picked));
  button.textContent = picked ? "Picked" : "Pick";
}

function forgetPanelFigures() {
  for (const canvas of element("example-body").querySelectorAll("canvas")) {
    if (canvas instanceof HTMLCanvasElement) forgetFigure(canvas);
  }
}

/** @param {number} row @returns {HTMLElement} */
function describeImage(row) {
  const facts = make("dl", { class: "facts" });
  const add = (/** @type {string} */ term, /** @type {string} */ text, /** @type {string} */ kind = "") =>
    facts.append(make("dt", {}, term), make("dd", { class: kind }, text));
  const label = findRole("class");
  const code = label ? readCodes(label.id)[row] : NO_CODE;
  if (label) add("Class", nameClass(code));
  for (const column of META.columns.filter((each) => isCoded(each) && each.role !== "class")) {
    const value = readCodes(column.id)[row];
    const differs = ["label_true", "left_out_answer"].includes(column.role) && value !== code && value !== NO_CODE;
    add(column.title, nameCode(column, value), differs || (column.role === "suspect" && value === 1) ? "differs" : "");
  }
  const place = META.rebuilt ? findIn(META.rebuilt.sprites, row) : undefined;
  const image = drawThumbnail(row);
  const rebuilt = place ? drawThumbnail(row, place) : null;
  return make(
    "div",
    { class: "example-top" },
    image ? make("figure", {}, image, rebuilt ? make("figcaption", {}, "Image") : null) : null,
    rebuilt
      ? make(
          "figure",
          {},
          rebuilt,
          make("figcaption", { title: META.rebuilt && META.rebuilt.about }, "Rebuilt from its gradient"),
        )
      : null,
    facts,
  );
}

/**
 * @param {Sprite[]} sprites
 * @param {number} row
 * @returns {{sprite: Sprite, place: number} | undefined}
 */
function findIn(sprites, row) {
  for (const sprite of sprites) {
    const place = sprite.rows.indexOf(row);
    if (place >= 0) return { sprite, place };
  }
  return undefined;
}

/** @param {number} row @returns {HTMLElement | null} */
function describeConfidence(row) {
  const parts = [];
  for (const arm of META.histograms || []) {
    const bins = arm.edges.length - 1;
    const [inside, outside] = [arm.in, arm.out].map((id) => [...readColumn(id).subarray(row * bins, (row + 1) * bins)]);
    const [held, left] = [inside, outside].map((counts) => counts.reduce((sum, count) => sum + count, 0));
    if (held + left === 0) continue;
    const canvas = makeFigure(
      `${arm.title}: ${held} models trained on it and ${left} that were not`,
      "pair",
      (context, width, height) => drawPair(context, width, height, arm, inside, outside),
    );
    parts.push(
      make(
        "figure",
        {},
        make("figcaption", { class: "above" }, make("strong", {}, arm.title)),
        canvas,
        makeLegend([
          { title: "trained on it", value: `${formatCount(held)} models`, colour: "var(--accent)", shape: "bar" },
          { title: "left it out", value: `${formatCount(left)} models`, colour: "var(--second)", shape: "bar" },
        ]),
        arm.about ? make("figcaption", {}, arm.about) : null,
      ),
    );
  }
  const shares = META.columns.filter((column) => column.role === "p_in" || column.role === "p_out");
  const bars = shares
    .filter((column) => !Number.isNaN(readScore(column.id)[row]))
    .map((column) => {
      const value = readScore(column.id)[row];
      const fill = make("i", { class: column.role === "p_in" ? "now in" : "now out" });
      fill.style.width = `${100 * Math.min(Math.max(value, 0), 1)}%`;
      return make(
        "li",
        {},
        make("span", { class: "name" }, column.title),
        make("span", { class: "bar", "aria-hidden": "true" }, fill),
        make("span", { class: "num" }, formatPercent(value)),
      );
    });
  if (!parts.length && !bars.length) return null;
  return make(
    "section",
    {},
    make("h4", {}, "Models trained on it, and models that left it out"),
    bars.length ? make("ul", { class: "shares" }, ...bars) : null,
    ...parts,
  );
}

/**
 * Two histograms, one upwards and one downwards, as shares of their models.
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {ArmHistogram} arm
 * @param {number[]} inside
 * @param {number[]} outside
 */
function drawPair(context, width, height, arm, inside, outside) {
  const colours = readColours();
  const box = { left: 8, top: 4, width: width - 16, height: height - 26 };
  const middle = Math.round(box.top + box.height / 2);
  const { edges } = arm;
  const x = makeLinear(edges[0], edges[edges.length - 1], box.left, box.left + box.width, 5);
  const sums = [inside, outside].map((counts) =>
    Math.max(
      1,
      counts.reduce((sum, count) => sum + count, 0),
    ),
  );
  const most = Math.max(...inside.map((count) => count / sums[0]), ...outside.map((count) => count / sums[1]));
  const room = box.height / 2 - 2;
  [
    [inside, -1, colours.accent, sums[0]],
    [outside, 1, colours.second, sums[1]],
  ].forEach((side) => {
    const [counts, sign, colour, sum] = /** @type {[number[], number, string, number]} */ (side);
    context.fillStyle = colour;
    counts.forEach((count, k) => {
      if (!count) return;
      const left = Math.round(x.map(edges[k]));
      const right = Math.round(x.map(edges[k + 1]));
      const tall = Math.max(1.5, (count / sum / most) * room);
      context.fillRect(left, sign < 0 ? middle - tall : middle + 1, Math.max(1, right - left - 1), tall);
    });
  });
  context.strokeStyle = colours.muted;
  drawLine(context, box.left, middle + 0.5, box.left + box.width, middle + 0.5);
  context.fillStyle = colours.muted;
  context.font = SMALL_FONT;
  context.textBaseline = "top";
  for (const tick of x.ticks) {
    const half = context.measureText(x.format(tick)).width / 2;
    context.textAlign = "center";
    context.fillText(x.format(tick), Math.min(Math.max(x.map(tick), half), width - half), box.top + box.height + 8);
  }
}

/** @param {number} row @returns {HTMLElement | null} */
function describeInfluence(row) {
  const influence = META.influence;
  if (!influence) return null;
  const parts = [];
  for (const [title, pairs] of /** @type {[string, number[][] | undefined][]} */ ([
    ["Examples that help it", influence.helped_by[row]],
    ["Examples it helps", influence.helps[row]],
  ])) {
    if (!pairs || !pairs.length) continue;
    parts.push(
      make("h5", {}, title),
      make(
        "ul",
        { class: "strip" },
        ...pairs.slice(0, 12).map(([other, value]) => make("li", {}, makeSmall(other, formatFixed(value, 2)))),
      ),
    );
  }
  return make(
    "section",
    {},
    make("h4", { title: influence.about }, "Influence"),
    ...(parts.length ? parts : [make("p", { class: "fine" }, "No stored pair has this example.")]),
  );
}

/** @param {number} row @returns {HTMLElement | null} */
function describeTwins(row) {
  const twins = (META.twins || {})[row];
  if (!twins || !twins.length) return null;
  return make(
    "section",
    {},
    make("h4", { title: META.twin_about }, twins.length === 1 ? "Near copy" : "Near copies"),
    make(
      "ul",
      { class: "strip" },
      ...twins.slice(0, 24).map((other) => {
        const label = findRole("class");
        return make("li", {}, makeSmall(other, label ? nameClass(readCodes(label.id)[other]) : ""));
      }),
    ),
    twins.length > 24 ? make("p", { class: "fine" }, `and ${twins.length - 24} more`) : null,
  );
}

/**
 * A small picture that opens its example.
 * @param {number} row
 * @param {string} text
 * @returns {HTMLElement}
 */
function makeSmall(row, text) {
  const id = readIds()[row];
  return make(
    "button",
    { type: "button", class: "small-card", title: id, "aria-label": `${id} ${text}`, onclick: () => openExample(row) },
    drawThumbnail(row),
    make("span", { class: "num" }, text),
    META.image ? null : make("span", { class: "card-id" }, id),
  );
}

/** @param {number} row @returns {HTMLElement | null} */
function describeTrials(row) {
  const trials = (META.trials || []).filter((trial) => trial.after);
  if (!trials.length) return null;
  const made = trials.map((trial) => {
    const value = (/** @type {string | null | undefined} */ id) => (id ? readScore(id)[row] : NaN);
    const forgets = isForgotten(trial, row);
    return make(
      "tr",
      { class: forgets ? "forgets" : "" },
      make(
        "th",
        { scope: "row" },
        make("span", {}, trial.title),
        make("small", { class: forgets ? "badge" : "muted" }, forgets ? "in its forget set" : "retained"),
      ),
      ...[trial.before, trial.after, trial.oracle].map((id) =>
        make("td", { class: "num" }, Number.isNaN(value(id)) ? "–" : formatFixed(value(id), 3)),
      ),
    );
  });
  return make(
    "section",
    {},
    make("h4", {}, "What unlearning made of it"),
    make(
      "p",
      { class: "fine" },
      "The probability of its label. Unlearning worked where after is as the oracle says, " +
        "a model retrained without the forget set.",
    ),
    make(
      "div",
      { class: "scroll short" },
      make(
        "table",
        { class: "data" },
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            make("th", { scope: "col" }, "Trial"),
            ...["before", "after", "oracle"].map((text) => make("th", { scope: "col", class: "num" }, text)),
          ),
        ),
        make("tbody", {}, ...made),
      ),
    ),
  );
}

/** @type {Map<string, Uint8Array>} */
const forgetSets = new Map();

/**
 * @param {Trial} trial
 * @returns {Uint8Array} 1 for each row of its forget set
 */
function readForgetSet(trial) {
  let set = forgetSets.get(trial.id);
  if (!set) {
    set = new Uint8Array(N);
    if (trial.forget) set.set(readColumn(trial.forget));
    for (const row of trial.forget_rows || []) set[row] = 1;
    forgetSets.set(trial.id, set);
  }
  return set;
}

/** @param {Trial} trial @param {number} row @returns {boolean} */
function isForgotten(trial, row) {
  return readForgetSet(trial)[row] === 1;
}

/** @param {number} row @returns {HTMLElement} */
function describeScores(row) {
  /** @type {Map<string, Column[]>} */
  const groups = new Map();
  for (const column of SCORES) {
    const group = column.group || "Scores";
    groups.set(group, [...(groups.get(group) || []), column]);
  }
  const bodies = [...groups].map(([group, columns]) =>
    make(
      "tbody",
      {},
      groups.size > 1 ? make("tr", { class: "group" }, make("th", { scope: "colgroup", colspan: 4 }, group)) : null,
      ...columns.map((column) => {
        const value = readScore(column.id)[row];
        const ranked = rankRow(column, row);
        const bar = make("span", { class: "rank-bar", "aria-hidden": "true" });
        const mark = make("i", {});
        mark.style.width = ranked ? `${Math.max(2, 100 * (1 - (ranked.rank - 1) / Math.max(1, ranked.of - 1)))}%` : "0";
        bar.append(mark);
        return make(
          "tr",
          {},
          make(
            "th",
            {
              scope: "row",
              title: [column.name, column.about || column.source, describeDirection(column)].filter(Boolean).join("; "),
            },
            column.title,
          ),
          make(
            "td",
            { class: "num" },
            formatValue(column.id, value),
            " ",
            make("small", { class: "muted" }, formatInterval(column, row)),
          ),
          make("td", { class: "num" }, ranked ? formatCount(ranked.rank) : "–"),
          make("td", {}, bar),
        );
      }),
    ),
  );
  return make(
    "section",
    {},
    make("h4", {}, "Scores"),
    make("p", { class: "fine" }, `Rank 1 of ${formatCount(N)} is the most memorized or riskiest.`),
    make(
      "div",
      { class: "scroll" },
      make(
        "table",
        { class: "data scores" },
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            make("th", { scope: "col" }, "Score"),
            make("th", { scope: "col", class: "num" }, "Value"),
            make("th", { scope: "col", class: "num" }, "Rank"),
            make("td", {}),
          ),
        ),
        ...bodies,
      ),
    ),
  );
}
