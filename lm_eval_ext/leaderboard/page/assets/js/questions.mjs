// The questions of a task: a list in pages, filtered and sorted, and one of them in full.

import { questionParts } from "./attempts.mjs";
import { mainSource } from "./columns.mjs";
import { choice, element, searchField } from "./dom.mjs";
import { known, plain, short, whole } from "./numbers.mjs";

const ROWS = 15;

const SHOWN = [
  ["all", "All questions"],
  ["confident", "Confident and wrong"],
  ["none", "No attempt right"],
  ["some", "Some attempts right"],
  ["right", "All attempts right"],
  ["majority", "Majority wrong"],
  ["invalid", "With invalid answers"],
  ["truncated", "With truncated attempts"],
];
const SORTED = [
  ["number", "Question number"],
  ["confident", "Most confident wrong answer"],
  ["fewest", "Fewest right"],
  ["most", "Most right"],
];

/**
 * The browser of a task's questions: `index` and `excerpts` are unpacked, `task` names chunks.
 * `asked` has the address of the task and the number of the question to open, or null.
 */
export function questionBrowser(task, index, excerpts, asked) {
  const sources = Object.keys(index.wrong);
  const state = {
    show: "all",
    sort: "number",
    source: mainSource(index.curves.sources) ?? "",
    share: "0.25",
    text: "",
    first: 0,
    open: -1,
  };
  const list = element("div", { class: "list" });
  const detail = element("div", { class: "detail", tabindex: "-1", "aria-label": "Question" });
  const status = element("p", { class: "status muted", role: "status" });
  let wanted = [];

  const threshold = () => index.curves.sources[state.source]?.thresholds[state.share] ?? Infinity;
  const isConfident = (attempt) => (attempt.confidence?.[state.source] ?? -Infinity) >= threshold();

  const change = (name, value) => {
    state[name] = value;
    state.first = 0;
    refresh();
  };

  const refresh = () => {
    wanted = select(index, excerpts, state, threshold());
    const confident = state.show === "confident" ? `; confidence from ${short(threshold())}` : "";
    status.textContent = `${whole(wanted.length)} of ${whole(excerpts.length)} questions${confident}`;
    drawList();
  };

  const drawList = () => {
    const rows = wanted.slice(state.first, state.first + ROWS);
    list.replaceChildren(listTable(rows, index, excerpts, state, open), pager());
  };

  const turn = (step) => {
    state.first += step * ROWS;
    drawList();
    const back = list.querySelector(step < 0 ? ".previous" : ".next");
    (back.disabled ? list.querySelector(".pager button:not(:disabled)") : back)?.focus();
  };

  const pager = () => {
    const pages = Math.max(1, Math.ceil(wanted.length / ROWS));
    const page = state.first / ROWS;
    const button = (kind, text, step, disabled) =>
      element("button", { type: "button", class: kind, disabled, click: () => turn(step) }, text);
    return element(
      "div",
      { class: "pager" },
      button("previous", "Previous", -1, page === 0),
      element("span", {}, `Page ${page + 1} of ${pages}`),
      button("next", "Next", 1, page >= pages - 1),
    );
  };

  const open = async (place) => {
    state.open = place;
    history.replaceState(null, "", `${asked.address}/${excerpts[place][0]}`);
    const parts = await questionParts(task, place, isConfident);
    if (state.open !== place) return; // another one was opened meanwhile
    drawList();
    detail.replaceChildren(detailHeading(place), ...parts);
    detail.focus({ preventScroll: true });
    if (detail.getBoundingClientRect().top > innerHeight * 0.7 || detail.getBoundingClientRect().top < 0) {
      detail.scrollIntoView({ block: "start" });
    }
  };

  const detailHeading = (place) => {
    const step = (by) => {
      const next = wanted[wanted.indexOf(place) + by];
      return element(
        "button",
        { type: "button", disabled: next === undefined, click: () => open(next) },
        by < 0 ? "Previous question" : "Next question",
      );
    };
    return element(
      "div",
      { class: "heading" },
      element("h4", {}, `Question ${excerpts[place][0]}`),
      element("div", { class: "segments" }, step(-1), step(1)),
    );
  };

  detail.append(element("p", { class: "muted" }, "Choose a question to see its prompt and attempts."));
  const holder = element(
    "div",
    {},
    controls(state, sources, index, change),
    status,
    element("div", { class: "browser" }, list, detail),
  );
  const place = excerpts.findIndex(([number]) => number === asked.question);
  if (place >= 0) {
    state.first = place - (place % ROWS);
    open(place);
  }
  refresh();
  return holder;
}

