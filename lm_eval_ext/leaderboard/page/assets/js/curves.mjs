// The charts of a run. Every number in them comes from Python; here they are only drawn.

import { decimal, short, whole } from "./numbers.mjs";
import { axis, faded, figure, guide, label, lineColor, lineStyle } from "./plots.mjs";

const UNIT = { range: [0, 1.01], dtick: 0.2 };

/** pass@k and maj@k over k with 95% bands. */
export function curvesOverK(curves) {
  const series = Object.entries(curves).filter(([, band]) => band.k.length > 1);
  const ks = [...new Set(series.flatMap(([, band]) => band.k))].sort((a, b) => a - b);
  const draw = () => ({
    data: series.flatMap(([name, band], i) => [
      {
        x: [...band.k, ...[...band.k].reverse()],
        y: [...band.high, ...[...band.low].reverse()],
        fill: "toself",
        fillcolor: faded(lineColor(i), 0.16),
        line: { width: 0 },
        hoverinfo: "skip",
        showlegend: false,
        mode: "lines",
      },
      {
        x: band.k,
        y: band.value,
        name: label(name),
        mode: "lines+markers",
        line: lineStyle(i),
        marker: { size: 6 },
        hovertemplate: `${label(name)}, k = %{x}: %{y:.3f}<extra></extra>`,
      },
    ]),
    layout: {
      xaxis: axis("k (attempts)", { type: "log", tickvals: ks, ticktext: ks.map(String) }),
      yaxis: axis("share of questions", UNIT),
    },
  });
  const last = series.map(([name, band]) => {
    const end = band.k.length - 1;
    return `${name} rises from ${decimal(band.value[0])} at k = ${band.k[0]} to ` +
      `${decimal(band.value[end])} at k = ${band.k[end]}`.replace("rises", "goes");
  });
  return figure({
    title: "pass@k and maj@k",
    note: "mean over questions with its 95% interval",
    text: `Line chart over k. ${last.join("; ")}.`,
    draw,
    head: ["k", ...series.flatMap(([name]) => [name, "95% interval", "questions"])],
    rows: ks.map((k) => [
      String(k),
      ...series.flatMap(([, band]) => {
        const at = band.k.indexOf(k);
        if (at < 0) return ["n/a", "n/a", "n/a"];
        const ends = `${decimal(band.low[at])} to ${decimal(band.high[at])}`;
        return [decimal(band.value[at]), ends, whole(band.n[at])];
      }),
    ]),
  });
}

/** Accuracy against confidence with intervals, and how many attempts each bin holds. */
export function reliability(name, source) {
  const bins = source.reliability;
  const draw = () => ({
    data: [
      {
        x: bins.confidence,
        y: bins.accuracy,
        error_y: {
          type: "data",
          symmetric: false,
          array: bins.high.map((high, i) => high - bins.accuracy[i]),
          arrayminus: bins.accuracy.map((value, i) => value - bins.low[i]),
          color: lineColor(0),
          thickness: 1.4,
          width: 4,
        },
        mode: "lines+markers",
        marker: { size: 7, color: lineColor(0) },
        line: { width: 1, color: faded(lineColor(0), 0.5) },
        name: "accuracy",
        hovertemplate: "confidence %{x:.3f}, accuracy %{y:.3f}<extra></extra>",
      },
      {
        x: bins.bin_low.map((low, i) => (low + bins.bin_high[i]) / 2),
        y: bins.n_rows,
        width: bins.bin_low.map((low, i) => (bins.bin_high[i] - low) * 0.94),
        type: "bar",
        yaxis: "y2",
        name: "attempts",
        marker: { color: faded(lineColor(0), 0.35) },
        hovertemplate: "%{y} attempts<extra></extra>",
      },
    ],
    layout: {
      showlegend: false,
      xaxis: axis("confidence", { range: [0, 1.01], dtick: 0.2, anchor: "y2" }),
      yaxis: axis("share right", { ...UNIT, domain: [0.31, 1] }),
      yaxis2: axis("number", { domain: [0, 0.2], nticks: 3, rangemode: "tozero" }),
      shapes: [guide(0, 0, 1, 1)],
    },
  });
  return figure({
    title: "Reliability diagram",
    note: `${name}: share right in bins of confidence, 95% intervals; the diagonal is calibrated`,
    text:
      `Share of right attempts in ${bins.n_rows.length} bins of confidence, from ` +
      `${decimal(bins.accuracy[0])} at confidence ${decimal(bins.confidence[0])} to ` +
      `${decimal(bins.accuracy.at(-1))} at ${decimal(bins.confidence.at(-1))}.`,
    draw,
    head: ["bin", "confidence", "share right", "95% interval", "attempts", "questions"],
    rows: bins.n_rows.map((n, i) => [
      `${short(bins.bin_low[i])} to ${short(bins.bin_high[i])}`,
      decimal(bins.confidence[i]),
      decimal(bins.accuracy[i]),
      `${decimal(bins.low[i])} to ${decimal(bins.high[i])}`,
      whole(n),
      whole(bins.n_questions[i]),
    ]),
  });
}

