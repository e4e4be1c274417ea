// The data of the page: what is read at once, and chunks that are unpacked when they are needed.

export const PAGE = JSON.parse(document.getElementById("page-data").textContent);
export const BOARD = PAGE.board;

const KEPT = 40; // Chunks kept unpacked; the oldest is dropped.
const unpacked = new Map();

// The chunks stand behind this script: the table is there before the browser has read them all.
const complete = new Promise((resolve) => {
  if (document.readyState !== "loading") resolve();
  else document.addEventListener("DOMContentLoaded", resolve, { once: true });
});

/** The text of a chunk. */
export async function chunkText(number) {
  let holder = document.getElementById(`chunk-${number}`);
  // One that has another element behind it has been read to its end.
  if (!holder || !holder.nextElementSibling) {
    await complete;
    holder = document.getElementById(`chunk-${number}`);
  }
  const bytes = Uint8Array.from(atob(holder.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** The value of a chunk. */
export function chunk(number) {
  if (!unpacked.has(number)) {
    if (unpacked.size >= KEPT) unpacked.delete(unpacked.keys().next().value);
    unpacked.set(number, chunkText(number).then(JSON.parse));
  }
  return unpacked.get(number);
}

const cells = new Map(BOARD.cells.map((cell) => [key(cell.run, cell.task, cell.metric), cell]));
const details = new Map(BOARD.details.map((row) => [key(row.run, row.task), row]));

function key(...parts) {
  return JSON.stringify(parts);
}

/** The cell of a run, task and metric, or undefined. */
export function cellOf(run, task, metric) {
  return cells.get(key(run, task, metric));
}

/** How a run answered a task: attempts, temperature, cost. */
export function detailsOf(run, task) {
  return details.get(key(run, task)) ?? {};
}
