// What the TLBs hold: a square for every entry, coloured by PCID, how full they were over time, and a table.

const KINDS = ["ITLB", "DTLB", "STLB", "Paging-structure caches"];
const KIND_NOTES = ["instructions", "data", "second level, behind both", "where the next table is"];
const PCID_COLOURS = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"];
const MANY = 256; // entries from which on their squares are small

class TlbView {
  constructor(pane, machine, timeline) {
    Object.assign(this, { pane, machine, timeline });
    const { arrays, translations } = machine.recording;
    this.rows = translations.map(([array, page, frame, shift, pcid, flags], id) =>
      ({ id, kind: arrays[array].kind, page, frame, shift, pcid, flags: flags.split(" ") }));
    this.pcids = [...new Set(this.rows.map(({ pcid }) => pcid))].sort((a, b) => a - b);
    this.capacity = KINDS.map((_, kind) => arrays.filter((array) => array.kind === kind).reduce((sum, { entries }) => sum + entries, 0));
    this.parts = KINDS.map((_, kind) => this.#part(kind));
    pane.querySelector(".tlb").replaceChildren(...this.parts.map(({ element }) => element));
    if (!arrays.length) {
      pane.replaceChildren(el("p", { class: "about" }, "This machine has none: every access walks the page tables."));
      this.draw = this.restyle = () => {};
      return;
    }
    new ResizeObserver(() => { if (pane.clientWidth !== this.width) this.restyle(); }).observe(pane);
    this.restyle();
  }

  fill(pcid) { return colour(PCID_COLOURS[this.pcids.indexOf(pcid) % PCID_COLOURS.length]); }

  #part(kind) {
    const title = el(PART_TITLE, { class: "part-title" }), slots = el("canvas", { class: "slots", "aria-hidden": "true" });
    const chart = el("div", { class: "chart" }), rows = el("div", { class: "scroll tall", tabindex: 0 });
    const details = el("details", { class: "as-table" }, el("summary", {}, "Its entries"), rows);
    details.addEventListener("toggle", () => this.draw());
    const element = el("div", {}, title, slots, chart, details);
    return { kind, title, slots, chart, rows, details, element };
  }

  // Everything that depends on colours.
  restyle() {
    this.width = this.pane.clientWidth;
    this.pane.querySelector(".pcids").replaceChildren(...this.pcids.map((pcid) => {
      const what = pcid >= 2048 ? " (user)" : "";
      return el("li", {}, el("i", { style: `background:${this.fill(pcid)}` }), `PCID ${pcid}${what}`);
    }), el("li", {}, el("i", { style: "box-shadow: inset 0 0 0 2px currentColor" }), "global"));
    const history = this.#history();
    for (const part of this.parts) {
      const series = this.pcids.map((pcid, i) => ({ name: `PCID ${pcid}`, fill: this.fill(pcid), values: history[part.kind][i] }))
        .filter(({ values }) => values.some((value) => value));
      const title = `${KINDS[part.kind]}: entries by PCID at every moment`, moments = this.machine.moments;
      const cycles = moments.map((moment) => moment.cycle);
      part.picture = areaChart({
        title, series, count: moments.length, width: part.chart.clientWidth, height: 120, cycles,
        onpick: (i) => this.timeline.goToCycle(cycles[i]),
      });
      part.chart.replaceChildren(part.picture, chartTable({ title, series, cycles }));
    }
    this.draw();
  }

  #history() {
    const now = KINDS.map(() => this.pcids.map(() => 0));
    const history = KINDS.map(() => this.pcids.map(() => []));
    const count = (ids, change) => ids.forEach((id) => { now[this.rows[id].kind][this.pcids.indexOf(this.rows[id].pcid)] += change; });
    for (const moment of this.machine.moments) {
      count(moment.tlb_in, 1);
      count(moment.tlb_out, -1);
      now.forEach((counts, kind) => counts.forEach((value, i) => history[kind][i].push(value)));
    }
    return history;
  }

  draw() {
    const held = [...this.machine.held].map((id) => this.rows[id]).sort((a, b) => a.pcid - b.pcid || a.page - b.page);
    for (const part of this.parts) {
      const rows = held.filter(({ kind }) => kind === part.kind);
      part.title.replaceChildren(KINDS[part.kind], el("small", {}, `${KIND_NOTES[part.kind]} · ${number(rows.length)} of ${plural(this.capacity[part.kind], "entry").replace("entrys", "entries")}`));
      part.picture?.mark(this.machine.at);
      this.#slots(part, rows);
      if (part.details.open) part.rows.replaceChildren(this.#table(KINDS[part.kind], rows));
    }
  }

  // A square for each entry that there is room for.
  #slots({ slots, chart, kind }, rows) {
    const count = this.capacity[kind], cell = count > MANY ? 6 : 12, side = cell - (cell > 6 ? 2 : 1);
    const columns = Math.max(1, Math.floor(chart.clientWidth / cell));
    const pen = sizedPen(slots, Math.min(columns, count) * cell, Math.ceil(count / columns) * cell);
    const fills = Object.fromEntries(this.pcids.map((pcid) => [pcid, this.fill(pcid)]));
    const free = colour("absent"), ink = colour("ink");
    for (let i = 0; i < count; i++) {
      const x = (i % columns) * cell, y = Math.floor(i / columns) * cell, row = rows[i];
      pen.fillStyle = row ? fills[row.pcid] : free;
      pen.fillRect(x, y, side, side);
      if (row?.flags.includes("G")) {
        pen.strokeStyle = ink;
        pen.lineWidth = cell > 6 ? 2 : 1;
        pen.strokeRect(x + pen.lineWidth / 2, y + pen.lineWidth / 2, side - pen.lineWidth, side - pen.lineWidth);
      }
    }
  }

  #table(name, rows) {
    const heads = ["address", "to", "size", "PCID", "flags"];
    return table(`${name} at this moment`, heads, rows.map(({ page, frame, shift, pcid, flags }) => [
      el("code", {}, hex(canonicalPage(page))), el("code", {}, hex(address(frame))), SIZES[shift] ?? `2^${shift}`, String(pcid), flagList(flags)]), [3]);
  }
}

const canonicalPage = (page) => canonical(address(page));
