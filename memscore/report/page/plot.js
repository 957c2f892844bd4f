"use strict";
// Canvas figures: scales, axes, lines, bands and dots, in the colours of the page.

/**
 * @typedef {{map: (value: number) => number, invert: (place: number) => number, ticks: number[], log: boolean,
 *   lo: number, hi: number, format: (value: number) => string}} Scale
 * @typedef {{left: number, top: number, width: number, height: number}} Box
 * @typedef {{text: string, muted: string, line: string, page: string, accent: string, soft: string, second: string,
 *   rest: string, good: string, bad: string, series: string[]}} Colours
 * @typedef {(context: CanvasRenderingContext2D, width: number, height: number) => void} Draw
 */

const FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
const SMALL_FONT = FONT.replace("12px", "11px");
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [4, 2], [1, 2]];

/** @type {Colours | null} */
let pageColours = null;
/** @type {Map<HTMLCanvasElement, Draw>} */
const drawings = new Map();
/** sizes on the page: to ask for one after a change lays out the page once more @type {Map<Element, DOMRectReadOnly>} */
const sizes = new Map();
const resized = new ResizeObserver((entries) => {
  for (const entry of entries) {
    sizes.set(entry.target, entry.contentRect);
    if (entry.target instanceof HTMLCanvasElement) redraw(entry.target);
  }
});

/** @returns {Colours} as the style sheet has them now */
function readColours() {
  if (pageColours === null) {
    const style = getComputedStyle(document.documentElement);
    const read = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
    pageColours = {
      text: read("text"),
      muted: read("muted"),
      line: read("line"),
      page: read("page"),
      accent: read("accent"),
      soft: read("accent-soft"),
      second: read("second"),
      rest: read("rest"),
      good: read("good"),
      bad: read("bad"),
      series: [1, 2, 3, 4, 5, 6, 7, 8].map((k) => read(`series-${k}`)),
    };
  }
  return pageColours;
}

/** Draw every figure once more, in colours that changed. */
function redrawAll() {
  pageColours = null;
  for (const canvas of drawings.keys()) redraw(canvas);
}

/**
 * @param {string} label what the figure shows, for who cannot see it
 * @param {string} kind class that sets its size
 * @param {Draw} draw
 * @returns {HTMLCanvasElement}
 */
function makeFigure(label, kind, draw) {
  const canvas = /** @type {HTMLCanvasElement} */ (make("canvas", { class: kind, role: "img", "aria-label": label }));
  drawings.set(canvas, draw);
  resized.observe(canvas);
  return canvas;
}

/** @param {HTMLCanvasElement} canvas that is not on the page any more */
function forgetFigure(canvas) {
  drawings.delete(canvas);
  sizes.delete(canvas);
  resized.unobserve(canvas);
}

/** @param {HTMLCanvasElement} canvas */
function redraw(canvas) {
  const draw = drawings.get(canvas);
  const { width, height } = sizes.get(canvas) || { width: 0, height: 0 };
  const context = canvas.getContext("2d");
  if (!draw || !context || width === 0 || height === 0) return;
  const ratio = Math.max(window.devicePixelRatio || 1, 1);
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = FONT;
  context.lineWidth = 1;
  context.setLineDash([]);
  context.globalAlpha = 1;
  draw(context, width, height);
}

/**
 * @param {number} lo
 * @param {number} hi
 * @param {number} from pixel of lo
 * @param {number} to pixel of hi
 * @param {number} [count] of ticks, about
 * @returns {Scale}
 */
function makeLinear(lo, hi, from, to, count = 5) {
  if (!(hi > lo)) [lo, hi] = [lo - 0.5, lo + 0.5];
  const step = roundStep((hi - lo) / Math.max(count, 1));
  const ticks = [];
  for (let k = Math.ceil(lo / step - 1e-9); k <= Math.floor(hi / step + 1e-9); k++) ticks.push(k * step);
  const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9) + (isHalfStep(step) ? 1 : 0)));
  return {
    lo,
    hi,
    ticks,
    log: false,
    map: (value) => from + ((value - lo) / (hi - lo)) * (to - from),
    invert: (place) => lo + ((place - from) / (to - from)) * (hi - lo),
    format: (value) => (Math.abs(value) >= 10000 ? formatShort(value) : formatFixed(value, digits)),
  };
}

/** @param {number} step @returns {boolean} whether it is 2.5 times a power of ten */
function isHalfStep(step) {
  return Math.abs(step / 10 ** Math.floor(Math.log10(step) + 1e-9) - 2.5) < 1e-6;
}

/** @param {number} value @returns {string} */
function formatShort(value) {
  const size = Math.abs(value);
  const sign = value < 0 ? MINUS : "";
  if (size >= 1e6) return `${sign}${Number((size / 1e6).toPrecision(3))}M`;
  return size >= 1000 ? `${sign}${Number((size / 1e3).toPrecision(3))}k` : `${sign}${Number(size.toPrecision(3))}`;
}

/**
 * @param {number} lo above 0
 * @param {number} hi
 * @param {number} from
 * @param {number} to
 * @param {(value: number) => string} [format]
 * @returns {Scale}
 */
