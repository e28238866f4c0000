// Reload latencies as dots: a value of the secret byte to the right, cycles upwards. A hit stands alone below.

const DOTS = { left: 46, right: 12, top: 18, bottom: 34, height: 250 };

class ReloadPlot {
  constructor(pane, latencies) {
    Object.assign(this, { place: pane.querySelector(".reload"), latencies });
    if (!this.place) return;
    new ResizeObserver(() => { if (this.place.clientWidth !== this.width) this.draw(); }).observe(this.place);
    this.draw();
  }

  draw() {
    if (!this.place) return;
    const { left, right, top, bottom, height } = DOTS, width = (this.width = this.place.clientWidth);
    const fastest = Math.min(...this.latencies), most = niceTop(Math.max(...this.latencies));
    const hit = fastest < Math.max(...this.latencies) / 2 ? this.latencies.indexOf(fastest) : -1;
    const x = (value) => left + ((width - left - right) * value) / (this.latencies.length - 1);
    const y = (cycles) => top + (height - top - bottom) * (1 - cycles / most);
    const said = hit < 0 ? "no load is quicker than the others" : `the load of value ${valueName(hit)} took ${fastest} cycles, the others more`;
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Reload latencies: ${said}` });
    for (const cycles of [0, most / 2, most]) {
      picture.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(cycles), y2: y(cycles) }));
      picture.append(text(left - 6, y(cycles) + 4, number(cycles), "end"));
    }
    for (const value of [0, 64, 128, 192, 255]) picture.append(text(x(value), height - 18, String(value), "middle"));
    picture.append(text(width - right, height - 3, "value", "end"), text(left - 38, 10, "cycles", "start"));
    this.latencies.forEach((cycles, value) => {
      const is = value === hit;
      const dot = svg("circle", { cx: x(value), cy: y(cycles), r: is ? 6 : 2.6, fill: colour(is ? "swapped" : "cow") });
      dot.append(svg("title", {}, `${valueName(value)}: ${number(cycles)} cycles`));
      picture.append(dot);
    });
    if (hit >= 0) {
      const side = hit < 200 ? 1 : -1;
      const label = text(x(hit) + side * 11, y(fastest) + 4, `${valueName(hit)}, ${number(fastest)} cycles`, side > 0 ? "start" : "end");
      label.setAttribute("class", "hit");
      picture.append(label);
    }
    this.place.replaceChildren(picture);
  }
}

const valueName = (value) => (value > 32 && value < 127 ? `${value} = '${String.fromCharCode(value)}'` : String(value));
