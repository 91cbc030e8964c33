// Who translates: this browser, with onnxruntime-web in a worker. Put in the place of engine.js by `export --page`.

export const footer = "Your pictures stay on this device: everything is computed in this browser.";
export const takesFilms = false;

export class Failure extends Error {}

const LACKING = [
  ["WebAssembly", () => typeof WebAssembly === "object"],
  ["workers that draw (OffscreenCanvas)", () => typeof OffscreenCanvas === "function" && typeof Worker === "function"],
].filter(([, has]) => !has()).map(([name]) => name);

let worker = null;
const waiting = new Map(); // what was asked of the worker, by number
let asked = 0;

function started() {
  if (worker) return worker;
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => {
    const { done, failed, tell } = waiting.get(data.id) || {};
    if (data.tell) return tell?.(data.tell);
    waiting.delete(data.id);
    if (data.error) failed?.(new Failure(data.error));
    else done?.(data);
  };
  worker.onerror = (event) => end(new Failure(`the translator could not be started (${event.message || "worker.js"})`));
  return worker;
}

function end(error) {
  worker?.terminate();
  worker = null;
  for (const { failed } of waiting.values()) failed(error);
  waiting.clear();
}

export async function models() {
  if (LACKING.length) throw new Failure(`this browser lacks ${LACKING.join(" and ")}: a current one has it`);
  const answer = await fetch("models.json");
  if (!answer.ok) throw new Failure("models.json cannot be read: open this page through a web server, not as a file");
  return (await answer.json()).models;
}

/** A picture, translated: {blob, notes}. `options`: model, to, back. */
export async function translate(file, options, signal, tell) {
  const known = (await models()).find((model) => model.name === options.model);
  const steps = [options.to, ...(options.back ? [known.domains.find((name) => name !== options.to)] : [])];
  const id = ++asked;
  const stop = () => end(new DOMException("cancelled", "AbortError")); // a pass through the network cannot be stopped otherwise
  signal.throwIfAborted();
  signal.addEventListener("abort", stop);
  try {
    return await new Promise((done, failed) => {
      waiting.set(id, { done, failed, tell });
      started().postMessage({ id, file, networks: steps.map((to) => known.networks[to]) });
    });
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** Several pictures: {address, name, failed, notes, done}. */
export async function job(files, options, signal, tell) {
  const made = [], failed = [], notes = [];
  for (const [number, file] of files.entries()) {
    tell(number, files.length, "running");
    try {
      const { blob, notes: said } = await translate(file, options, signal);
      notes.push(...said.slice(0, -1).map((note) => `${file.name}: ${note}`)); // the last is how long it took
      const ending = blob.type.replace("image/", "").replace("jpeg", "jpg");
      made.push([`${String(number + 1).padStart(3, "0")}-${file.name.replace(/\.[^.]*$/, "")}.${ending}`, blob]);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      failed.push(`${file.name}: ${error.message}`);
    }
  }
  if (!made.length) throw new Failure(`none of the files could be translated: ${failed[0]}`);
  const address = URL.createObjectURL(await zip(made));
  return { address, name: `${options.to}.zip`, failed, notes, done: made.length };
}

/** An archive that only stores (PKWARE's APPNOTE 6.3): pictures are compressed already. */
async function zip(files) {
  const parts = [], index = [];
  let at = 0;
  for (const [name, blob] of files) {
    const data = new Uint8Array(await blob.arrayBuffer());
    const title = new TextEncoder().encode(name);
    const facts = [20, 0x0800, 0, 0, 0x21, [crc32(data)], [data.length], [data.length], title.length, 0];
    const head = numbers([[0x04034b50], ...facts]);
    index.push(numbers([[0x02014b50], 20, ...facts, 0, 0, 0, [0], [at]]), title);
    parts.push(head, title, data);
    at += head.length + title.length + data.length;
  }
  const size = index.reduce((sum, part) => sum + part.length, 0);
  return new Blob([...parts, ...index, numbers([[0x06054b50], 0, 0, files.length, files.length, [size], [at], 0])],
    { type: "application/zip" });
}

/** Numbers of 16 bits, and those in brackets of 32, little-endian. */
function numbers(values) {
  const bytes = values.flatMap((value) => {
    const [number, length] = Array.isArray(value) ? [value[0], 4] : [value, 2];
    return Array.from({ length }, (_, n) => (number >>> (8 * n)) & 255);
  });
  return Uint8Array.from(bytes);
}

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
  }
  return ~crc >>> 0;
}
