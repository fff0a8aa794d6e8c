// Format figures and times for people. An unknown figure is a dash.

export const NONE = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

// Return a number with three digits and a unit from `steps`, pairs of factor and name, largest first.
function scaled(value, steps) {
  for (const [factor, unit] of steps) {
    if (Math.abs(value) >= factor * 0.9995) {
      const part = value / factor;
      return `${part >= 99.95 || Math.abs(part - Math.round(part)) < 1e-6 ? whole.format(part) : oneDigit.format(part)} ${unit}`;
    }
  }
  const [factor, unit] = steps.at(-1);
  return `${whole.format(value / factor)} ${unit}`;
}

export function count(value) {
  if (!known(value)) return NONE;
  return value < 1e6 ? whole.format(value) : scaled(value, [[1e9, "G"], [1e6, "M"]]);
}

export function rate(value) {
  if (!known(value)) return NONE;
  return value > 0 && value < 9.95 ? oneDigit.format(value) : count(value);
}

export function bytes(value) {
  if (!known(value)) return NONE;
  return value < 1000 ? `${whole.format(value)} B` : scaled(value, [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]);
}

export function duration(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds === 0) return "0 s";
  return scaled(seconds, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]);
}

export function share(part) {
  return known(part) ? `${whole.format(part * 100)} %` : NONE;
}

export function figure(value, unit) {
  if (unit === "bytes") return bytes(value);
  if (unit === "seconds") return duration(value);
  if (unit === "yes") return value ? "yes" : "no";
  return count(value);
}

const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export function clock(unixSeconds, { milliseconds = false } = {}) {
  const text = time.format(unixSeconds * 1000);
  return milliseconds ? `${text}.${String(Math.floor((unixSeconds * 1000) % 1000)).padStart(3, "0")}` : text;
}

export function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
