// The table of all runs: choosing columns, sorting and filtering.

import { BOARD } from "./data.mjs";
import { choice, element, onlyRead, searchField, segments } from "./dom.mjs";
import { known, modelName, plain } from "./numbers.mjs";
import {
  EVERY_TASK,
  columnsFor,
  overviewMetrics,
  sourcesOf,
  subjectsOf,
  taskNames,
} from "./columns.mjs";

const FIRST_ROWS = 100; // More are shown on request.
const FEW_COLUMNS = 4; // So few get wider bars.

const chosen = { task: EVERY_TASK, metric: "", subject: "", source: "", wrapper: "", text: "" };
const order = { column: null, descending: true };
let shown = FIRST_ROWS;

export function startTable() {
  if (taskNames().length === 1) chooseTask(taskNames()[0]);
  drawControls();
  drawTable();
}

function chooseTask(task) {
  chosen.task = task;
  if (task !== EVERY_TASK) {
    chosen.subject = subjectsOf(task)[0];
    chosen.source = sourcesOf(task, chosen.subject)[0] ?? "";
  }
}

function change(name, value) {
  if (name === "task") chooseTask(value);
  else chosen[name] = value;
  if (name === "subject") chosen.source = sourcesOf(chosen.task, value)[0] ?? "";
  shown = FIRST_ROWS;
  drawControls(name);
  drawTable();
}

function drawControls(changed = null) {
  const form = document.getElementById("controls");
  // The text field keeps its element, and with it the cursor.
  const old = form.querySelector("input[type=search]")?.closest("label");
  const search = old ?? searchField("Filter runs", (text) => change("text", text));
  const fields = [];
  const tasks = taskNames().map((name) => [name, name]);
  if (tasks.length > 1) {
    const choices = [[EVERY_TASK, "All tasks"], ...tasks];
    fields.push(["task", choice("Task", choices, chosen.task, (v) => change("task", v))]);
  }
  if (chosen.task === EVERY_TASK) {
    const choices = [["", "Main metric of each task"], ...overviewMetrics().map((n) => [n, n])];
    fields.push(["metric", choice("Metric", choices, chosen.metric, (v) => change("metric", v))]);
  } else {
    const subjects = subjectsOf(chosen.task).map((name) => [name, name]);
    fields.push([
      "subject",
      segments("Metrics", subjects, chosen.subject, (v) => change("subject", v)),
    ]);
    const sources = sourcesOf(chosen.task, chosen.subject).map((name) => [name, name]);
    if (sources.length > 1) {
      const choices = [...sources, ["", "All sources"]];
      fields.push(["source", choice("Confidence", choices, chosen.source, (v) => change("source", v))]);
    }
  }
  const wrappers = [...new Set(BOARD.runs.map((run) => plain(run.wrapper)))].sort();
  if (wrappers.length > 1) {
    const choices = [["", "All wrappers"], ...wrappers.map((name) => [name, name])];
    fields.push(["wrapper", choice("Wrapper", choices, chosen.wrapper, (v) => change("wrapper", v))]);
  }
  if (changed === "text") return;
  form.replaceChildren(...fields.map(([, field]) => field), search);
  const field = fields.find(([name]) => name === changed)?.[1];
  field?.querySelector("select, [aria-pressed=true]")?.focus();
}

function drawTable() {
  const columns = [labelColumn(), ...columnsFor(chosen)];
  if (!columns.some((column) => column.id === order.column)) {
    const first = columns.find((column) => column.higherIsBetter !== null) ?? columns[0];
    sortBy(first);
  }
  const sorting = columns.find((column) => column.id === order.column);
  const runs = sorted(BOARD.runs.filter(isWanted), sorting);
  const table = element(
    "table",
    { class: columns.length <= FEW_COLUMNS ? "board few" : "board" },
    element("caption", { class: "only-read" }, "Results of all runs; column headers sort"),
    element("thead", {}, element("tr", {}, columns.map(header))),
    element("tbody", {}, runs.slice(0, shown).map((run) => row(run, columns))),
  );
  const scroller = document.getElementById("scroller");
  const { scrollLeft } = scroller;
  scroller.replaceChildren(table);
  scroller.scrollLeft = scrollLeft;
  if (runs.length > shown) scroller.append(moreButton(runs.length));
  document.getElementById("status").textContent =
    `${runs.length} of ${BOARD.runs.length} runs, sorted by ${sorting.title}, ` +
    (order.descending ? "highest first" : "lowest first");
}

