// Light or dark: the system's choice until the button is used, which is remembered.

import { element } from "./dom.mjs";

const STORED = "lm-eval-ext-theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

function stored() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null; // Storage is refused to some files opened from disk.
  }
}

let chosen = stored();

export function isDark() {
  return chosen ? chosen === "dark" : system.matches;
}

/** Call a function after every change of colors. */
export function onThemeChange(listener) {
  listeners.add(listener);
}

/** A color of the style sheet as it is now. */
export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function apply() {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  const button = document.getElementById("theme");
  button.replaceChildren(element("span", {}, isDark() ? "Light colors" : "Dark colors"));
  for (const listener of listeners) listener();
}

export function startTheme() {
  document.getElementById("theme").addEventListener("click", () => {
    chosen = isDark() ? "light" : "dark";
    try {
      localStorage.setItem(STORED, chosen);
    } catch {
      // The choice then lasts as long as the page.
    }
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}
