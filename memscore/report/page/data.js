"use strict";
// The data of the page: what is written in its data blocks, decoded when it is first asked for.

/**
 * @typedef {{id: string, name: string, title: string, unit?: string, direction?: number, source?: string,
 *   about?: string, type?: string, null?: "nan" | number | null, lo?: string | null, hi?: string | null,
 *   se?: string | null, role: string, group?: string, chosen?: boolean}} Column
 * @typedef {{id: string, rows: number[], cols: number, file?: string}} Sprite
 * @typedef {{value: number, lo?: number | null, hi?: number | null}} Estimate
 * @typedef {{fpr: number, threshold?: number | null, realized_fpr?: number | null, realized_lo?: number | null,
 *   realized_hi?: number | null, tpr: number, tpr_lo?: number | null, tpr_hi?: number | null,
 *   precision?: {prior: number, value: number | null, lo?: number | null, hi?: number | null} | null}} Threshold
 * @typedef {{name: string, title: string, about?: string, trusted?: boolean,
 *   roc?: {fpr: number[], tpr: number[], lo?: number[] | null, hi?: number[] | null} | null,
 *   auc?: Estimate | null, thresholds?: Threshold[]}} Attack
 * @typedef {{title: string, value: number | null, lo?: number | null, hi?: number | null, oracle?: number[] | null,
 *   direction?: number, about?: string}} Measured
 * @typedef {{id: string, title: string, algorithm?: string, params?: string, seed?: number | string,
 *   forget_rows?: number[], forget?: string | null, before?: string | null, after?: string | null,
 *   oracle?: string | null, right_before?: string | null, right_after?: string | null,
 *   measures?: Measured[]}} Trial
 * @typedef {{id?: string | null, name: string, title: string, direction?: number, rho: Estimate,
 *   seconds?: number | null, models?: number | null, about?: string}} Proxy_
 * @typedef {{name: string, value: number | null, lo?: number | null, hi?: number | null, n?: number,
 *   points?: number[]}} Method
 * @typedef {{name: string, title: string, about?: string, direction?: number, unit?: string,
 *   range?: (number | null)[], oracle?: Estimate | null, original?: {value: number} | null,
 *   methods: Method[]}} Measure
 * @typedef {{id: string, title: string, about?: string, measures: Measure[]}} Experiment
 * @typedef {{values: (number | string | null)[], objective: number | null, feasible?: boolean, chosen?: string[],
 *   failed?: string | null}} Attempt
 * @typedef {{id: string, title: string, about?: string, objective: {title: string, direction?: number},
 *   parameters: {name: string, log?: boolean, lo?: number, hi?: number}[], attempts: Attempt[],
 *   regret?: string}} Sweep
 * @typedef {{arm: string, title: string, about?: string, edges: number[], in: string, out: string}} ArmHistogram
 * @typedef {{version: number, title: string, n: number, class_names: string[], store?: string,
 *   image?: {w: number, h: number, c: number} | null, columns: Column[], sprites?: Sprite[],
 *   sprites_elsewhere?: {folder: string, sprites: Sprite[]} | null, histograms?: ArmHistogram[],
 *   influence?: {helps: Record<string, number[][]>, helped_by: Record<string, number[][]>, about?: string} | null,
 *   twins?: Record<string, number[]>, twin_about?: string,
 *   rebuilt?: {sprites: Sprite[], about?: string, score?: string | null} | null,
 *   trials?: Trial[], attacks?: Attack[], audits?: Attack[], proxies?: Proxy_[],
 *   proxy_target?: {title: string, id?: string} | null, lorenz?: string[], experiments?: Experiment[],
 *   sweeps?: Sweep[]}} Meta
 * @typedef {Float32Array | Uint8Array | Uint16Array | Int32Array} Values
 */

/** @type {Meta} */
const META = JSON.parse(element("meta").textContent || "{}");
const N = META.n;
/** @type {Map<string, Column>} */
const COLUMNS = new Map(META.columns.map((column) => [column.id, column]));
const SCORES = META.columns.filter(
  (column) =>
    column.role === "score" ||
    column.role === "proxy" ||
    column.role === "p_in" ||
    column.role === "p_out" ||
    column.role === "left_out_share",
);
const NO_CODE = -1;

/** @type {Map<string, Values>} */
const decodedColumns = new Map();
/** @type {Map<string, Float32Array>} */
const scoreValues = new Map();
/** @type {Map<string, Int32Array>} */
const columnCodes = new Map();
/** @type {Map<string, Int32Array>} */
const orders = new Map();
/** @type {string[] | null} */
let exampleIds = null;

/**
 * The element with an id, which the page always has.
 * @param {string} id
 * @returns {HTMLElement}
 */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found;
}

/**
 * Make an element. Text reaches the page only as text: nothing here reads markup.
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes] a string or number is set, true is set empty, false and null are left
 *   out; on* are listeners
 * @param {...(Node | string | number | null | undefined | false)} children
 * @returns {HTMLElement}
 */
