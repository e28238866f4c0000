// The guest's memory management at one moment: it steps forwards and backwards through the recorded changes, walks
// the guest's page tables, and decodes their entries. Nothing here draws.

const DATA = JSON.parse(document.getElementById("data").textContent);
const LAYOUT = DATA.layout;
const ADDRESS_MASK = BigInt("0x" + LAYOUT.address_mask);
const PROTNONE = BigInt("0x" + LAYOUT.protnone);
const SPECIAL = BigInt("0x" + LAYOUT.special);
const SWAP_OFFSET_MASK = BigInt("0x" + LAYOUT.swap_offset_mask);
const FLAGS = Object.entries(LAYOUT.flags).map(([name, bit]) => [name, 1n << BigInt(bit)]);
const BIT = Object.fromEntries(FLAGS);
const PAGE_SHIFT = 12n;
const TOP_LEVEL = 4;
const USER_HALF = 256; // entries of a PGD
const LEVEL_NAMES = ["", "PTE", "PMD", "PUD", "PGD"];
const SIZES = { 12: "4 KiB", 21: "2 MiB", 30: "1 GiB", 39: "512 GiB" };
const FLAG_MEANINGS = {
  P: "present", W: "writable", U: "user mode may use it", PWT: "write-through", PCD: "not cached", A: "accessed",
  D: "dirty: written", PS: "a large page", G: "global", NX: "not executable",
};

const canonical = (va) => BigInt.asUintN(64, BigInt.asIntN(48, va));
const isLeaf = (entry, level) => level === 1 || (level < TOP_LEVEL && (entry & BIT.PS) !== 0n);
const pfnOf = (entry) => (entry & ADDRESS_MASK) >> PAGE_SHIFT;

// An entry in words: what it leads to, and its flags.
function decode(entry, level) {
  if (entry & BIT.P) {
    const flags = FLAGS.filter(([, bit]) => entry & bit).map(([name]) => name);
    const zero = isLeaf(entry, level) && level === 1 && (entry & SPECIAL) !== 0n;
    return { kind: zero ? "the zero page" : "", pfn: pfnOf(entry), flags };
  }
  if (entry === 0n) return { kind: "nothing", pfn: null, flags: [] };
  if (entry & PROTNONE) return { kind: "no access allowed (PROT_NONE)", pfn: pfnOf(entry ^ ADDRESS_MASK), flags: [] };
  const slot = ((entry >> BigInt(LAYOUT.swap_offset_shift)) & SWAP_OFFSET_MASK) ^ SWAP_OFFSET_MASK;
  return { kind: `swapped out: slot ${slot}`, pfn: null, flags: [] };
}

class Machine {
  constructor(run) {
    this.run = run;
    this.recording = run.recording;
    this.moments = run.recording.moments;
    this.spaces = new Map(run.recording.spaces.map((space) => [space.id, space]));
    this.at = -1;
    this.there = new Set();
    this.areas = new Map(); // of each address space: rows of [first page, end, rights, name]
    this.pages = new Map(); // of each address space: page -> letter
    this.tables = new Map(); // pfn in hexadecimal -> Map of index -> entry
    this.held = new Set(); // numbers of translations
    this.undo = [];
    let since = 0; // for each moment, the last one that changed page tables
    this.changed = this.moments.map((moment, i) => (since = Object.keys(moment.tables).length || moment.there ? i : since));
    this.go(0);
  }

  get moment() { return this.moments[this.at]; }

  get tablesSince() { return this.changed[this.at]; }

  go(target) {
    target = Math.max(0, Math.min(target, this.moments.length - 1));
    while (this.at < target) this.#forwards(this.moments[++this.at]);
    while (this.at > target) { this.undo.pop().reverse().forEach((action) => action()); this.at--; }
  }

  #forwards(moment) {
    const undo = [];
    if (moment.there) {
      const old = this.there;
      undo.push(() => { this.there = old; });
      this.there = new Set(moment.there);
    }
    for (const [id, rows] of Object.entries(moment.areas)) this.#set(this.areas, Number(id), rows, undo);
    for (const [id, rows] of Object.entries(moment.pages)) {
      const pages = this.#map(this.pages, Number(id), undo);
      for (const [first, letters] of rows) {
        [...letters].forEach((letter, i) => this.#set(pages, first + i, letter === "." ? undefined : letter, undo));
      }
    }
    for (const [pfn, entries] of Object.entries(moment.tables)) {
      if (entries === null) { this.#set(this.tables, pfn, undefined, undo); continue; }
      const table = this.#map(this.tables, pfn, undo);
      for (const [index, entry] of Object.entries(entries)) {
        this.#set(table, Number(index), entry === "0" ? undefined : BigInt("0x" + entry), undo);
      }
    }
    moment.tlb_out.forEach((id) => this.held.delete(id));
    moment.tlb_in.forEach((id) => this.held.add(id));
    undo.push(() => {
      moment.tlb_in.forEach((id) => this.held.delete(id));
      moment.tlb_out.forEach((id) => this.held.add(id));
    });
    this.undo.push(undo);
  }

  #map(maps, key, undo) {
    if (!maps.has(key)) this.#set(maps, key, new Map(), undo);
    return maps.get(key);
  }

  #set(map, key, value, undo) {
    const old = map.get(key);
    undo.push(() => (old === undefined ? map.delete(key) : map.set(key, old)));
    if (value === undefined) map.delete(key); else map.set(key, value);
  }

  entry(pfn, index) { return this.tables.get(pfn.toString(16))?.get(index) ?? 0n; }

  // The used entries of a table in order, as [index, entry].
  entries(pfn) {
    return [...(this.tables.get(pfn.toString(16)) ?? [])].sort(([a], [b]) => a - b);
  }

  // The page walk of an address: a step for each level, and where it led.
  walk(pgd, va) {
    const steps = [];
    let table = BigInt(pgd) >> PAGE_SHIFT;
    for (let level = TOP_LEVEL; level > 0; level--) {
      const shift = BigInt(3 + 9 * level);
      const index = Number((va >> shift) & 511n);
      const entry = this.entry(table, index);
      steps.push({ level, index, table, entry });
      if (!(entry & BIT.P)) return { va, steps, pa: null, shift };
      if (isLeaf(entry, level)) {
        const offset = (1n << shift) - 1n;
        return { va, steps, pa: (entry & ADDRESS_MASK & ~offset) | (va & offset), shift };
      }
      table = pfnOf(entry);
    }
    throw new Error("level 1 always ends a walk");
  }
}
