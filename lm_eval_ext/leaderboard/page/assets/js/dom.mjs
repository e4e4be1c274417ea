// Elements made from data. Text is always a text node: nothing here reads a string as HTML.

/** Make an element; properties are set as attributes, functions as listeners, children appended. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(name, String(value));
    }
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** A labelled drop-down list. `choices` are [value, text] pairs. */
export function choice(label, choices, chosen, onChange) {
  const select = element("select", { change: () => onChange(select.value) });
  for (const [value, text] of choices) {
    select.append(element("option", { value, selected: value === chosen }, text));
  }
  return element("label", { class: "field" }, element("span", {}, label), select);
}

/** A labelled text field that reports after a short pause in typing. */
export function searchField(label, onInput, value = "") {
  let pending = 0;
  const input = element("input", {
    type: "search",
    value,
    autocomplete: "off",
    spellcheck: "false",
    input: () => {
      clearTimeout(pending);
      pending = setTimeout(() => onInput(input.value.trim().toLowerCase()), 120);
    },
  });
  return element("label", { class: "field wide" }, element("span", {}, label), input);
}

/** Buttons of which one is pressed. */
export function segments(label, choices, chosen, onChange) {
  const buttons = choices.map(([value, text]) =>
    element(
      "button",
      { type: "button", "aria-pressed": String(value === chosen), click: () => onChange(value) },
      text,
    ),
  );
  return element(
    "div",
    { class: "field", role: "group", "aria-label": label },
    element("span", { "aria-hidden": "true" }, label),
    element("div", { class: "segments" }, buttons),
  );
}

/** A table of values, the first cell of a row being its header. */
export function valueTable(caption, head, rows) {
  return element(
    "table",
    { class: "values" },
    element("caption", { class: "only-read" }, caption),
    element("thead", {}, element("tr", {}, head.map((text) => element("th", { scope: "col" }, text)))),
    element(
      "tbody",
      {},
      rows.map(([first, ...others]) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, first),
          others.map((text) => element("td", {}, text)),
        ),
      ),
    ),
  );
}

/** Text that only a screen reader says. */
export function onlyRead(text) {
  return element("span", { class: "only-read" }, text);
}