function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    made.append(child instanceof Node ? child : String(child));
  }
  return made;
}

/**
 * @param {string} text
 * @returns {Uint8Array}
 */
function decodeBase64(text) {
  const native = /** @type {{fromBase64?: (text: string) => Uint8Array}} */ (/** @type {unknown} */ (Uint8Array));
  if (native.fromBase64) return native.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let k = 0; k < bytes.length; k++) bytes[k] = binary.charCodeAt(k);
  return bytes;
}

/**
 * The raw values of a column or of a matrix, row after row.
 * @param {string} id
 * @returns {Values}
 */
function readColumn(id) {
  const known = decodedColumns.get(id);
  if (known) return known;
  const block = document.querySelector(`script[data-column="${CSS.escape(id)}"]`);
  if (!(block instanceof HTMLElement)) throw new Error(`the page has no column ${id}`);
  const { buffer, byteOffset, byteLength } = decodeBase64((block.textContent || "").trim());
  const type = block.dataset.type;
  /** @type {Values} */
  let values;
  if (type === "f4") values = new Float32Array(buffer, byteOffset, byteLength / 4);
  else if (type === "i4") values = new Int32Array(buffer, byteOffset, byteLength / 4);
  else if (type === "u2") values = new Uint16Array(buffer, byteOffset, byteLength / 2);
  else values = new Uint8Array(buffer, byteOffset, byteLength);
  block.textContent = "";
  decodedColumns.set(id, values);
  return values;
}

/**
 * Values of a score, NaN where there is none.
 * @param {string} id
 * @returns {Float32Array}
 */
function readScore(id) {
  const known = scoreValues.get(id);
  if (known) return known;
  const raw = readColumn(id);
  const column = COLUMNS.get(id);
  const missing = column && typeof column.null === "number" ? column.null : null;
  let values;
  if (raw instanceof Float32Array && missing === null) values = raw;
  else {
    values = Float32Array.from(raw);
    if (missing !== null) for (let row = 0; row < N; row++) if (raw[row] === missing) values[row] = NaN;
  }
  scoreValues.set(id, values);
  return values;
}

/**
 * Whole numbers of a column of classes, clusters or truth values, NO_CODE where there is none.
 * @param {string} id
 * @returns {Int32Array}
 */
function readCodes(id) {
  const known = columnCodes.get(id);
  if (known) return known;
  const raw = readColumn(id);
  const column = COLUMNS.get(id);
  const missing = column && typeof column.null === "number" ? column.null : 65535;
  const codes = Int32Array.from(raw);
  for (let row = 0; row < N; row++) if (codes[row] === missing || codes[row] < 0) codes[row] = NO_CODE;
  columnCodes.set(id, codes);
  return codes;
}

/**
 * @param {string} id
 * @returns {string[]}
 */
function readTexts(id) {
  const block = document.querySelector(`script[data-column="${CSS.escape(id)}"]`);
  return JSON.parse((block && block.textContent) || "[]");
}

/** @returns {string[]} the ids of all examples */
function readIds() {
  if (exampleIds === null) {
    const column = findRole("id");
    exampleIds = column ? readTexts(column.id) : Array.from({ length: N }, (_, row) => String(row));
  }
  return exampleIds;
}

/**
 * @param {string} role
 * @returns {Column | undefined}
 */
function findRole(role) {
  return META.columns.find((column) => column.role === role);
}

/**
 * @param {string} name a column's name or id
 * @returns {Column | undefined}
 */
function findColumn(name) {
  return META.columns.find((column) => column.name === name) || COLUMNS.get(name);
}

/**
 * The name of a class.
 * @param {number} code
 * @returns {string}
 */
function nameClass(code) {
  if (code === NO_CODE) return "none";
  return META.class_names[code] === undefined ? String(code) : META.class_names[code];
}

/**
 * The name of one value of a column of classes, clusters or truth values.
 * @param {Column} column
 * @param {number} code
 * @returns {string}
 */
function nameCode(column, code) {
  if (code === NO_CODE) return "none";
  if (column.role === "class" || column.role === "label_true" || column.role === "left_out_answer") {
    return nameClass(code);
  }
  if (column.type === "bool") return code ? "yes" : "no";
  return column.role === "cluster" ? `cluster ${code}` : String(code);
}

/**
 * All rows in order of a score; those without a value come last. Rows with equal values stay in the data's order.
 * @param {string} id
 * @param {boolean} descending
 * @returns {Int32Array}
 */
function orderRows(id, descending) {
  const key = `${descending ? "-" : "+"}${id}`;
  const known = orders.get(key);
  if (known) return known;
  const column = COLUMNS.get(id);
  let order;
  if (column && column.type === "str") {
    const texts = readTexts(id);
    const sign = descending ? -1 : 1;
    order = Int32Array.from({ length: N }, (_, row) => row);
    order.sort((a, b) => (texts[a] < texts[b] ? -sign : texts[a] > texts[b] ? sign : a - b));
  } else {
    order = sortRows(Float32Array.from(isCoded(column) ? readCodes(id) : readScore(id)), descending);
  }
  orders.set(key, order);
  return order;
}

