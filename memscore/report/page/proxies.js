"use strict";
// Proxies: how well each cheap score ranks examples as memorization does against what it costs, how scores are
// distributed, and how much of a score few examples have.

const distribution = { id: "" };

function makeProxyFigures() {
  const host = document.querySelector('[data-plots="proxies"]');
  if (!host) return;
  const proxies = META.proxies || [];
  if (proxies.length) host.append(makeFidelity(proxies));
  const scores = SCORES.filter((column) =>
    META.lorenz ? META.lorenz.includes(column.id) : column.unit === "probability" && column.direction === 1,
  );
  if (scores.length) host.append(makeLorenz(scores));
}

/**
 * @param {Proxy_[]} proxies
 * @returns {HTMLElement}
 */
function makeFidelity(proxies) {
  const sorted = [...proxies].sort((a, b) => Math.abs(b.rho.value) - Math.abs(a.rho.value));
  const target = META.proxy_target ? META.proxy_target.title : "memorization";
  const dots = makeFigure(
    `Spearman correlation of ${sorted.length} proxies with ${target}`,
    "dots",
    (context, width, height) => drawFidelity(context, width, height, sorted),
  );
  dots.style.height = `${Math.max(sorted.length * 26 + 74, 160)}px`;
  const timed = sorted.filter((proxy) => proxy.seconds);
  const figures = [
    make(
      "figure",
      {},
      dots,
      make(
        "figcaption",
        {},
        `How far each proxy ranks examples as ${target} ` +
          "does: Spearman's correlation, its sign turned where a lower value means more memorized. 1 is the same order; " +
          "bars are intervals.",
      ),
    ),
  ];
  if (timed.length > 1) {
    const cost = makeFigure(
      `Correlation of ${timed.length} proxies against their cost`,
      "square",
      (context, width, height) => drawCost(context, width, height, timed),
    );
    figures.push(
      make(
        "figure",
        {},
        cost,
        make("figcaption", {}, "The same against what it costs: up is better, left " + "is cheaper."),
      ),
    );
  }
  return make("div", { class: "side-by-side" }, ...figures);
}

