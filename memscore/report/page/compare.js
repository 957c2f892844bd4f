"use strict";
// Unlearned models side by side: the probability of each example's label by A and by B, and who changed.

const compared = {
  a: "",
  b: "",
  set: "forget",
  /** those with a value of both, the largest change first @type {number[]} */
  rows: [],
};
const LISTED_CHANGES = 200;

/**
 * @typedef {{id: string, title: string, column: string, trial: Trial | null}} Model what has a probability of the label
 *   for every example: an unlearned model, its original, or the oracles of its forget set
 */

/** @type {Map<string, Model>} */
const models = new Map();

/** @returns {boolean} whether there are two models to compare */
function findModels() {
  for (const trial of META.trials || []) {
    if (trial.after) models.set(trial.id, { id: trial.id, title: trial.title, column: trial.after, trial });
  }
  for (const trial of META.trials || []) {
    for (const [column, title] of /** @type {[string | null | undefined, string][]} */ ([
      [trial.before, "Original (before unlearning)"],
      [trial.oracle, "Oracle (retrained without the forget set)"],
    ])) {
      if (!column || models.has(column)) continue;
      const same = [...models.values()].some((model) => model.trial === null && model.title === title);
      models.set(column, { id: column, title: same ? `${title}, of ${trial.title}` : title, column, trial: null });
    }
  }
  return models.size > 1 && [...models.values()].some((model) => model.trial !== null);
}

/** @returns {HTMLElement} the whole view */
function makeComparison() {
  const [first, second] = [...models.keys()];
  if (!models.has(compared.a)) compared.a = first;
  if (!models.has(compared.b)) compared.b = second;
  const select = (/** @type {"a" | "b"} */ side) => {
    const made = /** @type {HTMLSelectElement} */ (
      make(
        "select",
        {
          id: `compare-${side}`,
          onchange: () => {
            compared[side] = made.value;
            refresh();
          },
        },
        ...[...models.values()].map((model) => make("option", { value: model.id }, model.title)),
      )
    );
    return made;
  };
  const sets = make(
    "select",
    {
      id: "compare-set",
      onchange: (/** @type {Event} */ event) => {
        compared.set = /** @type {HTMLSelectElement} */ (event.target).value;
        refresh();
      },
    },
    make("option", { value: "forget" }, "forget set"),
    make("option", { value: "retain" }, "retain set"),
    make("option", { value: "shown" }, "examples shown in the explorer"),
    make("option", { value: "all" }, "all examples"),
  );
  const canvas = makeFigure("Probability of the label by A and by B", "square", drawComparison);
  canvas.id = "compare-figure";
  canvas.addEventListener("click", (event) => {
    const row = findCompared(event);
    if (row !== null) openExample(row);
  });
  return make(
    "div",
    { class: "comparison" },
    make("h3", {}, "A against B: who changed"),
    make(
      "p",
      { class: "lead" },
      "The probability that two models give the label of each example. Examples off the " +
        "diagonal are those on which the models differ.",
    ),
    make(
      "div",
      { class: "controls" },
      make("label", {}, "A ", select("a")),
      make("label", {}, "B ", select("b")),
      make("label", {}, "Examples ", sets),
      make("button", { type: "button", id: "compare-export", onclick: () => openExport("changed") }, "Export ids…"),
    ),
    make(
      "div",
      { class: "side-by-side" },
      make("figure", {}, canvas, make("figcaption", { id: "compare-caption" })),
      make(
        "div",
        {},
        make("div", { id: "compare-measures" }),
        make(
          "div",
          { class: "scroll tall", tabindex: 0, role: "region", "aria-label": "Examples that differ most" },
          make("table", { class: "data", id: "compare-table" }),
        ),
      ),
    ),
  );
}

/** @returns {Trial | null} whose forget set is looked at */
function findComparedTrial() {
  for (const side of [compared.a, compared.b]) {
    const model = models.get(side);
    if (model && model.trial) return model.trial;
  }
  return (META.trials || [])[0] || null;
}

