// Stacked areas over the moments, in line with the slider. They have no scale of time of their own: every step is a
// moment, and the cycles stand below. Nothing is drawn between two moments but the first one's values.

const CHART = { left: 42, right: 10, top: 8, bottom: 20 };

// `series` are {name, colour, values}; returns the chart with a method `mark(i)` that shows the current moment.
function areaChart({ title, series, count, width, height, cycles, onpick }) {
  const { left, right, top, bottom } = CHART;
  const most = niceTop(Math.max(1, ...Array.from({ length: count }, (_, i) => sumAt(series, i))));
  const step = (width - left - right) / count;
  const x = (i) => left + step * i;
  const y = (value) => top + (height - top - bottom) * (1 - value / most);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  for (const value of [0, most / 2, most]) {
    picture.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    picture.append(text(left - 6, y(value) + 4, number(value), "end"));
  }
  let below = new Array(count).fill(0);
  for (const { name, fill, values } of series) {
    const above = below.map((start, i) => start + values[i]);
    const outline = [...steps(above, x, y), ...steps(below, x, y).reverse()];
    const area = svg("polygon", { points: outline.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" "), fill });
    area.append(svg("title", {}, name));
    picture.append(area);
    below = above;
  }
  const labels = width > 600 ? 4 : width > 360 ? 2 : 1;
  for (let part = 0; part <= labels; part++) {
    const i = Math.round(((count - 1) * part) / labels);
    const anchor = part === 0 ? "start" : part === labels ? "end" : "middle";
    picture.append(text(part === labels ? x(count) : x(i), height - 4, `${number(cycles[i])}${part === labels ? " cycles" : ""}`, anchor));
  }
  const now = svg("rect", { class: "now", y: top - 4, height: height - bottom - top + 4, width: Math.max(2, step) });
  picture.append(now);
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * width;
    onpick(Math.max(0, Math.min(count - 1, Math.floor((place - left) / step))));
  });
  picture.mark = (i) => now.setAttribute("x", x(i));
  return picture;
}

// The numbers of a chart as a table, made when somebody opens it.
function chartTable({ title, series, cycles }) {
  const place = el("div", { class: "scroll tall", tabindex: 0 });
  const details = el("details", { class: "as-table" }, el("summary", {}, "The chart as a table"), place);
  details.addEventListener("toggle", () => {
    if (!details.open || place.hasChildNodes()) return;
    const rows = cycles.map((cycle, i) => [number(cycle), ...series.map(({ values }) => number(values[i]))]);
    place.append(table(title, ["cycle", ...series.map(({ name }) => name)], rows, [0, ...series.map((_, i) => i + 1)]));
  });
  return details;
}

const steps = (values, x, y) => values.flatMap((value, i) => [[x(i), y(value)], [x(i + 1), y(value)]]);
const text = (x, y, words, anchor) => svg("text", { x, y, "text-anchor": anchor }, words);
const sumAt = (series, i) => series.reduce((sum, { values }) => sum + values[i], 0);

// The next of 2, 4, 6, 8, 10, 20, 40 ...: a top line that can be halved.
function niceTop(value) {
  for (let power = 1; ; power *= 10) for (const step of [2, 4, 6, 8, 10]) if (step * power >= value) return step * power;
}
