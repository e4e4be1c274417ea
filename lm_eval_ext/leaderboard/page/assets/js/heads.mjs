// Scores of a model's heads, layer by head, with the removed ones marked.

import { decimal, known } from "./numbers.mjs";
import { axis, figure, label } from "./plots.mjs";
import { color, isDark } from "./theme.mjs";

/** The heatmap of a model's heads. */
export function headScores({ criterion, scores, removed }, model) {
  const isRemoved = new Set(removed.map(([layer, head]) => `${layer},${head}`));
  const flat = scores.flatMap((row, layer) =>
    row.map((score, head) => ({ layer, head, score })).filter(({ score }) => known(score)),
  );
  flat.sort((a, b) => b.score - a.score);
  const top = flat[0];
  const draw = () => ({
    data: [
      {
        type: "heatmap",
        z: scores,
        colorscale: "Cividis",
        reversescale: !isDark(),
        xgap: 1,
        ygap: 1,
        colorbar: { thickness: 10, outlinewidth: 0 },
        hovertemplate: "layer %{y}, head %{x}: %{z:.3f}<extra></extra>",
      },
      {
        x: removed.map(([, head]) => head),
        y: removed.map(([layer]) => layer),
        mode: "markers",
        // Light with a dark edge (or the other way round): seen on every color of the scale.
        marker: { symbol: "x", size: 9, color: color("page"), line: { width: 1.5, color: color("ink") } },
        name: "removed",
        hoverinfo: "skip",
      },
    ],
    layout: {
      xaxis: axis("head", { dtick: scores[0].length > 16 ? 4 : 1, showgrid: false, ticks: "" }),
      yaxis: axis("layer", { dtick: scores.length > 16 ? 4 : 1, showgrid: false, ticks: "" }),
      showlegend: removed.length > 0,
    },
  });
  return figure({
    title: `Attention heads of ${model}`,
    note: `score of each head by the criterion ${label(criterion)}; crosses mark removed heads`,
    text:
      `Heatmap of ${scores.length} layers by ${scores[0].length} heads. The highest score is ` +
      `${decimal(top?.score)}, of head ${top?.head} of layer ${top?.layer}. ` +
      `${removed.length} heads were removed.`,
    draw,
    head: ["layer", ...scores[0].map((_, head) => `head ${head}`)],
    rows: scores.map((row, layer) => [
      String(layer),
      ...row.map((score, head) => decimal(score) + (isRemoved.has(`${layer},${head}`) ? " ×" : "")),
    ]),
  });
}
