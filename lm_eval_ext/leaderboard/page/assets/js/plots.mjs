// Figures: a chart drawn by Plotly when it comes into view, with its values in a table below.

import { PAGE, chunkText } from "./data.mjs";
import { element, valueTable } from "./dom.mjs";
import { color, isDark, onThemeChange } from "./theme.mjs";

// Okabe and Ito's colors, which color-blind readers can tell apart; lines differ in dashes as well.
const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#5b3fa0", "#1b1f24"];
const DARK = ["#67b7ec", "#f2994a", "#35c79c", "#e6a5c9", "#f0e442", "#9ad0f5", "#b3a1f0", "#e6e9ed"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash"];
const CONFIG = { displayModeBar: false, responsive: true, showTips: false };

let library = null;
let turn = Promise.resolve(); // charts are drawn one by one, and the page answers in between
const drawn = new Map(); // plot element -> function that draws it

const nearby = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      nearby.unobserve(entry.target);
      redraw(entry.target);
    }
  },
  { rootMargin: "300px" },
);

onThemeChange(() => {
  for (const plot of drawn.keys()) {
    if (!plot.isConnected) drawn.delete(plot);
    else if (plot.dataset.drawn) redraw(plot);
  }
});

function loadLibrary() {
  library ??= chunkText(PAGE.plotly.chunk).then((source) => {
    // Stand in for style sheets that it would add, and that the page's policy forbids.
    for (const id of PAGE.plotly.styles) document.head.append(element("style", { id }));
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
    return globalThis.Plotly;
  });
  return library;
}

function redraw(plot) {
  turn = turn.then(pause).then(() => drawNow(plot)).catch((error) => console.error(error));
}

/** Let the browser show what has changed and handle what the reader does. */
function pause() {
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
}

async function drawNow(plot) {
  if (!plot.isConnected) return;
  const plotly = await loadLibrary();
  const draw = drawn.get(plot);
  if (!draw || !plot.isConnected) return;
  const { data, layout } = draw();
  plot.dataset.drawn = "yes";
  await plotly.react(plot, data, { ...baseLayout(), ...layout }, CONFIG);
  performance.mark("chart-drawn");
}

/**
 * A figure. `draw` returns {data, layout} in the colors of the moment; `text` says in words what
 * the chart shows; `head` and `rows` are the table of its values.
 */
export function figure({ title, note, text, draw, head, rows }) {
  const plot = element("div", { class: "plot", role: "img", "aria-label": text });
  drawn.set(plot, draw);
  nearby.observe(plot);
  return element(
    "figure",
    {},
    element("figcaption", {}, title, element("span", {}, note)),
    plot,
    element(
      "details",
      { class: "fold" },
      element("summary", {}, "Table of values"),
      element("div", {}, valueTable(title, head, rows)),
    ),
  );
}

/** The i-th color and dash of lines. */
export function lineStyle(i, width = 2) {
  return { color: lineColor(i), dash: DASHES[i % DASHES.length], width };
}

export function lineColor(i) {
  const colors = isDark() ? DARK : LIGHT;
  return colors[i % colors.length];
}

/** A color with transparency. */
export function faded(hex, alpha) {
  const parts = [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  return `rgba(${parts.join(",")},${alpha})`;
}

/** Text for Plotly, which would otherwise read tags in it. */
export function label(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** An axis in the colors of the moment. */
export function axis(title, options = {}) {
  return {
    title: { text: label(title), standoff: 8 },
    gridcolor: color("faint"),
    linecolor: color("line"),
    zerolinecolor: color("line"),
    ticks: "outside",
    tickcolor: color("line"),
    ticklen: 4,
    automargin: true,
    ...options,
  };
}

/** A line between two points, such as the diagonal. */
export function guide(x0, y0, x1, y1) {
  const line = { color: color("muted"), width: 1, dash: "dot" };
  return { type: "line", x0, y0, x1, y1, line, layer: "below" };
}

function baseLayout() {
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("ink") },
    margin: { l: 48, r: 12, t: 8, b: 40 },
    hoverlabel: { bgcolor: color("panel"), bordercolor: color("line"), font: { color: color("ink") } },
    legend: { orientation: "h", y: -0.24, yanchor: "top", x: 0, font: { size: 11 } },
    showlegend: true,
    dragmode: false,
  };
}
