// The address space as a map of pages, with the counts of each state over time above it.

const STATE_ORDER = ["p", "c", "h", "z", "f", "s", "w"].filter((letter) => letter in DATA.states); // from the bottom up
const MANY_CHANGED = 128; // pages from which on those that just changed are not outlined
const LABEL = 112, LABEL_HEIGHT = 13; // pixels for the address of a row

class MemoryMap {
  constructor(pane, machine, timeline, walkTo) {
    Object.assign(this, { pane, machine, timeline, walkTo, cursor: null, shown: "" });
    this.map = pane.querySelector(".map");
    this.legend = pane.querySelector(".states");
    this.choice = pane.querySelector("select.space");
    this.history = histories(machine);
    for (const space of machine.spaces.values()) this.choice.append(el("option", { value: space.id }, nameOf(space, machine)));
    this.choice.closest(".choice").hidden = machine.spaces.size < 2;
    this.choice.addEventListener("change", () => { this.cursor = null; this.drawChart(); this.draw(); });
    this.map.tabIndex = 0;
    this.map.setAttribute("role", "group");
    this.map.addEventListener("keydown", (event) => this.#key(event));
    this.pane.querySelector(".as-table").addEventListener("toggle", () => this.#table());
    new ResizeObserver(() => { if (this.map.clientWidth !== this.width) { this.drawChart(); this.draw(); } }).observe(this.map);
    this.drawChart();
  }

  get space() { return Number(this.choice.value); }
  get exists() { return this.machine.there.has(this.space); }
  get pages() { return (this.exists && this.machine.pages.get(this.space)) || new Map(); }
  get areas() { return (this.exists && this.machine.areas.get(this.space)) || []; }

  drawChart() {
    this.width = this.map.clientWidth;
    const counts = this.history.get(this.space).counts;
    const series = STATE_ORDER.filter((letter) => counts[letter].some((count) => count))
      .map((letter) => ({ name: DATA.states[letter].name, fill: colour(DATA.states[letter].name), values: counts[letter] }));
    const moments = this.machine.moments;
    const place = this.pane.querySelector(".resident");
    const title = "Pages of this address space by state, at every moment", cycles = moments.map((moment) => moment.cycle);
    this.chart = areaChart({
      title, series, count: moments.length, width: place.clientWidth, height: 190, cycles,
      onpick: (i) => this.timeline.goToCycle(cycles[i]),
    });
    const heading = el(PART_TITLE, { class: "part-title" }, "Pages by state", el("small", {}, "each step is a moment; click to go there"));
    place.replaceChildren(heading, this.chart, chartTable({ title, series, cycles }));
    this.chart.mark(this.machine.at);
  }

  draw() {
    this.chart.mark(this.machine.at);
    this.#layOut();
    for (const block of this.blocks) this.#paint(block);
    this.#legend();
    this.#table();
    this.#read();
  }

  // Which pages are in which row: the same at all moments at which the VMAs are the same.
  #layOut() {
    const { cell, columns } = sizes(this.map.clientWidth, this.history.get(this.space).touched.size);
    const key = JSON.stringify([this.space, this.areas, cell, columns]);
    if (key === this.shown) return;
    Object.assign(this, { shown: key, cell, columns, blocks: [] });
    const parts = this.areas.map((area) => this.#area(area));
    const nothing = el("p", { class: "about" }, "This address space does not exist at this moment.");
    this.map.replaceChildren(...(this.exists ? parts : [nothing]));
    this.map.setAttribute("aria-label", `Map of ${plural(this.areas.length, "VMA")}; arrow keys move from page to page, Enter walks`);
  }

  #area([start, end, rights, name]) {
    const count = el("span", { class: "count" });
    const head = el("p", { class: "area-head" }, el("code", {}, `${wide(start)}–${wide(end)}`),
      el("span", { class: "rights mono" }, rights), el("span", {}, name || "anonymous"), count);
    const part = el("div", { class: "area" }, head);
    const touched = this.history.get(this.space).touched;
    let skipped = 0;
    const gap = () => {
      if (skipped) part.append(el("p", { class: "gap" }, `${plural(skipped, "page")} never touched`));
      skipped = 0;
    };
    let block = null;
    for (let first = start; first < end; first += this.columns) {
      const size = Math.min(this.columns, end - first);
      const used = end - start <= this.columns || hasAny(touched, first, size);
      if (!used) { skipped += size; block = null; continue; }
      gap();
      if (!block) {
        block = { first, pages: 0, canvas: el("canvas", { "aria-hidden": "true" }) };
        const own = block;
        block.canvas.addEventListener("pointermove", (event) => this.#point(own, event, false));
        block.canvas.addEventListener("click", (event) => this.#point(own, event, true));
        this.blocks.push(block);
        part.append(block.canvas);
      }
      block.pages += size;
    }
    gap();
    head.area = [start, end];
    return part;
  }

  #paint(block) {
    const { cell, columns } = this, pages = this.pages;
    const rows = Math.ceil(block.pages / columns), gap = cell > 5 ? 1.5 : 0.5;
    const width = LABEL + Math.min(block.pages, columns) * cell, height = Math.max(rows * cell, LABEL_HEIGHT);
    const pen = sizedPen(block.canvas, width, height);
    const fills = Object.fromEntries(Object.entries(DATA.states).map(([letter, state]) => [letter, colour(state.name)]));
    const inks = Object.fromEntries(Object.entries(fills).map(([letter, fill]) => [letter, inkOn(fill)]));
    const soft = colour("soft"), ink = colour("ink"), changed = this.#changed();
    pen.textBaseline = "middle";
    const step = Math.max(1, Math.ceil(14 / cell));
    for (let row = 0; row < rows; row += step) {
      pen.fillStyle = soft; pen.font = "11px ui-monospace, monospace"; pen.textAlign = "left";
      pen.fillText(wide(block.first + row * columns), 0, row * cell + Math.max(LABEL_HEIGHT, Math.min(cell, 15)) / 2 + 0.5);
    }
    pen.textAlign = "center"; pen.font = `600 ${cell * 0.56}px ui-monospace, monospace`;
    for (let i = 0; i < block.pages; i++) {
      const page = block.first + i, letter = pages.get(page) ?? ".";
      const x = LABEL + (i % columns) * cell, y = Math.floor(i / columns) * cell, side = cell - gap;
      pen.fillStyle = fills[letter] || ink;
      pen.beginPath(); pen.roundRect(x, y, side, side, cell > 9 ? 2.5 : 0); pen.fill();
      if (letter !== "." && cell >= 13) {
        pen.fillStyle = inks[letter];
        pen.fillText(letter, x + side / 2, y + side / 2 + 0.5);
      }
      if (page === this.cursor || (changed.size <= MANY_CHANGED && changed.has(page))) {
        pen.strokeStyle = ink; pen.lineWidth = page === this.cursor ? 2.5 : 1.5;
        pen.strokeRect(x + 0.75, y + 0.75, side - 1.5, side - 1.5);
      }
    }
  }

  #changed() {
    const pages = new Set();
    for (const [first, letters] of this.machine.moment.pages[this.space] ?? []) {
      for (let i = 0; i < letters.length; i++) pages.add(first + i);
    }
    return pages;
  }

  #legend() {
    const counts = countLetters(this.pages);
    const promised = this.areas.reduce((sum, [start, end]) => sum + end - start, 0);
    counts["."] = promised - this.pages.size;
    const ever = this.history.get(this.space).counts;
    const letters = [".", ...STATE_ORDER].filter((letter) => letter === "." || (ever[letter] ?? []).some((count) => count));
    this.legend.replaceChildren(...letters.map((letter) => {
      const { name, meaning } = DATA.states[letter], fill = colour(name);
      const swatch = el("i", { style: `background:${fill};color:${inkOn(fill)}`, "aria-hidden": "true" }, letter === "." ? "" : letter);
      return el("li", { title: meaning }, swatch, `${name} `, el("b", {}, number(counts[letter] ?? 0)));
    }));
  }

