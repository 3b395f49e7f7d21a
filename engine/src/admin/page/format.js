// Figures as people read them. Amounts come as integers of their smallest unit, some as BigInts.

const group = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const NONE = "–";

const missing = (value) => value === null || value === undefined;

/** A whole number in groups of three. */
export const count = (value) => (missing(value) ? NONE : group.format(value));

/** Exactly `value` / 10^digits. */
export function decimal(value, digits) {
  if (missing(value)) return NONE;
  const all = BigInt(value);
  const unit = 10n ** BigInt(digits);
  const [whole, rest] = [all / unit, (all < 0n ? -all : all) % unit];
  const part = rest.toString().padStart(digits, "0");
  const sign = all < 0n && whole === 0n ? "-" : "";
  return `${sign}${group.format(whole)}.${part}`;
}

export const credits = (milli) => decimal(milli, 3);
export const funds = (micro) => decimal(micro, 6);
export const thousandths = (milli) => decimal(milli, 3);
export const ticks = (price) => (price ? count(price) : NONE);
export const milliticks = (price) => (price ? decimal(price, 3) : NONE);
export const permille = (value) => (missing(value) ? NONE : `${decimal(value, 1)}%`);

/** Milli-units, mebibytes... of an amount of a resource in its smallest unit. */
export function amount(resource, size) {
  if (missing(size)) return NONE;
  switch (resource) {
    case "cpu": return `${count(size)}m`;
    case "memory": return bytes(size);
    case "block-io": return `${bytes(size)}/s`;
    case "network": return `${group.format(Number(size) / 1e6)} Mbit/s`;
    default: return count(size);
  }
}

/** What VRUs of so much each are of their resource; their number where that is not known. */
export function natural(resource, vru, size) {
  if (missing(vru)) return NONE;
  return missing(size) ? `${count(vru)} VRU` : amount(resource, vru * size);
}

export function bytes(value) {
  if (missing(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [at, size] = [0, Number(value)];
  for (; size >= 1024 && at < units.length - 1; at += 1) size /= 1024;
  return `${size.toFixed(size < 10 && at ? 1 : 0)} ${units[at]}`;
}

const padded = (value) => String(value).padStart(2, "0");

/** A moment of local time: with the date where it is not today's. */
export function moment(when) {
  if (missing(when) || when === 0 || when === "") return NONE;
  const date = new Date(typeof when === "string" ? when : Number(when));
  if (Number.isNaN(date.getTime()) || date.getTime() <= 0) return NONE;
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(padded).join(":");
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.getFullYear()}-${padded(date.getMonth() + 1)}-${padded(date.getDate())} ${time}`;
}

/** A time's two largest parts, as far as they are not zero. */
export function duration(ms) {
  if (missing(ms)) return NONE;
  const s = Math.floor(Number(ms) / 1000);
  const parts = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "min"], [s % 60, "s"]];
  const first = Math.max(0, parts.findIndex(([value]) => value > 0));
  const two = parts.slice(first, first + 2).filter(([value]) => value > 0);
  const shown = s === 0 ? parts.slice(-1) : two;
  return shown.map(([value, unit]) => `${value} ${unit}`).join(" ");
}
