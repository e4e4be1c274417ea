// One run: its settings, values, charts and questions.

import { BOARD, PAGE, cellOf, chunk } from "./data.mjs";
import { choice, element, valueTable } from "./dom.mjs";
import { curvesOverK, histogram, reliability, riskCoverage, roc } from "./curves.mjs";
import { headScores } from "./heads.mjs";
import { headline, mainSource, OF_QUESTIONS } from "./columns.mjs";
import { modelName, plain, whole } from "./numbers.mjs";
import { questionBrowser } from "./questions.mjs";

const MOST_ATTEMPTS = [/^pass@\d+$/, /^maj@\d+$/]; // the last of each is that of most attempts
const FIRST_OF = [/^debiased_ece:/, /^hallucination_auroc:/, /^within_question_auroc:/, /^prr:/, /^mean_tokens$/];

/** Show a run; `place`, `taskPlace` and `question` come from the address and may be anything. */
export async function showRun(place, taskPlace, question) {
  const view = document.getElementById("run-view");
  const run = BOARD.runs[place];
  if (!run) {
    view.replaceChildren(backLink(), element("p", {}, "There is no such run on this page."));
    return;
  }
  const tasks = BOARD.tasks.filter((task) => task.metrics.some((m) => cellOf(run.id, task.name, m.name)));
  const task = tasks[taskPlace] ?? tasks[0];
  const charts = element("div");
  view.replaceChildren(backLink(), ...heading(run), tabs(place, tasks, task), ...values(run, task), charts);
  const data = PAGE.runs[run.id];
  const taskData = data?.tasks[task?.name];
  if (!taskData) {
    charts.append(element("p", { class: "muted" }, "Charts and questions need the run's lm_eval output folder, which this page was built without."));
    return;
  }
  charts.append(element("p", { class: "muted" }, "Unpacking …"));
  const [index, excerpts, heads] = await Promise.all([
    chunk(taskData.index),
    chunk(taskData.excerpts),
    data.heads === null ? null : chunk(data.heads),
  ]);
  const asked = { address: `#run/${place}/${tasks.indexOf(task)}`, question };
  charts.replaceChildren(
    ...chartParts(index, heads, modelName(run.model)),
    ...questionParts(taskData, index, excerpts, asked),
  );
  if (question !== null) document.querySelector(".browser")?.scrollIntoView({ block: "start" });
  performance.mark("run-shown");
}

function backLink() {
  return element("p", { class: "crumbs" }, element("a", { href: "#" }, "← All runs"));
}

function heading(run) {
  const facts = [modelName(run.model), run.wrapper, run.date, run.seconds ? `${whole(run.seconds)} s` : null];
  const rows = Object.entries({ model: run.model, ...run.settings, ...run.versions }).map(([k, v]) => [k, plain(v)]);
  return [
    element("h2", { id: "run-heading", tabindex: "-1" }, plain(run.label)),
    element("p", { class: "facts" }, facts.filter(Boolean).map(plain).join(" · ")),
    rows.length
      ? element(
          "details",
          { class: "fold" },
          element("summary", {}, "Settings and versions"),
          element("div", {}, valueTable("Settings and versions", ["name", "value"], rows)),
        )
      : null,
  ].filter(Boolean);
}

function tabs(place, tasks, shown) {
  if (tasks.length < 2) return element("p", { class: "facts" }, shown ? shown.name : "");
  return element(
    "nav",
    { class: "tabs", "aria-label": "Tasks of this run" },
    tasks.map((task, i) =>
      element(
        "button",
        {
          type: "button",
          "aria-current": task === shown ? "true" : null,
          click: () => {
            location.hash = `run/${place}/${i}`;
          },
        },
        task.name,
      ),
    ),
  );
}

function values(run, task) {
  if (!task) return [];
  const cells = task.metrics.map((m) => [m.name, cellOf(run.id, task.name, m.name)]).filter(([, cell]) => cell);
  const main = headline(task.name);
  const tiles = new Set([
    cells.find(([name]) => name === main),
    ...MOST_ATTEMPTS.map((pattern) => cells.findLast(([name]) => pattern.test(name))),
    ...FIRST_OF.map((pattern) => cells.find(([name]) => pattern.test(name))),
  ]);
  tiles.delete(undefined);
  return [
    element(
      "ul",
      { class: "tiles", "aria-label": "Main values" },
      [...tiles].map(([name, cell]) =>
        element("li", {}, element("div", { class: "name" }, ...breakable(name)), element("div", { class: "value" }, cell.printed)),
      ),
    ),
    element(
      "details",
      { class: "fold" },
      element("summary", {}, `All ${cells.length} metrics`),
      element(
        "div",
        {},
        valueTable(
          `Metrics of ${task.name}`,
          ["metric", "value", "N", "rank"],
          cells.map(([name, cell]) => [name, cell.printed, whole(cell.n), cell.rank ? String(cell.rank) : "–"]),
        ),
      ),
    ),
  ];
}

/** A metric's name with a place to break the line before its source. */
function breakable(name) {
  return name.split(/(?<=:)/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]));
}

function chartParts(index, heads, model) {
  const { k, sources } = index.curves;
  const names = Object.keys(sources);
  const fixed = [
    k ? curvesOverK(k) : null,
    names.length ? riskCoverage(sources) : null,
    names.length ? roc(sources) : null,
    heads ? headScores(heads, model) : null,
  ].filter(Boolean);
  if (!fixed.length) return [];
  const grid = element("div", { class: "charts" });
  const draw = (name) => {
    const source = sources[name];
    const unit = OF_QUESTIONS.includes(name) ? "questions" : "attempts";
    const own = source
      ? [source.reliability ? reliability(name, source) : null, histogram(name, source, unit)].filter(Boolean)
      : [];
    grid.replaceChildren(...fixed, ...own);
    grid.dataset.count = grid.children.length;
  };
  const first = mainSource(sources);
  draw(first ?? null);
  const choices = names.map((name) => [name, sources[name].is_probability ? `${name} (probability)` : name]);
  return [
    element("h3", {}, "Charts"),
    names.length
      ? element("p", { class: "muted note" }, "Confidence is higher where the model is surer: uncertainties and entropies appear with their sign turned.")
      : null,
    names.length > 1
      ? element("div", { class: "controls" }, choice("Confidence in histogram and reliability diagram", choices, first, draw))
      : null,
    grid,
  ].filter(Boolean);
}

function questionParts(taskData, index, excerpts, asked) {
  const several = index.filters.length > 1 ? `Answers as lm-eval's filter ${index.filters[0]} reads them. ` : "";
  return [
    element("h3", {}, "Questions"),
    several ? element("p", { class: "muted" }, several) : null,
    questionBrowser(taskData, index, excerpts, asked),
  ].filter(Boolean);
}
