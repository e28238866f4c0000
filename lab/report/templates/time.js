// The slider at the bottom: one moment for all machines. Where several stand side by side, they are shown at the same
// place of the program.

const SPEED = 120; // milliseconds a moment

class Timeline {
  constructor(machines) {
    this.machines = machines;
    this.listeners = [];
    this.slider = document.getElementById("moment");
    this.slider.max = machines[0].moments.length - 1;
    this.playButton = document.querySelector(".play");
    this.slider.addEventListener("input", () => { this.pause(); this.go(Number(this.slider.value)); });
    document.querySelector(".back").addEventListener("click", () => { this.pause(); this.go(this.at - 1); });
    document.querySelector(".on").addEventListener("click", () => { this.pause(); this.go(this.at + 1); });
    this.playButton.addEventListener("click", () => (this.timer ? this.pause() : this.play()));
  }

  get at() { return this.machines[0].at; }

  go(target) {
    const [first, ...others] = this.machines;
    first.go(target);
    for (const machine of others) machine.go(this.#sameProgress(machine, first.moment.counters));
    this.slider.value = this.at;
    this.#say();
    this.listeners.forEach((listener) => listener());
  }

  // Where another machine had executed as many instructions of the user, with as many page faults.
  #sameProgress(machine, { user, faults }) {
    if (this.at === this.machines[0].moments.length - 1) return machine.moments.length - 1;
    let found = 0;
    machine.moments.forEach((moment, i) => { if (moment.counters.user <= user && moment.counters.faults <= faults) found = i; });
    return found;
  }

  // The last moment at or before a cycle of the first machine.
  goToCycle(cycle) {
    let found = 0;
    this.machines[0].moments.forEach((moment, i) => { if (moment.cycle <= cycle) found = i; });
    this.pause();
    this.go(found);
  }

  #say() {
    const moment = this.machines[0].moment;
    const line = document.getElementById("moment-text");
    line.replaceChildren(el("b", {}, `${this.at + 1} of ${this.machines[0].moments.length}`),
      ` · cycle ${number(moment.cycle)} · pid ${moment.pid}`, el("br"), moment.what);
    line.title = moment.what;
    this.slider.setAttribute("aria-valuetext", `moment ${this.at + 1}, cycle ${moment.cycle}, ${moment.what}`);
  }

  play() {
    if (this.at === this.machines[0].moments.length - 1) this.go(0);
    this.#playing(true);
    this.timer = setInterval(() => {
      this.go(this.at + 1);
      if (this.at === this.machines[0].moments.length - 1) this.pause();
    }, SPEED);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.#playing(false);
  }

  #playing(yes) {
    this.playButton.classList.toggle("playing", yes);
    this.playButton.setAttribute("aria-label", yes ? "Pause" : "Play");
  }
}
