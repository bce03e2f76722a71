// One card for each figure: its name, its value now, and a line over the last records.

const SVG = "http://www.w3.org/2000/svg";
const KEPT = 100;
const WIDTH = 100;
const HEIGHT = 30;

const percent = (value) => `${value.toFixed(1)} %`;
const short = (value) => (value < 10 ? value.toFixed(1) : String(Math.round(value)));
const perSecond = (value) => `${short(value)}/s`;

// Several rates in the unit of the largest: "1.4 / 0.3 MB/s".
function bytesPerSecond(...values) {
  const units = ["B", "KB", "MB", "GB"];
  const largest = Math.max(...values);
  const unit = Math.min(units.length - 1, largest < 1000 ? 0 : Math.floor(Math.log10(largest) / 3));
  return `${values.map((value) => short(value / 1000 ** unit)).join(" / ")} ${units[unit]}/s`;
}

const CARDS = [
  { title: "CPU", lines: [(r) => r.cpu], text: (r) => percent(r.cpu), top: 100 },
  { title: "Memory", lines: [(r) => r.memory], text: (r) => percent(r.memory), top: 100 },
  { title: "Disk", lines: [(r) => r.disk], text: (r) => percent(r.disk), top: 100 },
  {
    title: "Network in / out",
    lines: [(r) => r.network.in, (r) => r.network.out],
    text: (r) => bytesPerSecond(r.network.in, r.network.out),
  },
  { title: "Requests", lines: [(r) => r.requests], text: (r) => perSecond(r.requests) },
  { title: "Errors", lines: [(r) => r.errors], text: (r) => perSecond(r.errors) },
  {
    title: "Latency 50 / 95 / 99 %",
    lines: [(r) => r.latencyP50, (r) => r.latencyP95, (r) => r.latencyP99],
    text: (r) => `${[r.latencyP50, r.latencyP95, r.latencyP99].map(short).join(" / ")} ms`,
  },
];

export class Charts {
  constructor(container) {
    this.records = [];
    this.cards = CARDS.map((card) => this.#build(container, card));
  }

  reset(records) {
    this.records = records.slice(-KEPT);
    this.#draw();
  }

  add(record) {
    const last = this.records.at(-1);
    if (last && record.timestamp <= last.timestamp) return; // a repeat, after a reconnect
    this.records.push(record);
    if (this.records.length > KEPT) this.records.shift();
    this.#draw();
  }

  #build(container, card) {
    const box = document.createElement("article");
    box.className = "card";
    const title = document.createElement("h3");
    title.textContent = card.title;
    const value = document.createElement("p");
    value.textContent = "–";
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true"); // the value beside it says the same
    const lines = card.lines.map((_, index) => {
      const line = document.createElementNS(SVG, "polyline");
      line.setAttribute("class", `line-${index}`);
      svg.append(line);
      return line;
    });
    box.append(title, value, svg);
    container.append(box);
    return { card, value, lines };
  }

  #draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      for (const built of this.cards) this.#drawCard(built);
    });
  }

  #drawCard({ card, value, lines }) {
    const newest = this.records.at(-1);
    if (!newest) return;
    value.textContent = card.text(newest);
    const series = card.lines.map((read) => this.records.map(read));
    const top = card.top ?? Math.max(1e-9, ...series.flat());
    series.forEach((values, index) => {
      const points = values.map((number, at) => {
        const x = WIDTH - ((values.length - 1 - at) * WIDTH) / (KEPT - 1);
        const y = HEIGHT - 1 - (Math.min(number, top) / top) * (HEIGHT - 2);
        return `${x.toFixed(1)},${y.toFixed(1)}`;
      });
      lines[index].setAttribute("points", points.join(" "));
    });
  }
}
