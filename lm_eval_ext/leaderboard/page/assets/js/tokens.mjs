// A heat map over the tokens of an answer.

import { choice, element, valueTable } from "./dom.mjs";
import { known, short } from "./numbers.mjs";

const TOP = 10;

/** The tokens of an attempt colored by one of its scores, which can be chosen. */
export function tokenHeat({ texts, scores }) {
  const names = Object.keys(scores);
  const holder = element("div");
  if (!texts) {
    const count = scores[names[0]]?.length ?? 0;
    holder.append(
      element(
        "p",
        { class: "muted" },
        `${count} tokens have scores (${names.join(", ")}), but the run did not log their texts.`,
      ),
    );
    return holder;
  }
  const show = (name) => {
    const values = scores[name];
    const top = scaleEnd(values);
    holder.replaceChildren(
      element(
        "div",
        { class: "scale" },
        names.length > 1 ? choice("Token score", names.map((n) => [n, n]), name, show) : name,
        element("span", { "aria-hidden": "true" }, "0 ", element("span", { class: "ramp" }), ` ${short(top)}`),
      ),
      element("pre", { class: "heat" }, texts.map((text, i) => token(text, values[i], top, name))),
      element(
        "details",
        { class: "fold" },
        element("summary", {}, `The ${Math.min(TOP, texts.length)} highest tokens`),
        element("div", {}, highest(texts, values, name)),
      ),
    );
  };
  show(names.includes("eu") ? "eu" : names[0]);
  return holder;
}

/** The scale ends at the 98th percentile: one outlier must not whiten the rest. */
function scaleEnd(values) {
  const ordered = values.filter(known).sort((a, b) => a - b);
  return ordered[Math.ceil(0.98 * (ordered.length - 1))] || ordered.at(-1) || 1;
}

function token(text, value, top, name) {
  const shown = text.replace(/\n/g, "↵\n") || "·";
  const made = element("span", { title: `${name} ${short(value)}` }, shown);
  const share = known(value) ? Math.max(0, Math.min(1, value / top)) : 0;
  made.style.backgroundColor = `rgba(213, 94, 0, ${(0.75 * share).toFixed(3)})`;
  return made;
}

function highest(texts, values, name) {
  const order = values.map((_, i) => i).sort((a, b) => values[b] - values[a]);
  const rows = order
    .slice(0, TOP)
    .map((i) => [String(i), JSON.stringify(texts[i]), short(values[i])]);
  return valueTable(`Tokens with the highest ${name}`, ["position", "token", name], rows);
}