/** @returns {(row: number) => boolean} */
function chooseCompared() {
  const trial = findComparedTrial();
  const set = trial ? readForgetSet(trial) : new Uint8Array(N);
  if (compared.set === "forget") return (row) => set[row] === 1;
  if (compared.set === "retain") return (row) => set[row] === 0;
  if (compared.set === "shown") return (row) => filters.masks[row] === 0;
  return () => true;
}

function updateComparison() {
  const canvas = document.getElementById("compare-figure");
  const [a, b] = [models.get(compared.a), models.get(compared.b)];
  if (!(canvas instanceof HTMLCanvasElement) || !a || !b) return;
  for (const side of /** @type {const} */ (["a", "b"])) {
    /** @type {HTMLSelectElement} */ (element(`compare-${side}`)).value = compared[side];
  }
  /** @type {HTMLSelectElement} */ (element("compare-set")).value = compared.set;
  const [xs, ys] = [readScore(a.column), readScore(b.column)];
  const chosen = chooseCompared();
  const change = new Float32Array(N).fill(NaN);
  let [n, onlyA, onlyB, sum] = [0, 0, 0, 0];
  for (let row = 0; row < N; row++) {
    const difference = ys[row] - xs[row];
    if (!chosen(row) || difference !== difference) continue;
    n++;
    sum += difference;
    change[row] = Math.abs(difference);
    if (xs[row] > 0.5 && ys[row] <= 0.5) onlyA++;
    if (ys[row] > 0.5 && xs[row] <= 0.5) onlyB++;
  }
  compared.rows = [...sortRows(change, true).subarray(0, n)];
  redraw(canvas);
  canvas.setAttribute(
    "aria-label",
    `Probability of the label by A, ${a.title}, and by B, ${b.title}, of ${n} examples`,
  );
  element("compare-caption").textContent =
    n === 0
      ? "No example of this kind has both values."
      : `${formatCount(n)} examples; B is ${formatFixed(Math.abs(sum / n), 3)} ${sum < 0 ? "lower" : "higher"} on average; ` +
        `over one half by A only: ${formatCount(onlyA)}, by B only: ${formatCount(onlyB)}.`;
  const label = findRole("class");
  const trial = findComparedTrial();
  element("compare-table").replaceChildren(
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        META.image ? make("th", { scope: "col" }, make("span", { class: "hidden-text" }, "Image")) : null,
        make("th", { scope: "col" }, "Example"),
        ...["A", "B", "B − A"].map((text) => make("th", { scope: "col", class: "num" }, text)),
        make("th", { scope: "col" }, "Set"),
      ),
    ),
    make(
      "tbody",
      {},
      ...compared.rows
        .slice(0, LISTED_CHANGES)
        .map((row) =>
          make(
            "tr",
            { "data-row": row },
            META.image ? make("td", { class: "image" }, drawThumbnail(row)) : null,
            make(
              "td",
              { class: "id" },
              make(
                "button",
                { type: "button", class: "link", title: readIds()[row], onclick: () => openExample(row) },
                readIds()[row],
              ),
              label ? make("small", { class: "muted" }, nameClass(readCodes(label.id)[row])) : null,
            ),
            make("td", { class: "num" }, formatFixed(xs[row], 3)),
            make("td", { class: "num" }, formatFixed(ys[row], 3)),
            make("td", { class: "num" }, `${ys[row] >= xs[row] ? "+" : ""}${formatFixed(ys[row] - xs[row], 3)}`),
            make("td", {}, trial && isForgotten(trial, row) ? "forget" : "retain"),
          ),
        ),
    ),
  );
  drawMeasures(a, b);
}

/**
 * The measures of two trials side by side, with the range of the oracles.
 * @param {Model} a
 * @param {Model} b
 */