function moreButton(count) {
  const show = () => {
    shown = count;
    drawTable();
  };
  return element("button", { type: "button", class: "more", click: show }, `Show all ${count} runs`);
}

function labelColumn() {
  return { id: "label", title: "Run", higherIsBetter: null, isText: true, value: (run) => run.label };
}

function isWanted(run) {
  if (chosen.wrapper && plain(run.wrapper) !== chosen.wrapper) return false;
  if (!chosen.text) return true;
  const words = [run.label, run.model, run.wrapper, run.date, run.settings].map(plain).join(" ");
  return chosen.text.split(/\s+/).every((part) => words.toLowerCase().includes(part));
}

function sorted(runs, column) {
  const direction = order.descending ? -1 : 1;
  return [...runs].sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (column.isText || typeof x === "string") {
      return direction * plain(x).localeCompare(plain(y), "en", { numeric: true });
    }
    if (!known(x) || !known(y)) return Number(known(y)) - Number(known(x)); // unknown ones last
    return direction * (x - y);
  });
}

/** Sort by a column: its better end first, and the other way round when it is chosen again. */
function sortBy(column) {
  if (order.column === column.id) order.descending = !order.descending;
  else {
    order.column = column.id;
    order.descending = column.isText ? false : column.higherIsBetter !== false;
  }
}

function header(column) {
  const isSorted = order.column === column.id;
  const arrow = isSorted ? (order.descending ? "▼" : "▲") : "";
  const better = { true: "higher is better", false: "lower is better" }[column.higherIsBetter];
  const button = element(
    "button",
    {
      type: "button",
      class: "sort",
      title: better,
      click: () => {
        sortBy(column);
        drawTable();
        document.querySelector("#scroller [aria-sort] button")?.focus();
      },
    },
    column.above ? element("span", { class: "task" }, column.above) : null,
    column.title,
    better ? element("span", { "aria-hidden": "true" }, column.higherIsBetter ? " ↑" : " ↓") : null,
    better ? onlyRead(`, ${better}`) : null,
    element("span", { class: "arrow", "aria-hidden": "true" }, arrow),
  );
  const state = isSorted ? (order.descending ? "descending" : "ascending") : null;
  return element("th", { scope: "col", "aria-sort": state }, button);
}

function row(run, [, ...columns]) {
  const place = BOARD.runs.indexOf(run);
  const about = [modelName(run.model), run.wrapper].filter((text) => text && text !== run.label).join(" · ");
  return element(
    "tr",
    {},
    element(
      "th",
      { scope: "row" },
      element("a", { class: "label", href: `#run/${place}` }, plain(run.label)),
      about ? element("span", { class: "about", title: run.model }, about) : null,
    ),
    columns.map((column) => (column.cell ? metricCell(column, run) : detailCell(column, run))),
  );
}

function detailCell(column, run) {
  return element("td", { class: "number" }, column.print(run));
}

function metricCell(column, run) {
  const cell = column.cell(run);
  if (!cell) return element("td", { class: "cell none" }, "–", onlyRead(" not measured"));
  const value = element("span", { class: cell.best ? "value best" : "value" }, cell.printed);
  return element(
    "td",
    { class: "cell", title: `${cell.printed}, ${cell.n ?? "?"} questions` },
    element(
      "span",
      { class: "line" },
      known(cell.rank) ? element("span", { class: "rank" }, onlyRead("rank "), String(cell.rank), onlyRead(": ")) : null,
      element(
        "span",
        { class: "shown" },
        cell.best ? element("span", { class: "best", "aria-hidden": "true" }, "★ ") : null,
        value,
        cell.best ? onlyRead(", significantly best") : null,
      ),
    ),
    whisker(column, cell),
  );
}

function whisker(column, cell) {
  if (![cell.low, cell.high, cell.value].every(known)) return null;
  const span = column.high - column.low || 1;
  const at = (value) => `${(100 * (value - column.low)) / span}%`;
  const drawn = element("span", { class: "whisker", "aria-hidden": "true" }, element("i"), element("b"));
  drawn.style.setProperty("--low", at(cell.low));
  drawn.style.setProperty("--span", `${(100 * (cell.high - cell.low)) / span}%`);
  drawn.style.setProperty("--at", at(cell.value));
  return drawn;
}
