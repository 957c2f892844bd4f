"use strict";
// Two scores against each other: how many examples lie at each place, and Spearman's correlation of those shown.

const scatter = {
  x: "",
  y: "",
  /** cell of each row in the plot, -1 outside @type {Int32Array} */
  places: new Int32Array(0),
  /** rows of each cell, whatever the filters @type {Uint32Array} */
  all: new Uint32Array(0),
  key: "",
  /** @type {HTMLCanvasElement | null} */
  canvas: null,
  /** @type {{x: Scale, y: Scale, box: Box} | null} */
  frame: null,
  /** @type {{x1: number, y1: number, x2: number, y2: number} | null} */
  drag: null,
};

/** Fill the two lists of scores and make the figure. */
function makeScatter() {
  for (const axis of /** @type {const} */ (["x", "y"])) {
    const select = /** @type {HTMLSelectElement} */ (element(`scatter-${axis}`));
    fillScoreSelect(select, SCORES);
    select.value = scatter[axis];
    select.addEventListener("change", () => {
      scatter[axis] = select.value;
      refresh();
    });
  }
  const canvas = makeFigure("Two scores against each other", "scatter", drawScatter);
  scatter.canvas = canvas;
  canvas.tabIndex = -1;
  element("scatter-figure").prepend(canvas);
  const tip = element("scatter-tip");
  const read = (/** @type {PointerEvent} */ event) => {
    const rectangle = canvas.getBoundingClientRect();
    return { x: event.clientX - rectangle.left, y: event.clientY - rectangle.top };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    canvas.setPointerCapture(event.pointerId);
    const { x, y } = read(event);
    scatter.drag = { x1: x, y1: y, x2: x, y2: y };
    tip.hidden = true;
  });
  canvas.addEventListener("pointermove", (event) => {
    const { x, y } = read(event);
    if (scatter.drag) {
      scatter.drag.x2 = x;
      scatter.drag.y2 = y;
      redraw(canvas);
      return;
    }
    const row = findNearest(x, y);
    tip.hidden = row === null;
    if (row === null || !scatter.frame) return;
    const [first, second] = [COLUMNS.get(scatter.x), COLUMNS.get(scatter.y)];
    if (!first || !second) return;
    tip.replaceChildren(
      make("strong", {}, readIds()[row]),
      ...[first, second].map((column) =>
        make("span", {}, `${column.title} ${formatValue(column.id, readScore(column.id)[row])}`),
      ),
    );
    tip.style.left = `${Math.min(x + 14, canvas.clientWidth - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.max(4, y - tip.offsetHeight - 10)}px`;
  });
  canvas.addEventListener("pointerleave", () => {
    tip.hidden = true;
  });
  canvas.addEventListener("pointerup", (event) => {
    const { drag, frame } = scatter;
    scatter.drag = null;
    if (!drag || !frame) return;
    const { x, y } = read(event);
    if (Math.hypot(x - drag.x1, y - drag.y1) < 4) {
      const row = findNearest(x, y);
      if (row !== null) openExample(row);
      redraw(canvas);
      return;
    }
    const sides = (/** @type {Scale} */ scale, /** @type {number} */ a, /** @type {number} */ b) =>
      [scale.invert(a), scale.invert(b)].sort((one, other) => one - other).map((value) => Number(value.toPrecision(4)));
    for (const [id, [lo, hi]] of /** @type {[string, number[]][]} */ ([
      [scatter.x, sides(frame.x, drag.x1, x)],
      [scatter.y, sides(frame.y, drag.y1, y)],
    ])) {
      const column = COLUMNS.get(id);
      if (column && !histograms.has(id)) showScore(column, true);
      filters.set(id, { kind: "range", lo, hi });
    }
  });
  canvas.addEventListener("click", (event) => {
    // fingers scroll the page, so they choose and do not draw
    if (/** @type {PointerEvent} */ (event).pointerType !== "touch") return;
    const row = findNearest(.../** @type {[number, number]} */ (Object.values(read(/** @type {any} */ (event)))));
    if (row !== null) openExample(row);
  });
}

/**
 * @param {HTMLSelectElement} select
 * @param {Column[]} columns
 */
