"use strict";
// Membership inference attacks: ROC curves on log axes, and what a positive answer is worth at a prior.

const attackView = { prior: 0.5 };
const SMALLEST_PRIOR = 1e-4;

/**
 * @param {string} place of the figures
 * @param {Attack[]} attacks
 */
function makeAttackFigures(place, attacks) {
  const host = document.querySelector(`[data-plots="${place}"]`);
  if (!host || !attacks.length) return;
  const drawn = attacks.filter((attack) => attack.roc && attack.roc.fpr.length > 1);
  /** @type {Set<string>} */
  const hidden = new Set(drawn.slice(6).map((attack) => attack.name));
  const canvas = makeFigure(
    `ROC curves of ${drawn.length} attacks, both axes logarithmic`,
    "square roc",
    (context, width, height) =>
      drawRoc(
        context,
        width,
        height,
        drawn.filter(({ name }) => !hidden.has(name)),
        drawn,
      ),
  );
  const legend = make(
    "ul",
    { class: "legend checks" },
    ...drawn.map((attack, k) => {
      const swatch = make("span", { class: `swatch line${k % DASHES.length ? " dashed" : ""}`, "aria-hidden": "true" });
      swatch.style.color = nameSeriesColour(k);
      const box = /** @type {HTMLInputElement} */ (
        make("input", {
          type: "checkbox",
          onchange: () => {
            if (box.checked) hidden.delete(attack.name);
            else hidden.add(attack.name);
            redraw(canvas);
          },
        })
      );
      box.checked = !hidden.has(attack.name);
      return make(
        "li",
        {},
        make(
          "label",
          { title: attack.about || attack.name },
          box,
          swatch,
          make("span", {}, attack.title),
          attack.auc ? make("span", { class: "muted num" }, `AUC ${formatEstimate(attack.auc)}`) : null,
        ),
      );
    }),
  );
  const rated = attacks.filter((attack) => attack.thresholds && attack.thresholds.length);
  const distrusted = attacks.filter((attack) => attack.trusted === false);
  if (distrusted.length) {
    host.append(
      make(
        "ul",
        { class: "warnings" },
        ...distrusted.map((attack) =>
          make(
            "li",
            { class: "error" },
            `${attack.title}: this audit is not trusted, for the reasons below; its numbers say little about the model.`,
          ),
        ),
      ),
    );
  }
  host.append(
    make(
      "div",
      { class: drawn.length && rated.length ? "side-by-side attack" : "attack" },
      drawn.length
        ? make(
            "figure",
            {},
            canvas,
            legend,
            make(
              "figcaption",
              {},
              "True positive rate at each false positive " +
                "rate, with intervals where they are stored. The dashed diagonal is guessing.",
            ),
          )
        : null,
      rated.length ? makePrecision(place, rated) : null,
    ),
  );
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {Attack[]} shown
 * @param {Attack[]} all of which the place gives the colour
 */
function drawRoc(context, width, height, shown, all) {
  const colours = readColours();
  const box = { left: 58, top: 28, width: width - 84, height: height - 28 - 44 };
  let lowest = 0.1;
  for (const { roc } of all) for (const fpr of roc ? roc.fpr : []) if (fpr > 0) lowest = Math.min(lowest, fpr);
  lowest = 10 ** Math.floor(Math.log10(Math.max(lowest, 1e-5)) + 1e-9);
  const x = makeLog(lowest, 1, box.left, box.left + box.width, formatTickPercent);
  const y = makeLog(lowest, 1, box.top + box.height, box.top, formatTickPercent);
  drawAxes(context, box, x, y, { x: "False positive rate", y: "True positive rate" });
  context.save();
  context.beginPath();
  context.rect(box.left, box.top, box.width, box.height);
  context.clip();
  context.strokeStyle = colours.muted;
  context.setLineDash([4, 4]);
  drawLine(context, x.map(lowest), y.map(lowest), x.map(1), y.map(1));
  for (const attack of shown) {
    const place = all.indexOf(attack);
    if (!attack.roc) continue;
    const { fpr, tpr, lo, hi } = attack.roc;
    const keep = [...fpr.keys()].filter((k) => fpr[k] > 0 && tpr[k] !== null);
    const xs = keep.map((k) => x.map(fpr[k]));
    const rise = (/** @type {number[]} */ values) =>
      keep.map((k) => y.map(Math.min(Math.max(values[k], lowest / 10), 1)));
    context.fillStyle = colours.series[place % 8];
    context.strokeStyle = colours.series[place % 8];
    if (lo && hi && lo.length && hi.length) {
      context.globalAlpha = 0.16;
      drawBand(context, xs, rise(lo), rise(hi));
      context.globalAlpha = 1;
    }
    context.setLineDash(DASHES[place % DASHES.length]);
    context.lineWidth = 1.8;
    drawPath(context, xs, rise(tpr));
  }
  context.restore();
}

/**
 * Positive predictive value: the share of members among those that an attack flags, if members are a share of prior.
 * @param {number} prior
 * @param {number} tpr
 * @param {number} fpr
 * @returns {number} NaN where nothing is flagged
 */
function computePrecision(prior, tpr, fpr) {
  return (prior * tpr) / (prior * tpr + (1 - prior) * fpr);
}

/** @param {Threshold} threshold @returns {number} the false positive rate that it has, or else the one it aims at */
function getFpr(threshold) {
  const { realized_fpr: realized } = threshold;
  return realized === null || realized === undefined ? threshold.fpr : realized;
}

/**
 * What a flag is worth at any prior. The precision that is stored for one prior is turned to its likelihood ratio
 * TPR / FPR, of which the precision at every prior is a rising function; its interval goes the same way.
 * @param {Threshold} threshold
 * @param {number} prior
 * @returns {{value: number, lo: number | null, hi: number | null}}
 */
function rateThreshold(threshold, prior) {
  const { precision } = threshold;
  const turn = (/** @type {number | null | undefined} */ share) => {
    if (!precision || share === null || share === undefined) return null;
    if (share >= 1) return 1;
    const ratio = (share / (1 - share)) * ((1 - precision.prior) / precision.prior);
    return computePrecision(prior, ratio, 1);
  };
  return {
    value: computePrecision(prior, threshold.tpr, getFpr(threshold)),
    lo: turn(precision && precision.lo),
    hi: turn(precision && precision.hi),
  };
}

/**
 * The slider of the prior and the table of thresholds.
 * @param {string} place
 * @param {Attack[]} attacks
 * @returns {HTMLElement}
 */
function makePrecision(place, attacks) {
  const toPlace = (/** @type {number} */ prior) => Math.log(prior / (1 - prior));
  const ends = [SMALLEST_PRIOR, 0.99].map(toPlace);
  const slider = /** @type {HTMLInputElement} */ (
    make("input", {
      type: "range",
      min: ends[0],
      max: ends[1],
      step: "any",
      id: `${place}-prior`,
      class: "prior",
      oninput: () => {
        const prior = 1 / (1 + Math.exp(-Number(slider.value)));
        setPrior(prior >= 0.1 ? Math.round(100 * prior) / 100 : Number(prior.toPrecision(2)));
      },
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        const step = /** @type {Record<string, number>} */ ({
          ArrowLeft: -1,
          ArrowDown: -1,
          ArrowRight: 1,
          ArrowUp: 1,
        });
        if (!(event.key in step)) return;
        event.preventDefault();
        setPrior(stepPrior(attackView.prior, step[event.key]));
      },
    })
  );
  const body = make("tbody", {});
  const output = make("output", { for: `${place}-prior`, class: "num" });
  const update = () => {
    slider.value = String(toPlace(attackView.prior));
    slider.setAttribute("aria-valuetext", formatPercent(attackView.prior));
    output.textContent = formatPercent(attackView.prior);
    body.replaceChildren(
      ...attacks.flatMap((attack) =>
        (attack.thresholds || []).map((threshold, k) => makeThresholdRow(attack, threshold, k)),
      ),
    );
  };
  priorListeners.push(update);
  update();
  return make(
    "div",
    { class: "precision" },
    make("h3", {}, "What a flag is worth"),
    make(
      "p",
      { class: "lead" },
      "Of the examples that an attack flags as members at a threshold, the share that are " +
        "members: its positive predictive value (PPV). It depends on how many members there are to begin with.",
    ),
    make(
      "div",
      { class: "controls prior-controls" },
      make("label", { for: `${place}-prior` }, "Share of members before the attack (prior)"),
      slider,
      output,
      ...[0.01, 0.1, 0.5].map((prior) =>
        make("button", { type: "button", onclick: () => setPrior(prior) }, formatPercent(prior).replace(".0", "")),
      ),
    ),
    make(
      "div",
      { class: "scroll" },
      make(
        "table",
        { class: "data thresholds" },
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            make("th", { scope: "col" }, "Attack"),
            ...[
              "Aimed FPR",
              "Threshold",
              ...(place === "audits" ? ["Expected FPR", "Expected TPR"] : ["Realized FPR", "TPR"]),
              "PPV",
            ].map((text) => make("th", { scope: "col", class: "num" }, text)),
          ),
        ),
        body,
      ),
    ),
  );
}

