// Shared by all parts of the page. Text from runs only ever becomes text nodes.

const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");

/** An element: make("td", {class: "x"}, "text", child, ...). */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function draw(name, attributes = {}, text = "") {
  const element = document.createElementNS(document.getElementById("svg").namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}

/** A section with its heading, and a link to it at the top. */
function section(id, title, ...children) {
  const made = make("section", { id, "aria-labelledby": `${id}-title` }, make("h2", { id: `${id}-title` }, title));
  made.append(...children);
  main.append(made);
  const nav = document.getElementById("nav");
  nav.append(make("a", { href: `#${id}` }, title));
  nav.hidden = nav.childElementCount < 2;
  return made;
}

function table(head, rows) {
  const body = rows.map((row) =>
    make("tr", {}, ...row.map((cell, i) => make(i ? "td" : "th", i ? {} : { scope: "row" }, cell))));
  const top = make("tr", {}, ...head.map((cell) => make("th", { scope: "col" }, cell)));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "table" },
    make("table", {}, make("thead", {}, top), make("tbody", {}, ...body)));
}

/** A number to about three digits; infinite and missing values arrive as null. */
function number(value, none = "–") {
  if (value === null || value === undefined) return none;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-4) return value.toExponential(2).replace("e+", "e");
  if (size >= 1000) return String(Math.round(value));
  return String(Number(value.toPrecision(size >= 100 ? 4 : 3)));
}

const percent = (value) => (value === null ? "–" : `${number(100 * value)} %`);

window.addEventListener("error", (event) => {
  const box = document.getElementById("error");
  box.hidden = false;
  box.textContent = `The script of this page failed: ${event.message}`;
});
