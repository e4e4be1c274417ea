// Which columns the table has: metrics of one task by subject, or one metric of every task.

import { BOARD, cellOf, detailsOf } from "./data.mjs";
import { decimal, known, plain, short, whole } from "./numbers.mjs";

export const EVERY_TASK = "";

const SUBJECTS = [
  ["Accuracy", /^(pass[@^]|avg@|maj@|acc|exact_match|f1|bleu|rouge|word_perplexity|perplexity$)/],
  ["Votes", /^(maj|cisc|linear|best_of)@/],
  ["Calibration", /^(ece|debiased_ece|smooth_ece|brier|nll)(:|$)/],
  ["Discrimination", /^((hallucination_|within_question_)?auroc|auprc|aurc|e_aurc|prr|accuracy_at|partial_corr)/],
  ["Token estimates", /^eu_/],
];
const OTHER = "Other";
const COST = "Settings and cost";
const HEADLINES = ["pass@1", "accuracy", "acc", "exact_match"];

const DETAILS = [
  ["attempts", "attempts", whole],
  ["temperature", "temperature", short],
  ["num_fewshot", "shots", whole],
  ["truncated_rate", "truncated", decimal],
  ["invalid_rate", "invalid", decimal],
  ["tokens", "tokens", whole],
  ["seconds", "seconds", whole],
  ["tokens_per_second", "tokens/s", whole],
  ["samples_sha256", "samples", (value) => plain(value).slice(0, 12)],
];
const BESIDE = ["attempts", "temperature", "num_fewshot", "truncated_rate", "invalid_rate"];

export function taskNames() {
  return BOARD.tasks.map((task) => task.name);
}

export function taskOf(name) {
  return BOARD.tasks.find((task) => task.name === name);
}

/** Subjects that a task has metrics of. */
export function subjectsOf(task) {
  const names = taskOf(task).metrics.map((metric) => metric.name);
  const found = [...SUBJECTS.map(([subject]) => subject), OTHER].filter((subject) =>
    names.some((name) => isAbout(name, subject)),
  );
  return [...found, COST];
}

export function isAbout(name, subject) {
  if (subject === OTHER) return !SUBJECTS.some(([, pattern]) => pattern.test(name));
  const pattern = SUBJECTS.find(([known]) => known === subject)?.[1];
  // accuracy_at_50:source tells right from wrong, and is not an accuracy of the task.
  if (subject === "Accuracy" && name.startsWith("accuracy_at")) return false;
  return pattern ? pattern.test(name) : false;
}

/** Confidence sources among the metrics of a subject. */
export function sourcesOf(task, subject) {
  const names = taskOf(task).metrics.map((metric) => metric.name);
  const sources = names
    .filter((name) => isAbout(name, subject) && name.includes(":"))
    .map((name) => name.slice(name.indexOf(":") + 1));
  return [...new Set(sources)];
}

/** Sources of a question as a whole. */
export const OF_QUESTIONS = ["vote_share", "answer_entropy"];

/** The source shown first: a probability of single attempts where there is one. */
export function mainSource(sources) {
  const names = Object.keys(sources).filter((name) => !OF_QUESTIONS.includes(name));
  return names.find((name) => sources[name].is_probability) ?? names[0] ?? Object.keys(sources)[0];
}

/** Metrics that the overview of all tasks can show. */
export function overviewMetrics() {
  return [...new Set(BOARD.tasks.flatMap((task) => task.metrics.map((metric) => metric.name)))];
}

/** The metric a task is known by. */
export function headline(task) {
  const names = taskOf(task).metrics.map((metric) => metric.name);
  return HEADLINES.find((name) => names.includes(name)) ?? names[0];
}

/** Columns of the table for what is chosen: {task, metric, subject, source}. */
export function columnsFor(chosen) {
  if (chosen.task === EVERY_TASK) {
    return BOARD.tasks.flatMap((task) => {
      const name = chosen.metric || headline(task.name);
      const metric = task.metrics.find((candidate) => candidate.name === name);
      return metric ? [metricColumn(task, metric, true)] : [];
    });
  }
  const task = taskOf(chosen.task);
  if (chosen.subject === COST) {
    return [countColumn(task), ...DETAILS.map((detail) => detailColumn(task, detail)), runSeconds()];
  }
  const metrics = task.metrics.filter(
    ({ name }) =>
      isAbout(name, chosen.subject) &&
      (!chosen.source || !name.includes(":") || name.endsWith(`:${chosen.source}`)),
  );
  const beside = DETAILS.filter(([name]) => BESIDE.includes(name));
  return [
    ...metrics.map((metric) => metricColumn(task, metric, false)),
    countColumn(task),
    ...beside.map((detail) => detailColumn(task, detail)),
  ];
}

function metricColumn(task, metric, withTask) {
  const found = BOARD.runs.map((run) => cellOf(run.id, task.name, metric.name)).filter(Boolean);
  const ends = found.flatMap((cell) => [cell.low, cell.value, cell.high]).filter(known);
  return {
    id: `${task.name}\n${metric.name}`,
    title: metric.name,
    above: withTask ? task.name : null,
    higherIsBetter: metric.higher_is_better,
    cell: (run) => cellOf(run.id, task.name, metric.name),
    value: (run) => cellOf(run.id, task.name, metric.name)?.value,
    low: Math.min(...ends),
    high: Math.max(...ends),
  };
}

function detailColumn(task, [name, title, print]) {
  return {
    id: `${task.name}\n\n${name}`,
    title,
    higherIsBetter: null,
    value: (run) => detailsOf(run.id, task.name)[name],
    print: (run) => {
      const value = detailsOf(run.id, task.name)[name];
      return value === null || value === undefined ? "n/a" : print(value);
    },
  };
}

function countColumn(task) {
  const count = (run) =>
    task.metrics.map((metric) => cellOf(run.id, task.name, metric.name)?.n).find(known);
  return {
    id: `${task.name}\n\nN`,
    title: "N",
    higherIsBetter: null,
    value: count,
    print: (run) => whole(count(run)),
  };
}

function runSeconds() {
  return {
    id: "\n\nrun seconds",
    title: "whole run, s",
    higherIsBetter: null,
    value: (run) => run.seconds,
    print: (run) => whole(run.seconds),
  };
}