  #point(block, event, walk) {
    const box = block.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - LABEL) / this.cell);
    const row = Math.floor((event.clientY - box.top) / this.cell);
    const i = row * this.columns + column;
    if (column < 0 || column >= this.columns || i < 0 || i >= block.pages) return;
    this.#moveTo(block.first + i);
    if (walk) this.walkTo(address(this.cursor), this.space);
  }

  #key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns };
    if (event.key === "Enter" && this.cursor !== null) this.walkTo(address(this.cursor), this.space);
    else if (event.key in steps) this.#moveBy(steps[event.key]);
    else return;
    event.preventDefault();
  }

  // Along the pages that are shown, as if their blocks were one.
  #moveBy(step) {
    const total = this.blocks.reduce((sum, { pages }) => sum + pages, 0);
    let i = 0;
    if (this.cursor !== null) {
      for (const { first, pages } of this.blocks) {
        if (this.cursor >= first && this.cursor < first + pages) { i += this.cursor - first; break; }
        i += pages;
      }
      i = Math.max(0, Math.min(total - 1, i + step));
    }
    for (const { first, pages } of this.blocks) {
      if (i < pages) { this.#moveTo(first + i); return; }
      i -= pages;
    }
  }

  #moveTo(page) {
    if (page === this.cursor) return;
    const before = this.cursor;
    this.cursor = page;
    for (const block of this.blocks) {
      if ([before, page].some((one) => one >= block.first && one < block.first + block.pages)) this.#paint(block);
    }
    this.#read();
  }

  #read() {
    const place = this.pane.querySelector(".page-readout");
    if (this.cursor === null) { place.textContent = "Point at a page, or move there with the arrow keys."; return; }
    const state = DATA.states[this.pages.get(this.cursor) ?? "."];
    const area = this.areas.find(([start, end]) => this.cursor >= start && this.cursor < end);
    const walk = this.exists ? this.machine.walk(this.machine.spaces.get(this.space).pgd, address(this.cursor)) : null;
    const last = walk?.steps.at(-1), entry = last && decode(last.entry, last.level);
    place.replaceChildren(el("b", {}, hex(address(this.cursor))), ` ${area ? area[3] || "anonymous" : "no VMA"} · `,
      el("b", {}, state.name), ` – ${state.meaning}`);
    if (entry && entry.pfn !== null) place.append(` · frame ${hex(entry.pfn)} `, flagList(entry.flags));
    else if (entry && entry.kind !== "nothing") place.append(` · ${entry.kind}`);
  }

  #table() {
    if (!this.pane.querySelector(".as-table").open) return;
    const used = [".", ...STATE_ORDER].filter((letter) => letter in DATA.states);
    const rows = this.areas.map(([start, end, rights, name]) => {
      const counts = {};
      for (const [page, letter] of this.pages) if (page >= start && page < end) counts[letter] = (counts[letter] ?? 0) + 1;
      const there = Object.values(counts).reduce((sum, count) => sum + count, 0);
      counts["."] = end - start - there;
      return [el("code", {}, `${wide(start)}–${wide(end)}`), el("code", {}, rights), name || "anonymous",
        ...used.map((letter) => number(counts[letter] ?? 0))];
    });
    const heads = ["addresses", "rights", "name", ...used.map((letter) => DATA.states[letter].name)];
    this.pane.querySelector(".map-table").replaceChildren(
      table("Pages of every VMA by state, at this moment", heads, rows, used.map((_, i) => i + 3)));
  }
}