/** @param {Proxy_} proxy @returns {Estimate} turned so that 1 is the order of memorization */
function turnCorrelation({ rho, direction, id }) {
  const column = COLUMNS.get(id || "");
  if ((direction || (column ? column.direction : 0)) !== -1) return rho;
  const turn = (/** @type {number | null | undefined} */ value) =>
    value === null || value === undefined ? null : -value;
  return { value: -rho.value, lo: turn(rho.hi), hi: turn(rho.lo) };
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {Proxy_[]} proxies
 */
function drawFidelity(context, width, height, proxies) {
  const colours = readColours();
  const names = Math.min(190, width * 0.42);
  const box = { left: names, top: 24, width: width - names - 14, height: height - 24 - 44 };
  const turned = proxies.map(turnCorrelation);
  const lowest = Math.min(0, ...turned.map(({ value, lo }) => (lo === null || lo === undefined ? value : lo)));
  const x = makeLinear(lowest < 0 ? Math.max(-1, Math.floor(lowest * 5) / 5) : 0, 1, box.left, box.left + box.width, 4);
  const step = box.height / proxies.length;
  drawAxes(context, box, x, { ...x, ticks: [] }, { x: "Spearman's correlation" });
  proxies.forEach((proxy, k) => {
    const place = box.top + (k + 0.5) * step;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.font = FONT;
    context.fillStyle = colours.text;
    context.fillText(clipText(context, proxy.title, names - 16), names - 12, place);
    drawInterval(context, x, place, turned[k], colours.accent);
  });
}

/**
 * A dot with its interval on a horizontal scale.
 * @param {CanvasRenderingContext2D} context
 * @param {Scale} x
 * @param {number} place
 * @param {{value: number | null, lo?: number | null, hi?: number | null}} estimate
 * @param {string} colour
 */
function drawInterval(context, x, place, { value, lo, hi }, colour) {
  if (value === null || value === undefined || Number.isNaN(value)) return;
  const clip = (/** @type {number} */ each) => x.map(Math.min(Math.max(each, x.lo), x.hi));
  context.strokeStyle = colour;
  context.fillStyle = colour;
  context.lineWidth = 2;
  if (lo !== null && lo !== undefined && hi !== null && hi !== undefined) {
    drawLine(context, clip(lo), place, clip(hi), place);
  }
  drawDot(context, clip(value), place, 4);
  context.lineWidth = 1;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {Proxy_[]} proxies
 */
function drawCost(context, width, height, proxies) {
  const colours = readColours();
  const box = { left: 48, top: 28, width: width - 66, height: height - 28 - 44 };
  const [least, most] = findRange(proxies.map(({ seconds }) => Number(seconds)));
  const x = makeLog(least / 1.8, most * 1.8, box.left, box.left + box.width, formatSeconds);
  const turned = proxies.map(turnCorrelation);
  const lowest = Math.min(0, ...turned.map(({ value }) => value));
  const y = makeLinear(Math.max(-1, Math.floor(lowest * 5) / 5), 1, box.top + box.height, box.top, 5);
  drawAxes(context, box, x, y, { x: "Cost (log scale)", y: "Spearman's correlation" });
  /** @type {{left: number, right: number, top: number}[]} */
  const taken = [];
  proxies.forEach((proxy, k) => {
    const [left, top] = [x.map(Number(proxy.seconds)), y.map(turned[k].value)];
    context.fillStyle = colours.accent;
    drawDot(context, left, top, 4);
    context.font = SMALL_FONT;
    context.fillStyle = colours.text;
    context.textBaseline = "middle";
    const size = context.measureText(proxy.title).width;
    const flips = left + 8 + size > box.left + box.width;
    const from = flips ? left - 8 - size : left + 8;
    // a name that would lie on another one is left out: the list beside has all
    if (
      from < box.left ||
      taken.some((other) => Math.abs(other.top - top) < 12 && from < other.right + 4 && from + size > other.left - 4)
    )
      return;
    taken.push({ left: from, right: from + size, top });
    context.textAlign = "left";
    context.fillText(proxy.title, from, top);
  });
}

/**
 * @param {Column[]} scores
 * @returns {HTMLElement}
 */
function makeLorenz(scores) {
  distribution.id = scores[0].id;
  const select = /** @type {HTMLSelectElement} */ (
    make("select", {
      id: "lorenz-score",
      onchange: () => {
        distribution.id = select.value;
        update();
      },
    })
  );
  fillScoreSelect(select, scores);
  const histogram = makeFigure("", "half", (context, width, height) => drawDistribution(context, width, height));
  const curve = makeFigure("", "half", (context, width, height) => drawLorenz(context, width, height));
  const caption = make("figcaption", {});
  const update = () => {
    const column = /** @type {Column} */ (COLUMNS.get(distribution.id));
    const { gini, half } = measureConcentration(column.id);
    caption.textContent =
      `Half of all ${column.title} lies in the top ${formatPercent(half)} of the examples; Gini ` +
      `coefficient ${formatFixed(gini, 3)}. Estimates below 0, which are noise, count as 0.`;
    histogram.setAttribute("aria-label", `Distribution of ${column.title}`);
    curve.setAttribute("aria-label", `Lorenz curve of ${column.title}, Gini coefficient ${formatFixed(gini, 3)}`);
    redraw(histogram);
    redraw(curve);
  };
  update();
  return make(
    "div",
    {},
    make("h3", {}, "How a score is distributed"),
    make("div", { class: "controls" }, make("label", {}, "Score ", select)),
    make(
      "div",
      { class: "side-by-side" },
      make("figure", {}, histogram, make("figcaption", {}, "Share of the examples with at least this value.")),
      make("figure", {}, curve, caption),
    ),
  );
}

/**
 * How much of the sum of a score the examples with most of it have.
 * @param {string} id
 * @returns {{shares: Float64Array, gini: number, half: number}} shares of the sum in the top 0 to n examples
 */
function measureConcentration(id) {
  const values = readScore(id);
  const order = orderRows(id, true).filter((row) => values[row] === values[row]);
  const shares = new Float64Array(order.length + 1);
  for (let k = 0; k < order.length; k++) shares[k + 1] = shares[k] + Math.max(0, values[order[k]]);
  const total = shares[order.length] || 1;
  let area = 0;
  let half = 1;
  for (let k = 1; k < shares.length; k++) {
    shares[k] /= total;
    area += (shares[k] + shares[k - 1]) / 2 / order.length;
    if (half === 1 && shares[k] >= 0.5) half = k / order.length;
  }
  return { shares, gini: 2 * area - 1, half };
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 */
function drawDistribution(context, width, height) {
  const column = /** @type {Column} */ (COLUMNS.get(distribution.id));
  const colours = readColours();
  const values = readScore(column.id);
  const order = orderRows(column.id, true).filter((row) => values[row] === values[row]);
  const box = { left: 58, top: 28, width: width - 74, height: height - 28 - 44 };
  const [lo, hi] = findRange(values);
  const x = makeLinear(lo, hi, box.left, box.left + box.width, 5);
  const y = makeLog(1 / Math.max(order.length, 10), 1, box.top + box.height, box.top, formatTickPercent);
  drawAxes(context, box, x, y, { x: column.title, y: "Examples (log scale)" });
  context.strokeStyle = colours.accent;
  context.lineWidth = 1.8;
  const steps = [...thin(order.length)];
  drawPath(
    context,
    steps.map((k) => x.map(values[order[k]])),
    steps.map((k) => y.map((k + 1) / order.length)),
  );
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 */
function drawLorenz(context, width, height) {
  const column = /** @type {Column} */ (COLUMNS.get(distribution.id));
  const colours = readColours();
  const { shares } = measureConcentration(column.id);
  const box = { left: 58, top: 28, width: width - 74, height: height - 28 - 44 };
  const x = makeLinear(0, 1, box.left, box.left + box.width, 5);
  const y = makeLinear(0, 1, box.top + box.height, box.top, 5);
  const percent = (/** @type {number} */ value) => formatFixed(100 * value, 0);
  drawAxes(
    context,
    box,
    { ...x, format: percent },
    { ...y, format: percent },
    { x: "Examples with the highest values, %", y: "Their share of the sum, %" },
  );
  context.strokeStyle = colours.muted;
  context.setLineDash([4, 4]);
  drawLine(context, x.map(0), y.map(0), x.map(1), y.map(1));
  context.setLineDash([]);
  context.strokeStyle = colours.accent;
  context.lineWidth = 1.8;
  const steps = [...thin(shares.length)];
  drawPath(
    context,
    steps.map((k) => x.map(k / (shares.length - 1))),
    steps.map((k) => y.map(shares[k])),
  );
}

/**
 * Places along a long list, close together where it begins: a line needs no more.
 * @param {number} length
 * @returns {Generator<number>}
 */
function* thin(length) {
  for (let k = 0; k < length - 1; k += Math.max(1, Math.floor(k / 150))) yield k;
  if (length > 0) yield length - 1;
}
