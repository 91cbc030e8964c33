// The network's thread in the browser: pictures in, pictures out, as `viceversa translate` does it in float32.
import * as ort from "./runtime/ort.js";

ort.env.wasm.wasmPaths = { mjs: new URL("runtime/wasm.js", location.href).href, wasm: new URL("runtime/ort.wasm", location.href).href };
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
ort.env.logLevel = "error";

const WRITTEN = new Set(["image/jpeg", "image/png", "image/webp"]);
const sessions = new Map();
let turn = Promise.resolve(); // one picture after the other

onmessage = ({ data }) => { turn = turn.then(() => answer(data)); };

async function answer({ id, file, networks }) {
  try {
    postMessage({ id, ...(await translate(file, networks, (tell) => postMessage({ id, tell }))) });
  } catch (error) {
    const text = String(error?.message || error);
    const memory = /alloc|memory|out of range/i.test(text);
    postMessage({ id, error: memory ? "this browser has no room for so large a picture: try a smaller one" : text });
  }
}

async function translate(file, networks, tell) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("this is not a picture that this browser can read");
  }
  const notes = [];
  let { width, height } = bitmap;
  const most = Math.min(...networks.map((network) => network.most));
  if (width * height > most) {
    const factor = Math.sqrt(most / (width * height));
    [width, height] = [Math.max(1, Math.floor(width * factor)), Math.max(1, Math.floor(height * factor))];
    notes.push(`made smaller from ${bitmap.width} × ${bitmap.height}, which is too large for a browser`);
  }
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const image = pen.getImageData(0, 0, width, height);
  const began = performance.now();
  for (const network of networks) await run(await session(network, tell), network, image);
  notes.push(`${((performance.now() - began) / 1000).toFixed(1)} s on this device`);
  pen.putImageData(image, 0, 0);
  const type = WRITTEN.has(file.type) ? file.type : "image/png";
  return { blob: await canvas.convertToBlob({ type, quality: 0.9 }), notes };
}

function session(network, tell) {
  if (!sessions.has(network.file)) {
    tell("loading the model");
    const loading = ort.InferenceSession.create(network.file, { executionProviders: ["wasm"] });
    sessions.set(network.file, loading);
    loading.catch(() => sessions.delete(network.file));
  }
  return sessions.get(network.file);
}

/** Translate the pixels of `image` in place. */
async function run(network, { multiple, smallest, channels_in, channels_out }, image) {
  const { width, height, data } = image;
  const columns = extent(width, smallest, multiple), rows = extent(height, smallest, multiple);
  const plane = rows.length * columns.length;
  const given = new Float32Array(channels_in * plane);
  let to = 0;
  for (const y of rows) {
    for (const x of columns) {
      const from = 4 * (y * width + x);
      if (channels_in === 1) {
        const gray = (data[from] * 19595 + data[from + 1] * 38470 + data[from + 2] * 7471 + 0x8000) >> 16;
        given[to] = (gray - 127.5) / 127.5;
      } else {
        for (let c = 0; c < 3; c++) given[c * plane + to] = (data[from + c] - 127.5) / 127.5;
      }
      to++;
    }
  }
  const input = new ort.Tensor("float32", given, [1, channels_in, rows.length, columns.length]);
  const { translation } = await network.run({ image: input });
  const made = translation.data;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = y * columns.length + x, at = 4 * (y * width + x);
      for (let c = 0; c < 3; c++) data[at + c] = made[(c % channels_out) * plane + from] * 127.5 + 127.5; // clamped, rounded
    }
  }
  translation.dispose();
}

/** Which pixel stands where along a side that is made long enough: by repetition, then by reflection. */
function extent(side, smallest, multiple) {
  const places = Array.from({ length: Math.max(side, smallest) }, (_, n) => Math.min(n, side - 1));
  for (let n = places.length - 2; places.length % multiple; n--) places.push(places[n]);
  return places;
}
