// What the daemon is asked. The token is kept for this tab only; with a certificate there is none.

const TOKEN = "vendue.token";
const PATIENCE_MS = 15_000;

/** An answer that is not what was asked for: `status` 0 where there was none at all. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (text) => sessionStorage.setItem(TOKEN, text),
  clear: () => sessionStorage.removeItem(TOKEN),
};

/** JSON whose whole numbers stay whole: beyond 2^53 they are BigInts. */
export function parse(text) {
  return JSON.parse(text, (_key, value, context) => {
    const exact = typeof value !== "number" || Number.isSafeInteger(value) || !/^-?\d+$/.test(context?.source);
    return exact ? value : BigInt(context.source);
  });
}

async function ask(method, path, body) {
  const headers = { accept: "application/json" };
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer, text;
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const said = body === undefined ? undefined : JSON.stringify(body);
    answer = await fetch(path, { method, headers, body: said, signal, cache: "no-store" });
    text = await answer.text();
  } catch (error) {
    throw new Refused(0, error.name === "TimeoutError" ? "no answer in time" : "no answer");
  }
  if (!answer.ok) throw new Refused(answer.status, reason(text) || `${answer.status} ${answer.statusText}`);
  return text ? parse(text) : null;
}

/** The daemon's own words for why not. */
function reason(text) {
  try {
    return parse(text).message;
  } catch {
    return text.slice(0, 500);
  }
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);
