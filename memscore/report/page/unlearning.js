"use strict";
// Unlearning: each measure by method, as dots with intervals beside oracle and original; the attempts of a sweep.

function makeUnlearningFigures() {
  const host = document.querySelector('[data-plots="unlearning"]');
  if (!host) return;
  if (findModels()) host.append(makeComparison());
  const experiments = META.experiments || [];
  if (experiments.length) {
    host.append(
      make(
        "div",
        {},
        make("h3", {}, "Methods beside oracle and original"),
        makeLegend([
          {
            title: "oracle: a model retrained without the forget set, with its range",
            colour: "var(--good)",
            shape: "bar",
          },
          { title: "original: the model before unlearning", colour: "var(--muted)", dash: [4, 4] },
          { title: "method, with its interval", colour: "var(--accent)", shape: "dot" },
        ]),
        ...experiments.map((experiment, k) => makeExperiment(experiment, k === 0)),
      ),
    );
  }
  if ((META.sweeps || []).length) host.append(makeSweeps(META.sweeps || []));
}

/**
 * @param {Experiment} experiment
 * @param {boolean} open
 * @returns {HTMLElement}
 */
function makeExperiment(experiment, open) {
  return make(
    "details",
    { class: "experiment", open },
    make("summary", {}, experiment.title),
    experiment.about ? make("p", { class: "lead" }, experiment.about) : null,
    make("div", { class: "small-multiples" }, ...experiment.measures.map((measure) => makeMeasure(measure))),
  );
}

/**
 * @param {Measure} measure
 * @returns {HTMLElement}
 */