/**
 * @param {Column | undefined} column
 * @returns {boolean} whether its values are names and not amounts
 */
function isCoded(column) {
  const roles = ["class", "label_true", "cluster", "split", "suspect", "left_out_answer"];
  return column !== undefined && roles.includes(column.role);
}

/**
 * Sort rows by value. The bits of a float, in the order of the floats, and the row make one number below 2 ** 53, and
 * numbers sort ten times as fast as rows with a comparison.
 * @param {Float32Array} values
 * @param {boolean} descending
 * @returns {Int32Array}
 */
function sortRows(values, descending) {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const keys = new Float64Array(values.length);
  for (let row = 0; row < values.length; row++) {
    let key = 0xffffffff;
    if (!Number.isNaN(values[row])) {
      key = bits[row] & 0x80000000 ? ~bits[row] >>> 0 : (bits[row] | 0x80000000) >>> 0;
      if (descending) key = 0xfffffffe - key;
    }
    keys[row] = key * 0x200000 + row;
  }
  keys.sort();
  const order = new Int32Array(values.length);
  for (let place = 0; place < order.length; place++) order[place] = keys[place] % 0x200000;
  return order;
}

/**
 * Rank of a row: 1 for the row with the most memorized or riskiest value, as the direction of the score says.
 * @param {Column} column
 * @param {number} row
 * @returns {{rank: number, of: number} | null}
 */
function rankRow(column, row) {
  const values = readScore(column.id);
  const value = values[row];
  if (Number.isNaN(value)) return null;
  const up = column.direction !== -1;
  let rank = 1;
  let of = 0;
  for (let other = 0; other < N; other++) {
    const each = values[other];
    if (each === each) {
      of++;
      if (up ? each > value : each < value) rank++;
    }
  }
  return { rank, of };
}

/** @type {Map<number, {sprite: Sprite, place: number}> | null} */
let spritePlaces = null;
/** @type {Map<string, Promise<HTMLImageElement>>} */
const spriteImages = new Map();

/**
 * @param {Sprite} sprite
 * @param {string} folder of the sprites beside the page
 * @returns {Promise<HTMLImageElement>}
 */
function loadSprite(sprite, folder) {
  const known = spriteImages.get(sprite.id);
  if (known) return known;
  const loading = new Promise((/** @type {(image: HTMLImageElement) => void} */ resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("an image beside the page is missing"));
    if (sprite.file) {
      image.src = [folder, sprite.file].map(encodeURIComponent).join("/");
      return;
    }
    const block = document.querySelector(`script[data-sprite="${CSS.escape(sprite.id)}"]`);
    const bytes = decodeBase64(((block && block.textContent) || "").trim());
    image.src = URL.createObjectURL(new Blob([/** @type {BlobPart} */ (bytes)], { type: "image/png" }));
  });
  spriteImages.set(sprite.id, loading);
  return loading;
}

/** @param {number} row @returns {{sprite: Sprite, place: number} | undefined} */
function findSprite(row) {
  if (spritePlaces === null) {
    spritePlaces = new Map();
    const elsewhere = META.sprites_elsewhere
      ? META.sprites_elsewhere.sprites.map((sprite) => ({ ...sprite, id: `file:${sprite.file}` }))
      : [];
    // those in the page last: where both have an example, the page's own is shown
    for (const sprite of [...elsewhere, ...(META.sprites || [])]) {
      for (let place = 0; place < sprite.rows.length; place++) spritePlaces.set(sprite.rows[place], { sprite, place });
    }
  }
  return spritePlaces.get(row);
}

/**
 * The image of an example, drawn when its sprite is decoded. A canvas and no background image: browsers print it.
 * @param {number} row
 * @param {{sprite: Sprite, place: number} | undefined} [found] of other sprites, such as rebuilt images
 * @returns {HTMLElement | null} null where the bank has no images
 */
function drawThumbnail(row, found = findSprite(row)) {
  const size = META.image;
  if (!size) return null;
  if (!found) return make("span", { class: "no-image" }, "no image in this page");
  const canvas = /** @type {HTMLCanvasElement} */ (
    make("canvas", {
      class: size.w < 96 ? "thumb pixels" : "thumb",
      width: size.w,
      height: size.h,
      "aria-hidden": "true",
    })
  );
  const { sprite, place } = found;
  const folder = META.sprites_elsewhere ? META.sprites_elsewhere.folder : "";
  loadSprite(sprite, folder).then(
    (image) => {
      const context = canvas.getContext("2d");
      const left = (place % sprite.cols) * size.w;
      const top = Math.floor(place / sprite.cols) * size.h;
      if (context) context.drawImage(image, left, top, size.w, size.h, 0, 0, size.w, size.h);
    },
    () => canvas.replaceWith(make("span", { class: "no-image" }, "image missing beside the page")),
  );
  return canvas;
}