function fillScoreSelect(select, columns) {
  /** @type {Map<string, HTMLElement>} */
  const groups = new Map();
  for (const column of columns) {
    const name = column.group || "Scores";
    let group = groups.get(name);
    if (!group) {
      group = make("optgroup", { label: name });
      groups.set(name, group);
      select.append(group);
    }
    group.append(make("option", { value: column.id }, column.title));
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 */
function drawScatter(context, width, height) {
  const [first, second] = [COLUMNS.get(scatter.x), COLUMNS.get(scatter.y)];
  if (!first || !second) return;
  const colours = readColours();
  const [xs, ys] = [readScore(first.id), readScore(second.id)];
  const box = { left: 52, top: 26, width: width - 66, height: height - 26 - 44 };
  const range = (/** @type {Float32Array} */ values) => {
    const [lo, hi] = findRange(values);
    const margin = (hi - lo) * 0.02 || 0.5;
    return /** @type {[number, number]} */ ([lo - margin, hi + margin]);
  };
  const key = [first.id, second.id, width, height].join(" ");
  const x = makeLinear(...range(xs), box.left, box.left + box.width, Math.max(3, box.width / 80));
  const y = makeLinear(...range(ys), box.top + box.height, box.top, Math.max(3, box.height / 50));
  scatter.frame = { x, y, box };
  if (scatter.canvas) scatter.canvas.setAttribute("aria-label", `${first.title} against ${second.title}`);
  // fewer examples get larger cells, so that a single one is seen
  const cell = N > 20000 ? 2 : N > 3000 ? 3 : 4;
  const [across, down] = [Math.ceil(box.width / cell), Math.ceil(box.height / cell)];
  if (scatter.key !== key) {
    scatter.places = new Int32Array(N);
    for (let row = 0; row < N; row++) {
      const left = Math.floor((x.map(xs[row]) - box.left) / cell);
      const top = Math.floor((y.map(ys[row]) - box.top) / cell);
      scatter.places[row] = left >= 0 && left < across && top >= 0 && top < down ? top * across + left : -1;
    }
    scatter.all = new Uint32Array(across * down);
    for (let row = 0; row < N; row++) if (scatter.places[row] >= 0) scatter.all[scatter.places[row]]++;
    scatter.key = key;
  }
  drawAxes(context, box, x, y, { x: first.title, y: second.title });
  const { all, places } = scatter;
  const { masks } = filters;
  const shown = new Uint32Array(across * down);
  let most = 1;
  for (let row = 0; row < N; row++) {
    if (masks[row] !== 0 || places[row] < 0) continue;
    const count = ++shown[places[row]];
    if (count > most) most = count;
  }
  const [rest, low, high] = [colours.rest, colours.accent, colours.text].map(splitColour);
  const scale = Math.log(Math.max(most, 12)); // a single example has the accent's colour, many are as dark as text
  const image = new ImageData(across, down);
  const { data } = image;
  for (let place = 0; place < all.length; place++) {
    if (all[place] === 0) continue;
    const share = shown[place] ? Math.log(shown[place]) / scale : 0;
    for (let part = 0; part < 3; part++) {
      data[4 * place + part] = shown[place] ? low[part] + (high[part] - low[part]) * share : rest[part];
    }
    data[4 * place + 3] = shown[place] ? 255 : 150;
  }
  const layer = document.createElement("canvas");
  [layer.width, layer.height] = [across, down];
  const layerContext = layer.getContext("2d", { willReadFrequently: true });
  if (layerContext) layerContext.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(layer, box.left, box.top, across * cell, down * cell);
  const { drag } = scatter;
  if (drag) {
    context.fillStyle = colours.soft;
    context.globalAlpha = 0.5;
    context.fillRect(drag.x1, drag.y1, drag.x2 - drag.x1, drag.y2 - drag.y1);
    context.globalAlpha = 1;
    context.strokeStyle = colours.accent;
    context.strokeRect(drag.x1, drag.y1, drag.x2 - drag.x1, drag.y2 - drag.y1);
  }
  if (opened.row !== null && !Number.isNaN(xs[opened.row]) && !Number.isNaN(ys[opened.row])) {
    context.strokeStyle = colours.text;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x.map(xs[opened.row]), y.map(ys[opened.row]), 6, 0, 2 * Math.PI);
    context.stroke();
  }
}

/**
 * The shown example nearest to a place of the scatter plot, null where none is near.
 * @param {number} left
 * @param {number} top
 * @returns {number | null}
 */
function findNearest(left, top) {
  const { frame } = scatter;
  if (!frame) return null;
  const [xs, ys] = [readScore(scatter.x), readScore(scatter.y)];
  let nearest = null;
  let best = 100; // squared pixels
  for (let row = 0; row < N; row++) {
    if (filters.masks[row] !== 0 || scatter.places[row] < 0) continue;
    const across = frame.x.map(xs[row]) - left;
    const down = frame.y.map(ys[row]) - top;
    const distance = across * across + down * down;
    if (distance < best) [best, nearest] = [distance, row];
  }
  return nearest;
}

/**
 * Spearman's correlation of the shown examples, with mean ranks for equal values.
 * @param {string} first
 * @param {string} second
 * @returns {{rho: number, n: number}}
 */
function correlate(first, second) {
  const [xs, ys] = [readScore(first), readScore(second)];
  const both = (/** @type {number} */ row) => filters.masks[row] === 0 && xs[row] === xs[row] && ys[row] === ys[row];
  const [a, b] = /** @type {[string, Float32Array][]} */ ([
    [first, xs],
    [second, ys],
  ]).map(([id, values]) => {
    const ranks = new Float64Array(N);
    const rows = orderRows(id, false).filter(both);
    for (let start = 0; start < rows.length;) {
      let end = start + 1;
      while (end < rows.length && values[rows[end]] === values[rows[start]]) end++;
      for (let k = start; k < end; k++) ranks[rows[k]] = (start + end - 1) / 2;
      start = end;
    }
    return { ranks, n: rows.length };
  });
  const middle = (a.n - 1) / 2;
  let [across, along, down] = [0, 0, 0];
  for (let row = 0; row < N; row++) {
    if (!both(row)) continue;
    const [u, v] = [a.ranks[row] - middle, b.ranks[row] - middle];
    across += u * v;
    along += u * u;
    down += v * v;
  }
  return { rho: across / Math.sqrt(along * down), n: a.n };
}