// A process has another address space after execve: then both are numbered.
function nameOf(space, machine) {
  const same = [...machine.spaces.values()].filter(({ pid }) => pid === space.pid);
  const which = same.length > 1 ? ` (${same.indexOf(space) + 1})` : "";
  return `pid ${space.pid}${which}, ${space.program.split("/").at(-1)}`;
}

// How large a page is drawn: smaller, the more there are, so that the map is not much higher than a window.
function sizes(width, pages) {
  for (const cell of [15, 11, 8, 6, 4]) {
    const room = Math.max(8, Math.floor((width - LABEL) / cell));
    const columns = Math.min(1 << Math.floor(Math.log2(room)), 256);
    if (cell === 4 || (pages / columns) * cell <= 560) return { cell, columns };
  }
}

function hasAny(pages, first, count) {
  for (let page = first; page < first + count; page++) if (pages.has(page)) return true;
  return false;
}

function countLetters(pages) {
  const counts = {};
  for (const letter of pages.values()) counts[letter] = (counts[letter] ?? 0) + 1;
  return counts;
}

// For each address space: how many pages were in which state at each moment, and which were ever touched.
function histories(machine) {
  const found = new Map();
  for (const id of machine.spaces.keys()) {
    const counts = Object.fromEntries(Object.keys(DATA.states).map((letter) => [letter, []]));
    found.set(id, { counts, touched: new Set(), pages: new Map(), now: {} });
  }
  let there = new Set();
  for (const moment of machine.moments) {
    there = moment.there ? new Set(moment.there) : there;
    for (const [id, history] of found) {
      for (const [first, letters] of moment.pages[id] ?? []) [...letters].forEach((letter, i) => note(history, first + i, letter));
      for (const letter in history.counts) history.counts[letter].push(there.has(id) ? history.now[letter] ?? 0 : 0);
    }
  }
  return found;
}

function note({ touched, pages, now }, page, letter) {
  touched.add(page);
  if (pages.has(page)) now[pages.get(page)]--;
  if (letter === ".") { pages.delete(page); return; }
  pages.set(page, letter);
  now[letter] = (now[letter] ?? 0) + 1;
}