function makeLog(lo, hi, from, to, format = (value) => formatPower(value)) {
  if (!(hi > lo)) [lo, hi] = [lo / 3, lo * 3];
  const [bottom, top] = [Math.log10(lo), Math.log10(hi)];
  let ticks = [];
  const every = Math.ceil((top - bottom) / Math.max(2, Math.abs(to - from) / 44));
  for (let power = Math.ceil(bottom - 1e-9); power <= top + 1e-9; power += every) ticks.push(10 ** power);
  if (ticks.length < 2) ticks = [lo, Math.sqrt(lo * hi), hi].map((value) => Number(value.toPrecision(1)));
  return {
    lo,
    hi,
    ticks,
    log: true,
    format,
    map: (value) => from + ((Math.log10(Math.max(value, lo)) - bottom) / (top - bottom)) * (to - from),
    invert: (place) => 10 ** (bottom + ((place - from) / (to - from)) * (top - bottom)),
  };
}

/** @param {number} value @returns {string} */
function formatPower(value) {
  if (value >= 1e-4 && value < 1e5) return String(Number(value.toPrecision(3)));
  return formatScientific(value);
}

/** @param {number} value @returns {string} a share as percent, for ticks */
function formatTickPercent(value) {
  return `${formatPower(100 * value)} %`;
}

/**
 * Draw grid, ticks and titles around a box.
 * @param {CanvasRenderingContext2D} context
 * @param {Box} box
 * @param {Scale} x
 * @param {Scale} y
 * @param {{x?: string, y?: string, grid?: boolean}} [titles]
 */
function drawAxes(context, box, x, y, titles = {}) {
  const colours = readColours();
  const [right, bottom] = [box.left + box.width, box.top + box.height];
  context.font = SMALL_FONT;
  context.strokeStyle = colours.line;
  context.fillStyle = colours.muted;
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const tick of y.ticks) {
    const place = Math.round(y.map(tick)) + 0.5;
    if (titles.grid !== false) drawLine(context, box.left, place, right, place);
    context.fillText(y.format(tick), box.left - 6, place);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  let free = -Infinity;
  for (const tick of x.ticks) {
    const place = Math.round(x.map(tick)) + 0.5;
    if (titles.grid !== false) drawLine(context, place, box.top, place, bottom);
    const half = context.measureText(x.format(tick)).width / 2;
    if (place - half < free) continue;
    context.fillText(x.format(tick), place, bottom + 6);
    free = place + half + 6;
  }
  context.strokeStyle = colours.muted;
  drawLine(context, box.left, bottom + 0.5, right, bottom + 0.5);
  context.font = FONT;
  context.fillStyle = colours.text;
  if (titles.x) {
    context.textBaseline = "alphabetic";
    context.fillText(clipText(context, titles.x, box.width + box.left), box.left + box.width / 2, bottom + 36);
  }
  if (titles.y) {
    context.textAlign = "left";
    context.textBaseline = "alphabetic";
    context.fillText(clipText(context, titles.y, right), 2, box.top - 9);
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} x1 @param {number} y1 @param {number} x2 @param {number} y2
 */
function drawLine(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}

/** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {number} radius */
function drawDot(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

/**
 * Shorten a text that is wider than its place.
 * @param {CanvasRenderingContext2D} context
 * @param {string} text
 * @param {number} width
 * @returns {string}
 */
function clipText(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let [lo, hi] = [0, text.length];
  while (lo < hi) {
    const middle = Math.ceil((lo + hi) / 2);
    if (context.measureText(`${text.slice(0, middle)}…`).width <= width) lo = middle;
    else hi = middle - 1;
  }
  return `${text.slice(0, lo)}…`;
}

/**
 * A path through points; values that are no number break it.
 * @param {CanvasRenderingContext2D} context
 * @param {ArrayLike<number>} xs pixels
 * @param {ArrayLike<number>} ys
 */
function drawPath(context, xs, ys) {
  context.beginPath();
  let open = false;
  for (let k = 0; k < xs.length; k++) {
    if (Number.isFinite(xs[k]) && Number.isFinite(ys[k])) {
      if (open) context.lineTo(xs[k], ys[k]);
      else context.moveTo(xs[k], ys[k]);
      open = true;
    } else open = false;
  }
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number[]} xs
 * @param {number[]} lows
 * @param {number[]} highs
 */
function drawBand(context, xs, lows, highs) {
  context.beginPath();
  for (let k = 0; k < xs.length; k++) context.lineTo(xs[k], highs[k]);
  for (let k = xs.length - 1; k >= 0; k--) context.lineTo(xs[k], lows[k]);
  context.closePath();
  context.fill();
}

/**
 * @param {string} colour as #rrggbb
 * @returns {[number, number, number]}
 */
function splitColour(colour) {
  const number = parseInt(colour.slice(1), 16);
  return [(number >> 16) & 255, (number >> 8) & 255, number & 255];
}

/**
 * A key of series below or beside a figure, as text of the page.
 * @param {{title: string, value?: string, colour: string, dash?: number[], shape?: "line" | "dot" | "bar"}[]} series
 * @returns {HTMLElement}
 */
function makeLegend(series) {
  return make(
    "ul",
    { class: "legend" },
    ...series.map(({ title, value, colour, dash, shape }) => {
      const swatch = make("span", { class: `swatch ${shape || "line"}`, "aria-hidden": "true" });
      swatch.style.color = colour;
      if (dash && dash.length) swatch.classList.add("dashed");
      return make(
        "li",
        {},
        swatch,
        make("span", {}, title),
        value ? make("span", { class: "muted num" }, value) : null,
      );
    }),
  );
}

/** @param {number} k @returns {string} a colour of a series, as a variable of the style sheet */
function nameSeriesColour(k) {
  return `var(--series-${(k % 8) + 1})`;
}
