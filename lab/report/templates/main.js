// Puts the parts together: one timeline, and for each machine a map, page tables and TLBs.

function start() {
  document.body.classList.add("scripted");
  linkCauses();
  const machines = DATA.runs.map((run) => new Machine(run));
  if (!machines[0].moments.length) return;
  const timeline = new Timeline(machines);
  const panes = (section, i) => document.querySelector(`#${section} .pane[data-run="${i}"]`);
  const tables = machines.map((machine, i) => new PageTables(panes("walks", i), machine));
  const walkTo = (va, space) => {
    document.getElementById("address").value = hex(va);
    tables.forEach((one) => one.walkTo(va, space));
  };
  const maps = machines.map((machine, i) => new MemoryMap(panes("memory", i), machine, timeline, walkTo));
  const tlbs = machines.map((machine, i) => new TlbView(panes("tlbs", i), machine, timeline));
  timeline.listeners.push(() => [...maps, ...tables, ...tlbs].forEach((view) => view.draw()));
  linkFaults(timeline, walkTo);
  const reloads = DATA.has_latencies ? DATA.runs.map((run, i) => new ReloadPlot(panes("latencies", i), run.latencies)) : [];
  listenToForm(walkTo);
  showFaultedLines();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    maps.forEach((map) => { map.drawChart(); map.draw(); });
    tlbs.forEach((tlb) => tlb.restyle());
    reloads.forEach((plot) => plot.draw());
  });
  timeline.go(lastOfFirst(machines[0]));
  const first = firstSymbol();
  if (first !== null) walkTo(first, null);
}

// The last moment of the first process: what came after is somebody else's.
function lastOfFirst(machine) {
  let there = false, found = machine.moments.length - 1;
  const id = machine.recording.spaces[0].id;
  machine.moments.forEach((moment, i) => {
    if (moment.there) there = moment.there.includes(id);
    if (there) found = i;
  });
  return found;
}

// Every source begins with a comment; what is worth seeing first is the first line that faulted.
function showFaultedLines() {
  for (const source of document.querySelectorAll(".source")) {
    const line = source.querySelector(".faulted");
    if (line) source.scrollTop = line.offsetTop - 60;
  }
}

function firstSymbol() {
  const symbols = DATA.runs[0].symbols, name = "_start" in symbols ? "_start" : Object.keys(symbols)[0];
  return name === undefined ? null : BigInt("0x" + symbols[name]);
}

function listenToForm(walkTo) {
  const form = document.querySelector(".walk-form"), help = document.getElementById("walk-help"), said = help.textContent;
  const symbols = DATA.runs[0].symbols, input = document.getElementById("address");
  document.getElementById("symbols").append(...Object.keys(symbols).map((name) => el("option", { value: name })));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const va = parseAddress(input.value, symbols);
    input.setAttribute("aria-invalid", va === null);
    help.textContent = va === null ? `${input.value || "Nothing"} is no canonical address and no symbol. ${said}` : said;
    if (va !== null) { const typed = input.value; walkTo(va, null); input.value = typed; }
  });
}

start();
