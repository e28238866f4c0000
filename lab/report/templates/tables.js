// The page tables: the walk of one address, drawn as in a lecture, and the tree of all entries.

const TONES = ["", "c3", "c1", "c2", "c0"]; // of the levels, PTE first

class PageTables {
  constructor(pane, machine) {
    Object.assign(this, { pane, machine, va: null, open: new Set() });
    this.choice = pane.querySelector("select.pgd");
    for (const space of machine.spaces.values()) {
      const two = space.user_pgd !== space.pgd;
      this.#option(space, space.user_pgd, two ? ": user mode's" : "");
      if (two) this.#option(space, space.pgd, ": the kernel's");
    }
    this.choice.closest(".choice").hidden = this.choice.length < 2;
    this.choice.addEventListener("change", () => this.draw());
  }

  #option(space, pgd, what) {
    this.choice.append(el("option", { value: pgd, "data-space": space.id }, nameOf(space, this.machine) + what));
  }

  get pgd() { return Number(this.choice.value); }
  get exists() { return this.machine.there.has(Number(this.choice.selectedOptions[0]?.dataset.space)); }

  walkTo(va, space) {
    this.va = va;
    const own = [...this.choice.options].find((option) => Number(option.dataset.space) === space);
    if (own && Number(this.choice.selectedOptions[0].dataset.space) !== space) own.selected = true;
    this.draw();
  }

  draw() {
    const walk = this.pane.querySelector(".walk"), tree = this.pane.querySelector(".tree");
    if (!this.exists) {
      this.shown = null;
      walk.replaceChildren();
      tree.replaceChildren(el("p", { class: "about" }, "This page table does not exist at this moment."));
      return;
    }
    const report = this.va === null ? null : this.machine.walk(this.pgd, this.va);
    walk.replaceChildren(...(report ? [stepList(report), verdict(report)] : []));
    if (this.#isShown()) return;
    this.onWay = new Set(report ? report.steps.map(({ table, index }) => `${table}:${index}`) : []);
    tree.replaceChildren(...this.#rows(BigInt(this.pgd) >> PAGE_SHIFT, TOP_LEVEL, 0n));
  }

  // Whether the tree is as it was drawn last: the same tables at the same place of the same walk.
  #isShown() {
    const key = `${this.pgd} ${this.machine.tablesSince} ${this.va}`, same = key === this.shown;
    this.shown = key;
    return same;
  }

  // The used entries of one table; what is below them is only made when somebody looks.
  #rows(pfn, level, base) {
    return this.machine.entries(pfn).map(([index, entry]) => {
      const va = canonical(base + (BigInt(index) << BigInt(3 + 9 * level)));
      const parts = decode(entry, level), isTable = parts.flags.includes("P") && !isLeaf(entry, level);
      const walked = this.onWay.has(`${pfn}:${index}`) ? " walked" : "";
      const words = isTable ? `${LEVEL_NAMES[level - 1]} table in frame ${hex(parts.pfn)}`
        : [parts.kind, parts.pfn === null ? "" : `frame ${hex(parts.pfn)}`, level > 1 ? SIZES[3 + 9 * level] : ""].filter(Boolean).join(", ");
      const content = [el("span", { class: "index" }, String(index)), el("code", {}, hex(va)),
        el("span", { class: "to" }, words), el("code", {}, parts.flags.join(" "))];
      if (!isTable) return el("div", { class: `row leaf${walked}` }, ...content);
      return this.#branch(parts.pfn, level, va, content, walked);
    });
  }

  #branch(pfn, level, va, content, walked) {
    const key = `${level}:${va}`, below = el("div");
    const branch = el("details", {}, el("summary", { class: `row${walked}` }, ...content), below);
    const fill = () => { if (!below.hasChildNodes()) below.append(...this.#rows(pfn, level - 1, va)); };
    if (this.open.has(key) || walked) { branch.open = true; fill(); }
    branch.addEventListener("toggle", () => {
      if (branch.open) { this.open.add(key); fill(); } else this.open.delete(key);
    });
    return branch;
  }
}

function stepList({ va, steps, pa, shift }) {
  const items = steps.map(({ level, index, entry }) => {
    const low = 3 + 9 * level, parts = decode(entry, level);
    const bits = index.toString(2).padStart(9, "0");
    const found = parts.flags.length
      ? [el("div", { class: "entry" }, entryText(entry)), el("div", {}, parts.kind || `frame ${hex(parts.pfn)}`), flagList(parts.flags)]
      : [el("div", { class: "entry" }, entryText(entry)), el("div", { class: "missing" }, parts.kind === "nothing" ? "not present" : parts.kind)];
    return el("li", { style: `--tone: var(--${TONES[level]})` },
      el("div", { class: "bits" }, `bits ${low + 8}–${low}: ${bits}`),
      el("div", { class: "index" }, el("small", {}, `${LEVEL_NAMES[level]} `), String(index)), ...found);
  });
  if (pa !== null) {
    const offset = va & ((1n << shift) - 1n);
    items.push(el("li", { style: "--tone: var(--accent)" },
      el("div", { class: "bits" }, `bits ${shift - 1n}–0`), el("div", { class: "index" }, el("small", {}, "offset "), hex(offset)),
      el("div", {}, `in a page of ${SIZES[Number(shift)]}`), el("div", { class: "entry" }, hex(pa))));
  }
  return el("ol", { class: "steps" }, ...items);
}

const entryText = (entry) => "0x" + entry.toString(16).padStart(16, "0");

function verdict({ va, steps, pa }) {
  if (pa === null) {
    return el("p", { class: "verdict fault" }, `${hex(va)}: the walk ends in the ${LEVEL_NAMES[steps.at(-1).level]}. An access is a page fault.`);
  }
  const every = (flag) => steps.every(({ entry }) => entry & BIT[flag]);
  const words = [every("U") ? "user" : "kernel only", every("W") ? "read-write" : "read-only",
    steps.some(({ entry }) => entry & BIT.NX) ? "not executable" : "executable"];
  return el("p", { class: "verdict" }, `${hex(va)} is physical address `, el("b", {}, hex(pa)), `: ${words.join(", ")}.`);
}

// The address that somebody typed: a number, a symbol, or symbol+0x10. Returns null for anything else.
function parseAddress(words, symbols) {
  const [name, offset] = words.trim().split("+").map((part) => part.trim());
  const value = numberIn(name) ?? (name in symbols ? BigInt("0x" + symbols[name]) : null);
  const distance = offset === undefined ? 0n : numberIn(offset);
  if (value === null || distance === null) return null;
  const va = value + distance;
  return va === BigInt.asUintN(64, BigInt.asIntN(48, va)) ? va : null;
}

const numberIn = (words) => (/^(0x[0-9a-f]+|\d+)$/i.test(words) ? BigInt(words) : null);
