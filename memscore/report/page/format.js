"use strict";
// Numbers as text: as many digits as they deserve, the same for all of a column.

const MINUS = "\u2212";
/** @type {Map<string, number>} */
const columnDigits = new Map();

/** @param {number} count @returns {string} */
function formatCount(count) {
  return count.toLocaleString("en-US");
}

/**
 * @param {number} value
 * @param {number} digits after the point
 * @returns {string}
 */
function formatFixed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? MINUS + text : text;
}

/**
 * A number by itself, with three significant digits.
 * @param {number | null | undefined} value
 * @returns {string}
 */
function formatNumber(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : `${MINUS}∞`;
  const size = Math.abs(value);
  if (size >= 1e7 || (size > 0 && size < 1e-4)) return formatScientific(value);
  if (size >= 100) return (value < 0 ? MINUS : "") + Math.round(size).toLocaleString("en-US");
  return formatFixed(value, size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.1 || size === 0 ? 3 : size >= 0.01 ? 4 : 5);
}

/** @param {number} value @returns {string} */
function formatScientific(value) {
  const [mantissa, exponent] = Math.abs(value).toExponential(1).split("e");
  return `${value < 0 ? MINUS : ""}${mantissa.replace(/\.0$/, "")}e${exponent.replace("+", "").replace("-", MINUS)}`;
}

/**
 * Digits after the point for all values of a score, so that they align in a column.
 * @param {string} id
 * @returns {number}
 */
function countDigits(id) {
  let digits = columnDigits.get(id);
  if (digits === undefined) {
    const [lo, hi] = findRange(readScore(id));
    const size = Math.max(Math.abs(lo), Math.abs(hi));
    const column = COLUMNS.get(id);
    const isWhole = column !== undefined && (column.type === "u1" || column.type === "u2" || column.type === "i4");
    digits = isWhole ? 0 : size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 0.05 || size === 0 ? 3 : 5;
    columnDigits.set(id, digits);
  }
  return digits;
}

/**
 * @param {string} id
 * @param {number} value
 * @returns {string}
 */
function formatValue(id, value) {
  return Number.isNaN(value) ? "–" : formatFixed(value, countDigits(id));
}

/**
 * The interval of a score, empty where it has none.
 * @param {Column} column
 * @param {number} row
 * @returns {string}
 */
function formatInterval(column, row) {
  if (column.lo && column.hi) {
    const lo = readScore(column.lo)[row];
    const hi = readScore(column.hi)[row];
    if (Number.isNaN(lo) || Number.isNaN(hi)) return "";
    return `[${formatValue(column.id, lo)}, ${formatValue(column.id, hi)}]`;
  }
  if (column.se) {
    const error = readScore(column.se)[row];
    return Number.isNaN(error) ? "" : `± ${formatFixed(error, countDigits(column.id))}`;
  }
  return "";
}

/** @param {Estimate | null | undefined} estimate @param {number} [digits] @returns {string} */
function formatEstimate(estimate, digits = 3) {
  if (!estimate || estimate.value === null || estimate.value === undefined) return "–";
  const value = formatFixed(estimate.value, digits);
  if (estimate.lo === null || estimate.lo === undefined || estimate.hi === null || estimate.hi === undefined) {
    return value;
  }
  return `${value} [${formatFixed(estimate.lo, digits)}, ${formatFixed(estimate.hi, digits)}]`;
}

/** @param {number | null | undefined} share @returns {string} */
function formatPercent(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return "–";
  const percent = 100 * share;
  if (percent === 0 || percent >= 99.995) return `${formatFixed(percent, 0)}\u00a0%`;
  const digits = percent >= 99.95 ? 2 : percent >= 1 ? 1 : percent >= 0.1 ? 2 : 3;
  return `${
    Number(percent.toFixed(digits)) === 0 ? percent.toExponential(0).replace("-", MINUS) : percent.toFixed(digits)
  }\u00a0%`;
}

/** @param {number} seconds @returns {string} */
function formatSeconds(seconds) {
  if (seconds < 1) return `${formatFixed(1000 * seconds, seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 120) return `${formatFixed(seconds, seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${formatFixed(seconds / 60, 0)} min`;
  return `${formatFixed(seconds / 3600, 1)} h`;
}

/**
 * The smallest and the largest finite value; [0, 1] where there is none.
 * @param {ArrayLike<number>} values
 * @returns {[number, number]}
 */
function findRange(values) {
  let lo = Infinity;
  let hi = -Infinity;
  for (let k = 0; k < values.length; k++) {
    const value = values[k];
    if (value < lo && value !== -Infinity) lo = value;
    if (value > hi && value !== Infinity) hi = value;
  }
  return lo <= hi ? [lo, hi] : [0, 1];
}

/**
 * A word for which way of a score is more memorized or riskier.
 * @param {Column} column
 * @returns {string}
 */
function describeDirection(column) {
  if (column.direction === 1) return "higher: more memorized or riskier";
  if (column.direction === -1) return "lower: more memorized or riskier";
  return "";
}
