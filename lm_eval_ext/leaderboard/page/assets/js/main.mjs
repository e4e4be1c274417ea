// Start, and what the address says: "#" is the table, "#run/3/1" the second task of the fourth run,
// and "#run/3/1/17" its question 17.

import { BOARD } from "./data.mjs";
import { plural } from "./numbers.mjs";
import { showRun } from "./run.mjs";
import { startTable } from "./table.mjs";
import { startTheme } from "./theme.mjs";

let tablePosition = 0; // where the table was left

async function route() {
  const found = /^#run\/(\d+)(?:\/(\d+))?(?:\/(\d+))?$/.exec(location.hash);
  if (!found && location.hash === "#main") return; // the skip link
  const board = document.getElementById("board-view");
  const run = document.getElementById("run-view");
  if (found && !board.hidden) tablePosition = scrollY;
  board.hidden = Boolean(found);
  run.hidden = !found;
  if (found) {
    const question = found[3] === undefined ? null : Number(found[3]);
    const shown = showRun(Number(found[1]), Number(found[2] ?? 0), question);
    scrollTo({ top: 0, behavior: "instant" });
    document.getElementById("run-heading")?.focus({ preventScroll: true });
    await shown;
  } else {
    run.replaceChildren();
    scrollTo({ top: tablePosition, behavior: "instant" });
  }
}

document.getElementById("summary").textContent =
  `${plural(BOARD.runs.length, "run")} · ${plural(BOARD.tasks.length, "task")}`;
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
startTheme();
startTable();
addEventListener("hashchange", route);
route();
performance.mark("table-ready");
