// Who translates: the server that this page comes from.

export const footer = "Pictures go to this server and nowhere else; they are forgotten once they are translated, films and "
  + "archives after an hour.";
export const takesFilms = true;

export class Failure extends Error {
  constructor(sentence, wait = 0) {
    super(sentence);
    this.wait = wait; // seconds after which to try again
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached: is it still running?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  const wait = options.method === "POST" ? Number(answer.headers.get("Retry-After")) : 0; // nothing has begun yet
  throw new Failure(told.error || `the server answers ${answer.status}`, wait);
}

export async function models() {
  const { models } = await (await ask("v1/models")).json();
  return Promise.all(models.map(async (model) => ({ ...model, card: await (await ask(model.card)).json() })));
}

function query(options) {
  const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== "");
  return "?" + new URLSearchParams(given);
}

/** A picture, translated: {blob, notes}. `options`: model, to, format, back. */
export async function translate(file, options, signal) {
  const form = new FormData();
  form.append("image", file, file.name);
  const answer = await ask("v1/translate" + query(options), { method: "POST", body: form, signal });
  return { blob: await answer.blob(), notes: JSON.parse(answer.headers.get("Viceversa-Notes") || "[]") };
}

/** A film, an archive or several pictures: {address, name, failed, notes, done}. `tell(done, total, state)`. */
export async function job(files, options, signal, tell) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  const answer = await ask("v1/jobs" + query(options), { method: "POST", body: form, signal });
  let state = await answer.json();
  const address = `v1/jobs/${state.id}`;
  const cancel = () => fetch(address, { method: "DELETE", keepalive: true }).catch(() => {});
  signal.addEventListener("abort", cancel);
  try {
    for (let pause = 150; state.state === "waiting" || state.state === "running"; pause = Math.min(1000, pause * 1.2)) {
      tell(state.done, state.total, state.state);
      await new Promise((done) => setTimeout(done, pause));
      state = await (await ask(address, { signal })).json();
    }
  } catch (error) {
    if (!signal.aborted) cancel();
    throw error;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
  if (state.state !== "done") throw new Failure(state.error || "the work was cancelled");
  return { address: state.result.slice(1), name: state.name, failed: state.failed, notes: state.notes, done: state.done - state.failed.length };
}
