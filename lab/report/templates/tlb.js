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
    new ResizeObserver(() => this.restyle()).observe(pane);
  }

  fill(pcid) { return colour(PCID_COLOURS[this.pcids.indexOf(pcid) % PCID_COLOURS.length]); }

  #part(kind) {
    const title = el("h4"), slots = el("div", { class: `slots${this.capacity[kind] > MANY ? " many" : ""}`, "aria-hidden": "true" });
    const chart = el("div", { class: "chart" }), rows = el("div", { class: "scroll tall", tabindex: 0 });
    const details = el("details", { class: "as-table" }, el("summary", {}, "Its entries"), rows);
    details.addEventListener("toggle", () => this.draw());
    const element = el("div", {}, title, slots, chart, details);
    return { kind, title, slots, chart, rows, details, element };
  }

  // Everything that depends on colours.
  restyle() {
    this.pane.querySelector(".pcids").replaceChildren(...this.pcids.map((pcid) => {
      const what = pcid >= 2048 ? " (user mode's)" : "";
      return el("li", {}, el("i", { style: `background:${this.fill(pcid)}` }), `PCID ${pcid}${what}`);
    }), el("li", {}, el("i", { style: "box-shadow: inset 0 0 0 2px currentColor" }), "global"));
    const history = this.#history();
    for (const part of this.parts) {
      const series = this.pcids.map((pcid, i) => ({ name: `PCID ${pcid}`, fill: this.fill(pcid), values: history[part.kind][i] }))
        .filter(({ values }) => values.some((value) => value));
      part.picture = areaChart({
        title: `${KINDS[part.kind]}: entries by PCID at every moment`, series, count: this.machine.moments.length,
        width: part.chart.clientWidth, height: 120,
        cycles: this.machine.moments.map((moment) => moment.cycle),
        onpick: (i) => this.timeline.goToCycle(this.machine.moments[i].cycle),
      });
      part.chart.replaceChildren(part.picture);
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

  #slots({ slots, kind }, rows) {
    const fills = Object.fromEntries(this.pcids.map((pcid) => [pcid, this.fill(pcid)]));
    const squares = rows.map(({ page, pcid, flags }) => el("i", {
      style: `background:${fills[pcid]}`, class: flags.includes("G") ? "global" : null, title: `${hex(canonicalPage(page))}, PCID ${pcid}` }));
    for (let i = rows.length; i < this.capacity[kind]; i++) squares.push(el("i"));
    slots.replaceChildren(...squares);
  }

  #table(name, rows) {
    const heads = ["address", "to", "size", "PCID", "flags"];
    return table(`${name} at this moment`, heads, rows.map(({ page, frame, shift, pcid, flags }) => [
      el("code", {}, hex(canonicalPage(page))), el("code", {}, hex(address(frame))), SIZES[shift] ?? `2^${shift}`, String(pcid), flagList(flags)]), [3]);
  }
}

const canonicalPage = (page) => canonical(address(page));