function drawMeasures(a, b) {
  const place = element("compare-measures");
  const [first, second] = [a, b].map((model) => (model.trial && model.trial.measures) || []);
  const titles = [...new Set([...first, ...second].map((measured) => measured.title))];
  place.replaceChildren();
  if (!titles.length) return;
  const cell = (/** @type {Measured | undefined} */ measured) => {
    if (!measured || measured.value === null) return make("td", { class: "num" }, "–");
    const inside = measured.oracle && measured.value >= measured.oracle[0] && measured.value <= measured.oracle[1];
    return make(
      "td",
      {
        class: `num ${measured.oracle ? (inside ? "good" : "off") : ""}`,
        title: inside ? "within the range of the oracles" : "",
      },
      formatNumber(measured.value),
    );
  };
  place.append(
    make(
      "div",
      { class: "scroll" },
      make(
        "table",
        { class: "data" },
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            make("th", { scope: "col" }, "Measure"),
            ...["A", "B", "Oracles"].map((text) => make("th", { scope: "col", class: "num" }, text)),
          ),
        ),
        make(
          "tbody",
          {},
          ...titles.map((title) => {
            const [one, other] = [first, second].map((list) => list.find((measured) => measured.title === title));
            const oracle = (one && one.oracle) || (other && other.oracle);
            return make(
              "tr",
              {},
              make("th", { scope: "row", title: (one || other || {}).about }, title),
              cell(one),
              cell(other),
              make("td", { class: "num" }, oracle ? `${formatNumber(oracle[0])} to ${formatNumber(oracle[1])}` : "–"),
            );
          }),
        ),
      ),
    ),
  );
}

/** @type {{x: Scale, y: Scale} | null} */
let comparedScales = null;

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 */
function drawComparison(context, width, height) {
  const [a, b] = [models.get(compared.a), models.get(compared.b)];
  if (!a || !b) return;
  const colours = readColours();
  const box = { left: 48, top: 28, width: width - 62, height: height - 28 - 44 };
  const x = makeLinear(0, 1, box.left, box.left + box.width, 5);
  const y = makeLinear(0, 1, box.top + box.height, box.top, 5);
  comparedScales = { x, y };
  drawAxes(context, box, x, y, { x: `A: ${a.title}`, y: `B: ${b.title}` });
  context.strokeStyle = colours.muted;
  context.setLineDash([4, 4]);
  drawLine(context, x.map(0), y.map(0), x.map(1), y.map(1));
  context.setLineDash([]);
  const [xs, ys] = [readScore(a.column), readScore(b.column)];
  const trial = findComparedTrial();
  const set = trial ? readForgetSet(trial) : new Uint8Array(N);
  const radius = compared.rows.length > 3000 ? 1.3 : compared.rows.length > 400 ? 2 : 3;
  context.globalAlpha = compared.rows.length > 3000 ? 0.35 : 0.7;
  for (const forgotten of [0, 1]) {
    // the forget set above the others
    context.fillStyle = forgotten ? colours.second : colours.accent;
    for (const row of compared.rows)
      if (set[row] === forgotten) drawDot(context, x.map(xs[row]), y.map(ys[row]), radius);
  }
  context.globalAlpha = 1;
}

/** @param {MouseEvent} event @returns {number | null} */
function findCompared(event) {
  const [a, b] = [models.get(compared.a), models.get(compared.b)];
  if (!comparedScales || !a || !b) return null;
  const rectangle = /** @type {Element} */ (event.target).getBoundingClientRect();
  const [left, top] = [event.clientX - rectangle.left, event.clientY - rectangle.top];
  const [xs, ys] = [readScore(a.column), readScore(b.column)];
  let nearest = null;
  let best = 100;
  for (const row of compared.rows) {
    const distance = (comparedScales.x.map(xs[row]) - left) ** 2 + (comparedScales.y.map(ys[row]) - top) ** 2;
    if (distance < best) [best, nearest] = [distance, row];
  }
  return nearest;
}
