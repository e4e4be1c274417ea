// One question in full: the prompt, and every attempt with its verdict and confidences.

import { PAGE, chunk } from "./data.mjs";
import { element } from "./dom.mjs";
import { plain, short, whole } from "./numbers.mjs";
import { tokenHeat } from "./tokens.mjs";

const VERDICTS = new Map([
  [true, ["right", "✓ right"]],
  [false, ["wrong", "✗ wrong"]],
]);

/** The parts of a question; `isConfident(attempt)` flags attempts by the threshold of the list. */
export async function questionParts(task, place, isConfident) {
  const page = Math.floor(place / PAGE.page_size);
  if (page >= task.attempts.length) return [noTexts()];
  const [prompts, pageAttempts] = await Promise.all([chunk(task.prompts[page]), chunk(task.attempts[page])]);
  const at = place % PAGE.page_size;
  if (at >= pageAttempts.length) return [noTexts()];
  return [
    element("h5", {}, "Prompt"),
    element("pre", {}, prompts[at].prompt || "(empty)"),
    element("h5", {}, "Expected"),
    element("pre", {}, prompts[at].target || "(none)"),
    element("h5", {}, `Attempts (${pageAttempts[at].length})`),
    ...pageAttempts[at].map((attempt, i) => attemptPart(attempt, i, isConfident)),
  ];
}

function noTexts() {
  return element("p", { class: "muted" }, "The texts of this question were left out to keep the page small.");
}

function attemptPart(attempt, number, isConfident) {
  const [kind, verdict] = VERDICTS.get(attempt.correct) ?? ["muted", "not graded"];
  const body = element("div");
  const part = element(
    "details",
    { class: "attempt" },
    element(
      "summary",
      {},
      element("span", {}, `Attempt ${number}`),
      element("span", { class: `verdict ${kind}` }, verdict),
      element("span", { class: "answer" }, answerOf(attempt)),
      attempt.correct === false && isConfident(attempt)
        ? element("span", { class: "flag" }, "confident and wrong")
        : null,
    ),
    body,
  );
  // Filled when it is first opened: 16 attempts with token scores are thousands of elements.
  const fill = () => {
    if (part.open && !body.hasChildNodes()) body.append(...attemptBody(attempt));
  };
  part.addEventListener("toggle", fill);
  if (number === 0) {
    part.open = true;
    fill();
  }
  return part;
}

function answerOf(attempt) {
  if (attempt.answer === undefined) return "";
  return attempt.answer === null ? "no valid answer" : plain(attempt.answer);
}

function attemptBody(attempt) {
  const facts = Object.entries(attempt.confidence ?? {}).map(([name, value]) => [name, short(value)]);
  if (attempt.n_tokens !== undefined) facts.push(["tokens", whole(attempt.n_tokens)]);
  if (attempt.finish_reason) facts.push(["ended by", plain(attempt.finish_reason)]);
  if (attempt.reason) facts.push(["verdict", plain(attempt.reason)]);
  const list = element(
    "dl",
    { class: "confidences" },
    facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
  const parts = facts.length ? [list] : [];
  if (attempt.tokens?.texts) parts.push(tokenHeat(attempt.tokens));
  else {
    const text = attempt.text ?? "(text left out to keep the page small)";
    parts.push(element("pre", {}, text || "(empty)"));
    if (attempt.tokens) parts.push(tokenHeat(attempt.tokens));
  }
  return parts;
}
