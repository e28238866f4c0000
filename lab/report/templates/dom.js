// Small helpers to build elements, and words for numbers.

// A heading inside a pane: panes have headings of their own where there are several.
const PART_TITLE = DATA.runs.length > 1 ? "h4" : "h3";
const NUMBER = new Intl.NumberFormat("en");
const number = (count) => NUMBER.format(count);
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
const hex = (value) => "0x" + value.toString(16);
const address = (page) => BigInt(page) << PAGE_SHIFT;
const wide = (page) => address(page).toString(16).padStart(12, "0");

// el("p", {class: "x", onclick: f}, "text", child, ...)
function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  setAll(element, properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function svg(name, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  setAll(element, properties);
  element.append(...children);
  return element;
}

function setAll(element, properties) {
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const flagList = (flags) => el("span", { class: "flags" },
  ...flags.map((flag) => el("abbr", { title: FLAG_MEANINGS[flag] ?? flag }, flag)));

// Give a canvas its size in CSS pixels, and return what draws on it in the same unit.
function sizedPen(canvas, width, height) {
  const ratio = devicePixelRatio || 1, pen = canvas.getContext("2d");
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  pen.scale(ratio, ratio);
  return pen;
}

// White or black, whichever can be read on a colour like #1d4fa3.
function inkOn(background) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(background.slice(at, at + 2), 16) / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.22 ? "#16181c" : "#ffffff";
}

function table(caption, heads, rows, numeric = []) {
  const side = (i) => (numeric.includes(i) ? "n" : null);
  return el("table", {},
    el("caption", { class: "sr" }, caption),
    el("thead", {}, el("tr", {}, ...heads.map((head, i) => el("th", { scope: "col", class: side(i) }, head)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, i) => el("td", { class: side(i) }, cell))))));
}
