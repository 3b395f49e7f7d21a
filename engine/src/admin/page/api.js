// What the daemon is asked. The token is kept for this tab only; with a certificate there is none.

const TOKEN = "vendue.token";
const PATIENCE_MS = 15_000;

/** An answer that is not what was asked for: `status` 0 where there was none at all, `code` the daemon's number for why. */
export class Refused extends Error {
  constructor(status, text, code = 0) {
    super(text);
    [this.status, this.code] = [status, code];
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
  if (!answer.ok) {
    const { message, code } = problem(text);
    throw new Refused(answer.status, message || `${answer.status} ${answer.statusText}`, code);
  }
  return text ? parse(text) : null;
}

/** Why not: the daemon's own words, and its number for that. */
function problem(text) {
  try {
    return parse(text);
  } catch {
    return { message: text.slice(0, 500) };
  }
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);
