// A small chart of the last minutes: lines over time, with marks for incidents.

import { make, show } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000; // in drawing units, which are stretched to the available space
const HEIGHT = 100;
const MOST_SECONDS_BETWEEN = 3; // points further apart are not joined: no snapshots in between

function draw(name, attributes = {}) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// A scale maps a value to 0 at the bottom to 1 at the top, and has the labels for top, middle and bottom.
export function linear(least) {
  return (most) => {
    const top = roundUp(Math.max(least, most));
    return { place: (value) => value / top, labels: [top, top / 2, 0] };
  };
}

// For values that range from microseconds to seconds.
export function logarithmic(bottom, tops) {
  return (most) => {
    const top = tops.find((candidate) => candidate >= most) ?? tops.at(-1);
    const place = (value) => Math.min(1, Math.max(0, Math.log(value / bottom) / Math.log(top / bottom)));
    return { place, labels: [top, Math.sqrt(top * bottom), bottom] };
  };
}

// Return the least round number of at least `value` whose half is round too.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 6, 8, 10].map((factor) => factor * power).find((candidate) => candidate >= value * 0.9999);
}

export class Chart {
  #title;
  #lines;
  #seconds;
  #format;
  #scale;
  #svg;
  #marks;
  #labels;

  // `lines` are the figures shown, each with the `key` in a point, a `name` and a `className`.
  constructor(figure, { title, lines, seconds, format, scale }) {
    this.#title = title;
    this.#seconds = seconds;
    this.#format = format;
    this.#scale = scale;
    const legend = make("span", { className: "legend" });
    this.#svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    for (const y of [0, HEIGHT / 2, HEIGHT]) this.#svg.append(draw("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }));
    this.#marks = draw("g");
    this.#svg.append(this.#marks);
    this.#lines = lines.map(({ key, name, className, filled = false }) => {
      const area = filled ? draw("path", { class: `area ${className}` }) : null;
      const path = draw("path", { class: `line ${className}` });
      if (area) this.#svg.append(area);
      this.#svg.append(path);
      const value = make("span", { className: "value", text: "–" });
      legend.append(make("span", { className: `key ${className}` }, make("span", { text: name }), " ", value));
      return { key, name, area, path, value };
    });
    this.#labels = [make("span"), make("span"), make("span")];
    const labels = make("div", { className: "scale", "aria-hidden": "true" }, ...this.#labels);
    const plot = make("div", { className: "plot" }, labels, this.#svg);
    figure.append(make("figcaption", {}, make("span", { className: "title", text: title }), legend), plot);
  }

  // Draw `points`, oldest first, each with a time `at` in seconds, up to `now`. `marks` have a time and a kind.
  show(points, marks, now) {
    const begin = now - this.#seconds;
    const inSight = points.filter((point) => point.at >= begin);
    const values = inSight.flatMap((point) => this.#lines.map((line) => point[line.key] ?? 0));
    const scale = this.#scale(Math.max(0, ...values));
    const x = (at) => ((at - begin) / this.#seconds) * WIDTH;
    const y = (value) => HEIGHT * (1 - scale.place(value));
    for (const line of this.#lines) this.#trace(line, inSight, x, y);
    scale.labels.forEach((value, index) => show(this.#labels[index], this.#format(value)));
    this.#marks.replaceChildren(
      ...marks
        .filter((mark) => mark.at >= begin)
        .map((mark) => draw("line", { class: `mark ${mark.kind}`, x1: x(mark.at), x2: x(mark.at), y1: 0, y2: HEIGHT })),
    );
    const latest = inSight.at(-1);
    const said = this.#lines.map((line) => {
      const most = Math.max(0, ...inSight.map((point) => point[line.key] ?? 0));
      const text = this.#format(latest?.[line.key] ?? null);
      show(line.value, text);
      return `${line.name} now ${text}, at most ${this.#format(most)}`;
    });
    this.#svg.setAttribute("aria-label", `${this.#title}, the last ${this.#seconds / 60} minutes: ${said.join("; ")}`);
  }

  #trace(line, points, x, y) {
    const runs = [];
    let last = null;
    for (const point of points) {
      const value = point[line.key];
      if (value === null || value === undefined) continue;
      if (last === null || point.at - last > MOST_SECONDS_BETWEEN) runs.push([]);
      runs.at(-1).push([x(point.at).toFixed(1), y(value).toFixed(2)]);
      last = point.at;
    }
    const path = runs.map((run) => (run.length === 1 ? `M${run[0]}h0.1` : `M${run.join("L")}`)).join("");
    line.path.setAttribute("d", path);
    line.area?.setAttribute("d", runs.map((run) => `M${run[0][0]},${HEIGHT}L${run.join("L")}L${run.at(-1)[0]},${HEIGHT}Z`).join(""));
  }
}