function controls(state, sources, index, change) {
  const graded = index.correct.some(known);
  const shown = SHOWN.filter(([name]) => name === "all" || (graded && (name !== "confident" || sources.length)));
  const sorted = SORTED.filter(([name]) => name === "number" || (graded && (name !== "confident" || sources.length)));
  const shares = [["0.1", "top 10%"], ["0.25", "top 25%"], ["0.5", "top 50%"]];
  return element(
    "form",
    { class: "controls", "aria-label": "Which questions are listed", submit: (e) => e.preventDefault() },
    choice("Show", shown, state.show, (value) => change("show", value)),
    sources.length
      ? choice("Confidence", sources.map((name) => [name, name]), state.source, (value) => change("source", value))
      : null,
    sources.length ? choice("Confident means", shares, state.share, (value) => change("share", value)) : null,
    choice("Sort by", sorted, state.sort, (value) => change("sort", value)),
    searchField("Search questions", (value) => change("text", value)),
  );
}

/** Places of the questions that the list shows, in its order. */
function select(index, excerpts, state, threshold) {
  const { correct, attempts } = index;
  const wrong = index.wrong[state.source] ?? [];
  const tests = {
    all: () => true,
    confident: (i) => known(wrong[i]) && wrong[i] >= threshold,
    none: (i) => correct[i] === 0,
    some: (i) => correct[i] > 0 && correct[i] < attempts[i],
    right: (i) => correct[i] === attempts[i],
    majority: (i) => index.majority[i] === false,
    invalid: (i) => index.invalid[i] > 0,
    truncated: (i) => index.truncated[i] > 0,
  };
  const orders = {
    number: () => 0,
    confident: (a, b) => (wrong[b] ?? -Infinity) - (wrong[a] ?? -Infinity) || 0,
    fewest: (a, b) => correct[a] / attempts[a] - correct[b] / attempts[b],
    most: (a, b) => correct[b] / attempts[b] - correct[a] / attempts[a],
  };
  return excerpts
    .map((_, place) => place)
    .filter(tests[state.show])
    .filter((place) => !state.text || matches(excerpts[place], index.answer[place], state.text))
    .sort(orders[state.sort]);
}

function matches([number, excerpt], answer, text) {
  return String(number) === text || `${excerpt} ${answer ?? ""}`.toLowerCase().includes(text);
}

function listTable(places, index, excerpts, state, open) {
  const wrong = index.wrong[state.source];
  const head = [
    ["col-number", "Question"],
    ["", "Begins with"],
    ["col-right", "Right"],
    ["", "Majority"],
    wrong ? ["col-confidence", "Most confident wrong"] : null,
  ].filter(Boolean);
  const row = (place) =>
    element(
      "tr",
      { class: place === state.open ? "open" : null },
      element(
        "th",
        { scope: "row" },
        element("button", { type: "button", "aria-current": place === state.open ? "true" : null, click: () => open(place) }, String(excerpts[place][0])),
      ),
      element("td", {}, element("span", { class: "excerpt" }, excerpts[place][1])),
      element("td", {}, known(index.correct[place]) ? `${index.correct[place]}/${index.attempts[place]}` : "n/a"),
      majorityCell(index, place),
      wrong ? element("td", {}, known(wrong[place]) ? short(wrong[place]) : "–") : null,
    );
  return element(
    "table",
    {},
    element("caption", { class: "only-read" }, "Questions; the button in a row opens it"),
    element("thead", {}, element("tr", {}, head.map(([kind, text]) => element("th", { scope: "col", class: kind || null }, text)))),
    element("tbody", {}, places.map(row)),
  );
}

function majorityCell(index, place) {
  const answer = index.answer[place];
  if (answer === null || answer === undefined) return element("td", { class: "muted" }, "none");
  const verdict = { true: ["right", "✓ "], false: ["wrong", "✗ "] }[index.majority[place]] ?? ["", ""];
  return element("td", {}, element("span", { class: verdict[0] || null }, verdict[1]), plain(answer));
}