/** Attempts by confidence: right ones upwards, wrong ones downwards. */
export function histogram(name, source, unit) {
  const { edges, correct, wrong } = source.histogram;
  const centers = correct.map((_, i) => (edges[i] + edges[i + 1]) / 2);
  const width = edges[1] - edges[0];
  const bar = (counts, i, title) => ({
    x: centers,
    y: counts,
    customdata: counts.map(Math.abs),
    type: "bar",
    width: width * 0.92,
    name: title,
    marker: { color: lineColor(i) },
    hovertemplate: `%{x:.3g}: %{customdata} ${title}<extra></extra>`,
  });
  const draw = () => ({
    data: [bar(correct, 0, "right"), bar(wrong.map((n) => -n), 1, "wrong")],
    layout: {
      barmode: "relative",
      xaxis: axis(`confidence (${name})`),
      yaxis: axis(`${unit} wrong | right`, mirroredTicks(Math.max(...correct, ...wrong))),
    },
  });
  return figure({
    title: "Confidence of right and wrong answers",
    note: `${name}: number of ${unit}, right ones upwards, wrong ones downwards`,
    text:
      `Histogram of confidence over ${whole(source.n)} ${unit}, of which ` +
      `${decimal(source.accuracy)} are right.`,
    draw,
    head: ["confidence", "right", "wrong"],
    rows: correct.map((n, i) => [
      `${short(edges[i])} to ${short(edges[i + 1])}`,
      whole(n),
      whole(wrong[i]),
    ]),
  });
}

/** Error rate among the most confident share, for all sources. */
export function riskCoverage(sources) {
  return lines(sources, "risk_coverage", {
    title: "Risk and coverage",
    note: "error rate among the most confident share of the answers; lower is better",
    x: "coverage",
    y: "error rate",
    layout: () => ({ yaxis: axis("error rate", { rangemode: "tozero", nticks: 6 }) }),
  });
}

/** ROC curves of all sources. */
export function roc(sources) {
  const defined = Object.fromEntries(Object.entries(sources).filter(([, source]) => source.roc));
  if (!Object.keys(defined).length) return null;
  return lines(defined, "roc", {
    title: "ROC",
    note: "share of right against share of wrong answers kept; the diagonal is chance",
    x: "wrong answers kept",
    y: "right answers kept",
    layout: () => ({ yaxis: axis("right answers kept", UNIT), shapes: [guide(0, 0, 1, 1)] }),
  });
}

const STEPS = [0.1, 0.25, 0.5, 0.75, 1];

function lines(sources, field, { title, note, x, y, layout }) {
  const series = Object.entries(sources);
  const draw = () => ({
    data: series.map(([name, source], i) => ({
      ...source[field],
      name: label(name),
      mode: "lines",
      line: lineStyle(i, 1.8),
      hovertemplate: `${label(name)}: %{x:.3f}, %{y:.3f}<extra></extra>`,
    })),
    layout: { xaxis: axis(x, { range: [0, 1.01], dtick: 0.2 }), ...layout() },
  });
  const at = (curve, step) => {
    const found = curve.x.findIndex((value) => value >= step - 1e-9);
    return found < 0 ? "n/a" : decimal(curve.y[found]);
  };
  return figure({
    title,
    note,
    text:
      `${y} against ${x} for ${series.length} sources of confidence; at ${x} 0.5: ` +
      series.map(([name, source]) => `${name} ${at(source[field], 0.5)}`).join(", "),
    draw,
    head: ["source", ...STEPS.map((step) => `${x} ${step}`)],
    rows: series.map(([name, source]) => [name, ...STEPS.map((step) => at(source[field], step))]),
  });
}

/** Ticks on both sides of zero that read as counts. */
function mirroredTicks(most) {
  const size = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  const step = [1, 2, 5, 10].map((m) => m * size * 0.1 * 5).find((s) => most / s <= 3) ?? size * 5;
  const ticks = [];
  for (let value = Math.max(step, 1); value <= most * 1.02; value += Math.max(step, 1)) {
    ticks.push(value);
  }
  const tickvals = [...ticks.map((value) => -value).reverse(), 0, ...ticks];
  return { tickvals, ticktext: tickvals.map((value) => whole(Math.abs(value))) };
}
