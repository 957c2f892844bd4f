"use strict";
// Which examples are shown: one bit for each filter, and counts that only change where a row changes.

/**
 * @typedef {{kind: "range", lo: number, hi: number} | {kind: "codes", codes: Set<number>} |
 *   {kind: "rows", rows: Set<number>}} Filter
 * @typedef {{id: string, bins: Uint16Array, counts: Uint32Array, totals: Uint32Array}} Counted
 */

const NO_BIN = 65535;
const MOST_FILTERS = 31;
const PICKED = "picked";

/** Filters over all rows. A row is shown where no filter's bit is set. */
class Filters {
  constructor() {
    this.masks = new Int32Array(N);
    this.count = N;
    /** @type {Map<string, Filter>} */
    this.active = new Map();
    /** @type {Map<string, number>} */
    this.bits = new Map();
    /** @type {Map<string, Counted>} */
    this.counted = new Map();
    /** @type {(() => void)[]} */
    this.listeners = [];
    this.version = 0;
  }

  /**
   * Count rows by bin from now on. Bins that a filter of the same column excludes are counted too: a histogram shows
   * what the other filters leave.
   * @param {string} id
   * @param {Uint16Array} bins of each row, NO_BIN where it has none
   * @param {number} size
   * @returns {Counted}
   */
  countBins(id, bins, size) {
    const view = { id, bins, counts: new Uint32Array(size), totals: new Uint32Array(size) };
    const others = ~(this.bits.get(id) || 0);
    for (let row = 0; row < N; row++) {
      if (bins[row] === NO_BIN) continue;
      view.totals[bins[row]]++;
      if ((this.masks[row] & others) === 0) view.counts[bins[row]]++;
    }
    this.counted.set(id, view);
    return view;
  }

  /** @param {string} id */
  stopCounting(id) {
    this.counted.delete(id);
  }

  /**
   * @param {string} id of a column, or PICKED
   * @param {Filter | null} filter null clears it
   */
  set(id, filter) {
    if (filter === null) {
      if (!this.active.has(id)) return;
      this.active.delete(id);
      this.change(id, () => true);
      this.bits.delete(id);
    } else {
      if (!this.bits.has(id)) {
        if (this.bits.size === MOST_FILTERS) return;
        const used = new Set(this.bits.values());
        let bit = 1;
        while (used.has(bit)) bit <<= 1;
        this.bits.set(id, bit);
      }
      this.active.set(id, filter);
      this.change(id, makeTest(id, filter));
    }
    this.version++;
    for (const listener of this.listeners) listener();
  }

  clear() {
    for (const id of [...this.active.keys()]) this.set(id, null);
  }

  /**
   * @param {string} id
   * @param {(row: number) => boolean} passes
   */
  change(id, passes) {
    const bit = this.bits.get(id) || 0;
    const { masks } = this;
    const views = [...this.counted.values()].map((view) => ({ ...view, others: ~(this.bits.get(view.id) || 0) }));
    for (let row = 0; row < N; row++) {
      const before = masks[row];
      const after = passes(row) ? before & ~bit : before | bit;
      if (before === after) continue;
      masks[row] = after;
      if (before === 0) this.count--;
      else if (after === 0) this.count++;
      for (let k = 0; k < views.length; k++) {
        const { others, bins, counts } = views[k];
        const was = (before & others) === 0;
        const is = (after & others) === 0;
        if (was !== is && bins[row] !== NO_BIN) counts[bins[row]] += is ? 1 : -1;
      }
    }
  }

  /**
   * The rows that are shown, in order.
   * @param {Int32Array} order
   * @returns {Int32Array}
   */
  list(order) {
    const rows = new Int32Array(this.count);
    let k = 0;
    for (let place = 0; place < order.length; place++) if (this.masks[order[place]] === 0) rows[k++] = order[place];
    return rows;
  }
}

/**
 * @param {string} id
 * @param {Filter} filter
 * @returns {(row: number) => boolean}
 */
function makeTest(id, filter) {
  if (filter.kind === "rows") return (row) => filter.rows.has(row);
  if (filter.kind === "codes") {
    const codes = readCodes(id);
    return (row) => filter.codes.has(codes[row]);
  }
  const values = readScore(id);
  // as the values are stored: 0.7 in 32 bits is a little less than 0.7
  const lo = Math.fround(filter.lo);
  const hi = Math.fround(filter.hi);
  return (row) => values[row] >= lo && values[row] <= hi; // NaN is in no range
}

/**
 * Edges at round numbers, some forty bins from the smallest to the largest value. The last bin holds its upper edge.
 * @param {number} lo
 * @param {number} hi
 * @returns {number[]}
 */
function makeEdges(lo, hi) {
  if (!(hi > lo)) {
    const width = Math.abs(lo) * 0.1 || 0.5;
    return [lo - width, lo + width];
  }
  const step = roundStep((hi - lo) / 40);
  const first = Math.floor(lo / step + 1e-9);
  const last = Math.max(Math.ceil(hi / step - 1e-9), first + 1);
  return Array.from({ length: last - first + 1 }, (_, k) => Number(((first + k) * step).toPrecision(12)));
}

/** @param {number} step @returns {number} the next round number from 1, 2, 2.5, 5 and 10 */
function roundStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  const factor = step / power;
  return (factor <= 1 ? 1 : factor <= 2 ? 2 : factor <= 2.5 ? 2.5 : factor <= 5 ? 5 : 10) * power;
}

/**
 * @param {Float32Array} values
 * @param {number[]} edges of equal bins
 * @returns {Uint16Array}
 */
function findBins(values, edges) {
  const bins = new Uint16Array(values.length).fill(NO_BIN);
  const last = edges.length - 2;
  const scale = (edges.length - 1) / (edges[edges.length - 1] - edges[0]);
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (value !== value) continue;
    bins[row] = Math.max(0, Math.min(last, Math.floor((value - edges[0]) * scale + 1e-5)));
  }
  return bins;
}
