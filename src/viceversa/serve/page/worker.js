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
async function run(session, network, image) {
  const { width, height, data } = image;
  const halvings = Math.floor(Math.log2(Math.max(1, (2 * Math.min(width, height)) / (network.halved_from ?? Infinity))));
  const made = await seen(session, network, given(image, network.channels_in, 2 ** halvings), halvings);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = y * made.width + x, at = 4 * (y * width + x);
      for (let c = 0; c < 3; c++) data[at + c] = made.planes[c % made.planes.length][from] * 127.5 + 127.5; // clamped, rounded
    }
  }
}

// From here on a picture is {width, height, planes}: a Float32Array a channel, in [-1, 1].

/** What is given to the network, its sides made multiples of `multiple`. */
function given({ width, height, data }, channels, multiple) {
  const whole = blank(channels, width, height);
  for (let at = 0; at < width * height; at++) {
    const [red, green, blue] = [data[4 * at], data[4 * at + 1], data[4 * at + 2]];
    if (channels === 1) {
      const gray = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
      whole.planes[0][at] = (gray - 127.5) / 127.5;
    } else {
      [red, green, blue].forEach((level, c) => { whole.planes[c][at] = (level - 127.5) / 127.5; });
    }
  }
  return enlarged(whole, 1, multiple);
}

function blank(channels, width, height) {
  return { width, height, planes: Array.from({ length: channels }, () => new Float32Array(width * height)) };
}

/** With sides of at least `smallest`, and multiples of `multiple`. */
function enlarged(image, smallest, multiple) {
  const columns = extent(image.width, smallest, multiple), rows = extent(image.height, smallest, multiple);
  if (columns.length === image.width && rows.length === image.height) return image;
  const larger = blank(image.planes.length, columns.length, rows.length);
  image.planes.forEach((plane, c) => {
    let to = 0;
    for (const y of rows) for (const x of columns) larger.planes[c][to++] = plane[y * image.width + x];
  });
  return larger;
}

/** Which pixel stands where along a side that is made long enough: by repetition, then by reflection. */
function extent(side, smallest, multiple) {
  const places = Array.from({ length: Math.max(side, smallest) }, (_, n) => Math.min(n, side - 1));
  for (let n = places.length - 2; places.length % multiple; n--) places.push(places[n]);
  return places;
}

/** Translated by the network, which sees it after so many halvings: things are as large then as they were in training. */
async function seen(session, network, image, halvings) {
  if (halvings) {
    const half = halved(image);
    return raised(await seen(session, network, half, halvings - 1), image, half);
  }
  const { width, height, planes } = enlarged(image, network.smallest, network.multiple);
  const values = new Float32Array(planes.length * width * height);
  planes.forEach((plane, c) => values.set(plane, c * width * height));
  const { translation } = await session.run({ image: new ort.Tensor("float32", values, [1, planes.length, height, width]) });
  const made = blank(network.channels_out, image.width, image.height);
  made.planes.forEach((plane, c) => {
    for (let y = 0; y < image.height; y++) {
      const from = (c * height + y) * width;
      plane.set(translation.data.subarray(from, from + image.width), y * image.width);
    }
  });
  translation.dispose();
  return made;
}

/** Each pixel the mean of four. */
function halved({ width, height, planes }) {
  const half = blank(planes.length, width / 2, height / 2);
  planes.forEach((plane, c) => {
    let to = 0;
    for (let y = 0; y < height; y += 2) {
      for (let at = y * width; at < (y + 1) * width; at += 2) {
        half.planes[c][to++] = (plane[at] + plane[at + 1] + plane[at + width] + plane[at + width + 1]) / 4;
      }
    }
  });
  return half;
}

/** `small` doubled, and what `image` has beyond its `half`: fainter where it got darker (model/pyramid.py, raised). */
function raised(small, image, half) {
  const BLACK = 1.1;
  const { width, height } = image, channels = small.planes.length;
  const made = blank(channels, width, height), same = channels === image.planes.length;
  const mean = (planes, at) => planes.reduce((sum, plane) => sum + plane[at], 0) / planes.length;
  for (let y = 0; y < height; y++) {
    const colours = doubled(small, y), before = doubled(half, y);
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      for (let c = 0; c < channels; c++) {
        const was = same ? before[c][x] : mean(before, x), is = same ? image.planes[c][at] : mean(image.planes, at);
        const times = Math.min(1, Math.max(0, (colours[c][x] + BLACK) / (was + BLACK)));
        made.planes[c][at] = colours[c][x] + (is - was) * times;
      }
    }
  }
  return made;
}

/** Row `y` of each channel of `small` at twice its size, interpolated linearly. */
function doubled({ width, height, planes }, y) {
  const beside = (n, sides) => Math.min(sides - 1, Math.max(0, (n >> 1) + (n & 1 ? 1 : -1)));
  const here = (y >> 1) * width, there = beside(y, height) * width;
  return planes.map((plane) => {
    const row = new Float32Array(2 * width);
    const level = (x) => 0.75 * plane[here + x] + 0.25 * plane[there + x];
    for (let x = 0; x < row.length; x++) row[x] = 0.75 * level(x >> 1) + 0.25 * level(beside(x, width));
    return row;
  });
}
