"use strict";
// Ids and rows leave the page: copied, or downloaded as the file that --forget ids:FILE reads.

/** @type {number[] | null} rows that another part of the page offers, such as those that two models differ on */
let offeredRows = null;

/**
 * @param {string} [scope] which rows are chosen at first
 */
function openExport(scope = listed.picked.size ? "picked" : "shown") {
  offeredRows = scope === "changed" ? compared.rows : null;
  const dialog = /** @type {HTMLDialogElement} */ (element("export"));
  const counts = {
    shown: listed.rows.length,
    picked: listed.picked.size,
    changed: offeredRows ? offeredRows.length : 0,
  };
  for (const [name, count] of Object.entries(counts)) {
    const choice = element(`export-${name}`);
    /** @type {HTMLElement} */ (choice.parentElement).hidden = name === "changed" ? offeredRows === null : false;
    /** @type {HTMLInputElement} */ (choice).disabled = count === 0;
    element(`export-${name}-count`).textContent = formatCount(count);
  }
  const column = COLUMNS.get(listed.sort);
  element("export-order").textContent =
    `in the order of ${column ? column.title : ""}, ` + `${listed.descending ? "highest" : "lowest"} first`;
  /** @type {HTMLInputElement} */ (element(`export-${scope}`)).checked = true;
  /** @type {HTMLInputElement} */ (element("export-first")).value = "";
  updateExport();
  dialog.showModal();
}

/** @returns {number[]} the rows that the dialog stands on */
function chooseExported() {
  const scope = ["shown", "picked", "changed"].find(
    (name) => /** @type {HTMLInputElement} */ (element(`export-${name}`)).checked,
  );
  const rows =
    scope === "changed"
      ? offeredRows || []
      : scope === "picked"
        ? [...orderRows(listed.sort, listed.descending)].filter((row) => listed.picked.has(row))
        : [...listed.rows];
  const field = /** @type {HTMLInputElement} */ (element("export-first"));
  const first = field.value === "" ? Infinity : Math.floor(Number(field.value));
  return rows.slice(0, first >= 0 ? first : 0);
}

function updateExport() {
  const rows = chooseExported();
  element("export-total").textContent = `${formatCount(rows.length)} ${rows.length === 1 ? "example" : "examples"}`;
  const name = nameFile("ids.json");
  const store = META.store || "STORE";
  element("export-command").textContent = `python -m unlearn.trial ${quoteArgument(store)} --forget ids:${name}`;
  element("export-preview").textContent = formatIds(rows.slice(0, 4)).replace(
    /\n\]\n$/,
    rows.length > 4 ? ",\n…\n]" : "\n]",
  );
  for (const id of ["export-copy", "export-download", "export-csv"]) disable(id, rows.length === 0);
}

/** @param {string} text @returns {string} as one argument of a shell */
function quoteArgument(text) {
  return /^[\w@%+=:,./~-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`;
}

/** @param {string} ending @returns {string} */
function nameFile(ending) {
  const stem =
    META.title
      .replace(/[^A-Za-z0-9._-]+/g, "-")
      .replace(/^[-.]+|[-.]+$/g, "")
      .slice(0, 60) || "memscore";
  return `${stem}-${ending}`;
}

/**
 * A JSON list with an id a line. In a list of lines an id with a line break would be two, and one with spaces at its
 * ends another.
 * @param {ArrayLike<number>} rows
 * @returns {string}
 */
function formatIds(rows) {
  const ids = readIds();
  return `[\n${Array.from(rows, (row) => JSON.stringify(ids[row])).join(",\n")}\n]\n`;
}

/**
 * The table's columns for some rows, values as stored.
 * @param {number[]} rows
 * @returns {string}
 */
function formatCsv(rows) {
  const quote = (/** @type {string} */ text) =>
    /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  /** @type {{name: string, read: (row: number) => string}[]} */
  const columns = [];
  const number = (/** @type {number} */ value) => (Number.isNaN(value) ? "" : String(Number(value.toPrecision(8))));
  for (const column of listTableColumns()) {
    if (column.role === "id") columns.push({ name: column.name, read: (row) => readIds()[row] });
    else if (isCoded(column)) {
      columns.push({
        name: column.name,
        read: (row) => {
          const code = readCodes(column.id)[row];
          return code === NO_CODE ? "" : nameCode(column, code);
        },
      });
    } else {
      columns.push({ name: column.name, read: (row) => number(readScore(column.id)[row]) });
      for (const [end, id] of /** @type {[string, string | null | undefined][]} */ ([
        ["lo", column.lo],
        ["hi", column.hi],
        ["se", column.se],
      ])) {
        if (!id) continue;
        const aside = COLUMNS.get(id);
        columns.push({ name: aside ? aside.name : `${column.name}_${end}`, read: (row) => number(readScore(id)[row]) });
      }
    }
  }
  const lines = [columns.map(({ name }) => quote(name)).join(",")];
  for (const row of rows) lines.push(columns.map(({ read }) => quote(read(row))).join(","));
  return `${lines.join("\r\n")}\r\n`;
}

/** @param {string} name @param {string} text @param {string} type */
function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = /** @type {HTMLAnchorElement} */ (make("a", { href: url, download: name }));
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** @param {string} text @returns {Promise<boolean>} whether it was copied */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // pages from disk may not write to the clipboard in some browsers; an older command may
    const area = /** @type {HTMLTextAreaElement} */ (make("textarea", { class: "hidden-text" }));
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

function listenForExport() {
  const dialog = /** @type {HTMLDialogElement} */ (element("export"));
  element("open-export").addEventListener("click", () => openExport());
  dialog.addEventListener("input", updateExport);
  element("export-close").addEventListener("click", () => dialog.close());
  element("export-download").addEventListener("click", () => {
    download(nameFile("ids.json"), formatIds(chooseExported()), "application/json");
    announce("ids downloaded");
  });
  element("export-csv").addEventListener("click", () => {
    download(nameFile("examples.csv"), formatCsv(chooseExported()), "text/csv");
    announce("table downloaded");
  });
  element("export-copy").addEventListener("click", async () => {
    const copied = await copyText(formatIds(chooseExported()));
    const said = copied ? "copied" : "the browser does not allow copying; download the file";
    element("export-said").textContent = said;
    announce(said);
  });
}