/** @param {number} prior @param {number} step @returns {number} the next of the priors that keys stop at */
function stepPrior(prior, step) {
  const stops = [
    1e-4,
    2e-4,
    5e-4,
    1e-3,
    2e-3,
    5e-3,
    0.01,
    0.02,
    0.05,
    ...Array.from({ length: 18 }, (_, k) => (k + 2) / 20),
    0.99,
  ];
  const stop =
    step > 0 ? stops.find((each) => each > prior * 1.0001) : [...stops].reverse().find((each) => each < prior * 0.9999);
  return stop === undefined ? prior : stop;
}

/**
 * @param {Attack} attack
 * @param {Threshold} threshold
 * @param {number} k
 * @returns {HTMLElement}
 */
function makeThresholdRow(attack, threshold, k) {
  const interval = (/** @type {number | null | undefined} */ lo, /** @type {number | null | undefined} */ hi) =>
    lo === null || lo === undefined || hi === null || hi === undefined || Number.isNaN(lo)
      ? null
      : make("small", { class: "muted" }, ` [${formatPercent(lo)}, ${formatPercent(hi)}]`);
  const rated = rateThreshold(threshold, attackView.prior);
  return make(
    "tr",
    { class: k === 0 ? "first" : "" },
    make("th", { scope: "row" }, k === 0 ? attack.title : make("span", { class: "hidden-text" }, attack.title)),
    make("td", { class: "num" }, formatPercent(threshold.fpr)),
    make("td", { class: "num" }, formatNumber(threshold.threshold)),
    make(
      "td",
      { class: "num" },
      formatPercent(threshold.realized_fpr),
      interval(threshold.realized_lo, threshold.realized_hi),
    ),
    make("td", { class: "num" }, formatPercent(threshold.tpr), interval(threshold.tpr_lo, threshold.tpr_hi)),
    make(
      "td",
      { class: "num strong", "data-ppv": rated.value, "data-lo": rated.lo, "data-hi": rated.hi },
      Number.isNaN(rated.value) ? "nothing flagged" : formatPercent(rated.value),
      interval(rated.lo, rated.hi),
    ),
  );
}

/** @type {(() => void)[]} */
const priorListeners = [];

/** @param {number} prior */
function setPrior(prior) {
  attackView.prior = Math.min(Math.max(prior, SMALLEST_PRIOR), 0.99);
  for (const listener of priorListeners) listener();
  writeHashSoon();
}
