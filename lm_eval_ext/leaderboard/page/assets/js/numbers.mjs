// Numbers that are not printed by Python: counts, settings, and values below charts.

const WHOLE = new Intl.NumberFormat("en-US");

export function whole(value) {
  return known(value) ? WHOLE.format(Math.round(value)) : "n/a";
}

export function decimal(value, digits = 3) {
  return known(value) ? value.toFixed(digits) : "n/a";
}

/** A number of unknown size to three significant digits. */
export function short(value) {
  if (!known(value)) return "n/a";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e5)) return value.toExponential(2);
  return String(Number(value.toPrecision(size >= 100 ? 4 : 3)));
}

export function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** A value of any type as text. */
export function plain(value) {
  if (value === null || value === undefined) return "n/a";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A count with its noun. */
export function plural(count, noun) {
  return `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** A model's name without the folders, or the organisation, it is in. */
export function modelName(text) {
  return String(text ?? "").split(/[\\/]+/).filter(Boolean).at(-1) ?? "";
}