function makeMeasure(measure) {
  const canvas = makeFigure(
    `${measure.title} of ${measure.methods.length} methods: ${measure.methods
      .map((method) => `${method.name} ${formatEstimate(/** @type {Estimate} */ (method))}`)
      .join("; ")}`,
    "dots",
    (context, width, height) => drawMeasure(context, width, height, measure),
  );
  const longest = Math.max(...measure.methods.map(({ name }) => name.length));
  canvas.style.height = `${measure.methods.length * (longest > 42 ? 42 : 30) + (measure.unit ? 56 : 36)}px`;
  const way =
    measure.direction === 1
      ? "higher is better"
      : measure.direction === -1
        ? "lower is better"
        : "nearest to the oracle is best";
  return make(
    "figure",
    {},
    make(
      "figcaption",
      { class: "above" },
      make("strong", {}, measure.title),
      make("span", { class: "muted" }, ` ${way}`),
    ),
    canvas,
    measure.about ? make("figcaption", {}, measure.about) : null,
  );
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {Measure} measure
 */
function drawMeasure(context, width, height, measure) {
  const colours = readColours();
  context.font = FONT;
  const widest = Math.max(...measure.methods.map(({ name }) => context.measureText(name).width));
  const names = Math.min(widest + 18, width * 0.48);
  const box = { left: names, top: 8, width: width - names - 14, height: height - 8 - (measure.unit ? 44 : 24) };
  const { methods, oracle, original } = measure;
  const known = (/** @type {number | null | undefined} */ value) => value !== null && value !== undefined;
  const values = [
    ...methods.flatMap(({ value, lo, hi, points }) => [value, lo, hi, ...(points || [])]),
    ...(oracle ? [oracle.value, oracle.lo, oracle.hi] : []),
    original ? original.value : null,
  ].filter(known);
  let [lo, hi] = findRange(values.map(Number));
  const margin = (hi - lo) * 0.06 || Math.abs(hi) * 0.1 || 0.1;
  [lo, hi] = [lo - margin, hi + margin];
  // no further than what is possible: an accuracy ends at 1
  const [least, most] = measure.range || [];
  if (known(least)) lo = Math.max(lo, Number(least));
  if (known(most)) hi = Math.min(hi, Number(most));
  const x = makeLinear(lo, hi, box.left, box.left + box.width, Math.max(2, Math.floor(box.width / 70)));
  drawAxes(context, box, x, { ...x, ticks: [] }, { x: measure.unit || "" });
  const inside = (/** @type {number} */ value) => x.map(Math.min(Math.max(value, x.lo), x.hi));
  if (oracle) {
    context.fillStyle = colours.good;
    if (known(oracle.lo) && known(oracle.hi)) {
      context.globalAlpha = 0.18;
      context.fillRect(
        inside(Number(oracle.lo)),
        box.top,
        Math.max(2, inside(Number(oracle.hi)) - inside(Number(oracle.lo))),
        box.height,
      );
      context.globalAlpha = 1;
    }
    context.strokeStyle = colours.good;
    context.lineWidth = 2;
    if (known(oracle.value))
      drawLine(context, inside(oracle.value), box.top, inside(oracle.value), box.top + box.height);
  }
  if (original && known(original.value)) {
    context.strokeStyle = colours.muted;
    context.lineWidth = 1.5;
    context.setLineDash([4, 4]);
    drawLine(context, inside(original.value), box.top, inside(original.value), box.top + box.height);
    context.setLineDash([]);
  }
  const step = box.height / Math.max(1, methods.length);
  methods.forEach((method, k) => {
    const place = box.top + (k + 0.5) * step;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.font = FONT;
    context.fillStyle = colours.text;
    drawName(context, method.name, names - 12, place, names - 16);
    context.fillStyle = colours.rest;
    for (const point of method.points || []) drawDot(context, inside(point), place, 2.5);
    drawInterval(context, x, place, method, colours.accent);
  });
}

/**
 * A name that ends at a place, in up to three lines where one is too short.
 * @param {CanvasRenderingContext2D} context
 * @param {string} name
 * @param {number} right
 * @param {number} place
 * @param {number} width
 */
function drawName(context, name, right, place, width) {
  if (context.measureText(name).width <= width) {
    context.fillText(name, right, place);
    return;
  }
  context.font = SMALL_FONT;
  /** @type {string[]} */
  const lines = [];
  for (const word of name.split(" ")) {
    const longer = `${lines[lines.length - 1]} ${word}`;
    if (lines.length === 3 || (lines.length && context.measureText(longer).width <= width))
      lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  lines.forEach((line, k) =>
    context.fillText(clipText(context, line, width), right, place + (k - (lines.length - 1) / 2) * 13),
  );
}

/**
 * One search of a sweep at a time: a sweep has one for each step and original.
 * @param {Sweep[]} sweeps
 * @returns {HTMLElement}
 */
function makeSweeps(sweeps) {
  const place = make("div", {});
  const show = (/** @type {number} */ k) => {
    for (const canvas of place.querySelectorAll("canvas")) forgetFigure(canvas);
    place.replaceChildren(makeSweep(sweeps[k]));
  };
  const select = /** @type {HTMLSelectElement} */ (
    make(
      "select",
      { id: "sweep", onchange: () => show(Number(select.value)) },
      ...sweeps.map((sweep, k) => make("option", { value: k }, sweep.title)),
    )
  );
  show(0);
  return make(
    "div",
    {},
    make("h3", {}, "Configurations that sweeps tried"),
    make(
      "div",
      { class: "controls" },
      make("label", {}, "Search ", select),
      make("span", {}, `${formatCount(sweeps.length)} ${sweeps.length === 1 ? "search" : "searches"}`),
    ),
    place,
  );
}

/**
 * @param {Sweep} sweep
 * @returns {HTMLElement}
 */
function makeSweep(sweep) {
  const finished = sweep.attempts.filter((attempt) => attempt.objective !== null && !attempt.failed);
  const figure =
    finished.length && sweep.parameters.length
      ? make(
          "figure",
          {},
          makeFigure(`${finished.length} configurations of ${sweep.title}`, "parallel", (context, width, height) =>
            drawAttempts(context, width, height, sweep, finished),
          ),
          make(
            "figcaption",
            {},
            "A line is a configuration: its parameters and what it reached. Thick lines were chosen. A " +
              "choice at the end of an axis may mean that the best value lies outside.",
          ),
          makeLegend([
            { title: "chosen without the oracle", colour: "var(--second)" },
            { title: "chosen by the oracle", colour: "var(--good)" },
            { title: "others", colour: "var(--rest)" },
          ]),
        )
      : null;
  const sign = sweep.objective.direction === -1 ? 1 : -1;
  const sorted = [...sweep.attempts].sort(
    (a, b) => sign * ((a.objective ?? -sign * Infinity) - (b.objective ?? -sign * Infinity)),
  );
  const rows = sorted.map((attempt) =>
    make(
      "tr",
      { class: attempt.chosen && attempt.chosen.length ? "chosen" : "" },
      ...attempt.values.map((value) =>
        make("td", { class: "num" }, typeof value === "number" ? formatNumber(value) : value),
      ),
      make("td", { class: "num" }, attempt.failed ? attempt.failed : formatNumber(attempt.objective)),
      make("td", {}, (attempt.chosen || []).join(", ")),
    ),
  );
  return make(
    "div",
    { class: "sweep" },
    sweep.about ? make("p", { class: "lead" }, sweep.about) : null,
    figure,
    sweep.regret ? make("p", { class: "note" }, sweep.regret) : null,
    make(
      "details",
      {},
      make("summary", {}, `${formatCount(sweep.attempts.length)} configurations`),
      make(
        "div",
        { class: "scroll tall" },
        make(
          "table",
          { class: "data" },
          make(
            "thead",
            {},
            make(
              "tr",
              {},
              ...sweep.parameters.map(({ name }) => make("th", { scope: "col", class: "num" }, name)),
              make("th", { scope: "col", class: "num" }, sweep.objective.title),
              make("th", { scope: "col" }, "Chosen by"),
            ),
          ),
          make("tbody", {}, ...rows),
        ),
      ),
    ),
  );
}

/**
 * Parallel axes, one for each parameter and one for the objective.
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {Sweep} sweep
 * @param {Attempt[]} attempts
 */
function drawAttempts(context, width, height, sweep, attempts) {
  const colours = readColours();
  const box = { left: 30, top: 34, width: width - 110, height: height - 34 - 14 };
  const axes = [
    ...sweep.parameters.map((parameter, k) => ({
      title: parameter.name,
      log: parameter.log,
      lo: parameter.lo,
      hi: parameter.hi,
      read: (/** @type {Attempt} */ attempt) => attempt.values[k],
    })),
    {
      title: sweep.objective.title,
      log: false,
      lo: undefined,
      hi: undefined,
      read: (/** @type {Attempt} */ attempt) => attempt.objective,
    },
  ];
  const scales = axes.map((axis) => {
    const values = attempts.map(axis.read);
    const numbers = values.filter((value) => typeof value === "number").map(Number);
    const [bottom, top] = [box.top + box.height, box.top];
    if (numbers.length < values.filter((value) => value !== null).length) {
      const names = [...new Set(values.map(String))].sort();
      const scale = makeLinear(-0.5, names.length - 0.5, bottom, top);
      return {
        place: (/** @type {unknown} */ value) => scale.map(names.indexOf(String(value))),
        ticks: names.map((name, k) => ({ text: name, at: scale.map(k) })),
      };
    }
    const [least, most] = findRange([...numbers, ...[axis.lo, axis.hi].filter((end) => end !== undefined).map(Number)]);
    const scale = axis.log && least > 0 ? makeLog(least, most, bottom, top) : makeLinear(least, most, bottom, top, 4);
    return {
      place: (/** @type {unknown} */ value) => (value === null ? NaN : scale.map(Number(value))),
      ticks: scale.ticks.map((tick) => ({
        text: scale.log ? formatPower(tick) : scale.format(tick),
        at: scale.map(tick),
      })),
    };
  });
  const across = axes.map((_, k) => box.left + (k * box.width) / Math.max(1, axes.length - 1));
  const rank = (/** @type {Attempt} */ { chosen }) =>
    (chosen || []).includes("oracle") ? 2 : (chosen || []).length ? 1 : 0;
  for (const attempt of [...attempts].sort((a, b) => rank(a) - rank(b))) {
    const kind = rank(attempt);
    context.strokeStyle = [colours.rest, colours.second, colours.good][kind];
    context.lineWidth = kind ? 2.5 : 1;
    context.globalAlpha = kind ? 1 : 0.8;
    drawPath(
      context,
      across,
      axes.map((axis, k) => scales[k].place(axis.read(attempt))),
    );
  }
  context.globalAlpha = 1;
  context.lineWidth = 1;
  context.textBaseline = "middle";
  axes.forEach((axis, k) => {
    const place = Math.round(across[k]) + 0.5;
    context.strokeStyle = colours.muted;
    drawLine(context, place, box.top, place, box.top + box.height);
    context.font = SMALL_FONT;
    context.textAlign = "left";
    for (const { text, at } of scales[k].ticks) {
      drawLine(context, place, at, place + 4, at);
      const size = context.measureText(text).width;
      context.fillStyle = colours.page;
      context.fillRect(place + 6, at - 7, size + 4, 14);
      context.fillStyle = colours.muted;
      context.fillText(text, place + 8, at);
    }
    context.font = FONT;
    context.fillStyle = colours.text;
    context.textAlign = k === axes.length - 1 ? "center" : k ? "center" : "left";
    const room = k === axes.length - 1 ? 140 : box.width / Math.max(1, axes.length - 1) - 8;
    context.fillText(clipText(context, axis.title, room), k ? place : 4, 14);
  });
}
