// The page: what a person chooses and sees. Who translates is in engine.js.
import * as engine from "./engine.js";

const at = (id) => document.getElementById(id);
const SAMPLES = [["city", "A city"], ["earth-by-day", "Earth by day"], ["earth-by-night", "Earth by night"]];
const ENDINGS = { "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/tiff": "tiff", "image/bmp": "bmp",
  "image/gif": "gif" };

let models = [];
let model = null;   // the chosen one
let way = null;     // its direction: {from, to}
let picture = null; // what is on the stage: {file, name, film, before, there, back}
let running = null; // AbortController of what is being waited for
let wanted = null;  // the latest wish: what comes of an older one is no longer shown

const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
const sentence = (text) => capital(text.trim()) + (/[.!?]$/.test(text.trim()) ? "" : ".");
const stem = (name) => name.replace(/\.[^.]*$/, "") || "picture";

function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

// ---- models and directions

function showModels() {
  at("models").hidden = models.length < 2;
  const cards = models.map((one, index) => {
    const input = element("input", { type: "radio", name: "model", value: one.name, checked: index === 0 });
    input.addEventListener("change", () => choose(one));
    const said = one.card.about || one.card.data;
    const text = element("span", {}, element("strong", { textContent: one.domains.join(" ⇄ ") }),
      element("small", { textContent: typeof said === "string" ? said : one.name }));
    return element("label", { className: "card" }, input,
      element("img", { src: one.picture, alt: "", loading: "lazy", width: 320, height: 200 }), text);
  });
  document.querySelector(".cards").replaceChildren(...cards);
}

function choose(chosen) {
  model = chosen;
  way = model.directions[0];
  const two = model.directions.length > 1;
  at("title").replaceChildren(capital(model.domains[0]), " ",
    element("span", { className: "turn", textContent: two ? "⇄" : "→" }), " ", model.domains[1]);
  document.title = `${model.domains.join(two ? " ⇄ " : " → ")} · viceversa`;
  const ways = model.directions.map((one, index) => {
    const input = element("input", { type: "radio", name: "way", value: one.to, checked: index === 0 });
    input.addEventListener("change", () => { way = one; again(); });
    return element("label", {}, input, `${one.from} → ${one.to}`);
  });
  const legend = element("legend", { className: "unseen", textContent: "Direction" });
  document.querySelector(".ways").replaceChildren(legend, ...ways);
  showAbout();
  again();
}

const LABELS = { data: "Trained on", recipe: "How", fails: "Fails at", licence: "Licence" };

function showAbout() {
  const rows = [];
  const add = (label, text) => rows.push(element("dt", { textContent: label }), element("dd", { textContent: text }));
  for (const [key, label] of Object.entries(LABELS)) {
    const said = model.card[key];
    if (said) add(label, Array.isArray(said) ? said.join("; ") : typeof said === "object" ? said.text || JSON.stringify(said) : said);
  }
  const training = model.card.training || {};
  const facts = ["epochs", "steps"].filter((key) => Number.isFinite(training[key]))
    .map((key) => `${training[key].toLocaleString("en")} ${key}`);
  if (facts.length) add("Training", facts.join(", "));
  document.querySelector(".about").replaceChildren(...rows);
  const links = [];
  const open = { target: "_blank", rel: "noopener noreferrer" };
  if (model.report) links.push(element("a", { href: model.report, textContent: "Report of its training", ...open }));
  for (const [to, film] of Object.entries(model.films || {})) {
    links.push(element("a", { href: film, textContent: `Film of its training, to ${to}`, ...open }));
  }
  document.querySelector(".links").replaceChildren(...links);
  at("about").hidden = !rows.length && !links.length;
}

// ---- waiting, and what goes wrong

function fail(error) {
  at("error").textContent = sentence(error.message || String(error));
  at("error").hidden = false;
}

/** Do some work that can be cancelled, and show that it goes on. Undefined where it failed or was cancelled. */
async function busy(text, work) {
  running?.abort();
  const mine = running = new AbortController();
  at("error").hidden = true;
  at("progress").removeAttribute("value");
  at("status").textContent = text;
  at("work").hidden = false;
  const tell = (done, total, state) => {
    if (mine !== running) return;
    if (typeof done === "string") return void (at("status").textContent = `${capital(done)} …`);
    if (total) Object.assign(at("progress"), { max: total, value: done });
    at("status").textContent = state === "waiting" ? "Waiting for its turn …" : `${text} ${done}${total ? ` of ${total}` : ""}`;
  };
  try {
    for (let tries = 0; ; tries++) {
      try {
        return await work(mine.signal, tell);
      } catch (error) {
        if (!(error.wait > 0) || tries >= 5) throw error;
        at("status").textContent = `The server is busy; trying again in ${error.wait} s …`;
        await new Promise((done) => setTimeout(done, 1000 * error.wait));
        mine.signal.throwIfAborted();
        at("status").textContent = text;
      }
    }
  } catch (error) {
    if (error.name !== "AbortError" && mine === running) fail(error);
    return undefined;
  } finally {
    if (mine === running) {
      running = null;
      at("work").hidden = true;
    }
  }
}

// ---- pictures come in

async function take(files) {
  files = [...files];
  if (!files.length || !model) return;
  clear();
  const film = files.length === 1 && engine.takesFilms && (files[0].type.startsWith("video/") || await moves(files[0]));
  const archive = files.length === 1 && /zip/.test(files[0].type);
  if (files.length > 1 || archive) return takeSeveral(files);
  picture = { file: files[0], name: files[0].name || "picture.jpg", film };
  await show();
}

/** Does this GIF or WebP move? */
async function moves(file) {
  if (!/gif|webp/.test(file.type)) return false;
  const bytes = new Uint8Array(await file.slice(0, 1 << 20).arrayBuffer());
  const text = new TextDecoder("latin1").decode(bytes);
  return file.type === "image/webp" ? text.includes("ANIM") : text.split("\x21\xf9\x04").length > 2;
}

function clear() {
  running?.abort();
  wanted = null;
  for (const made of Object.values(picture || {})) if (made?.address?.startsWith("blob:")) URL.revokeObjectURL(made.address);
  picture = null;
  for (const id of ["stage", "batch", "new", "error", "work"]) at(id).hidden = true;
  at("drop").hidden = false;
}

/** The same picture by the direction or the model chosen now. */
async function again() {
  if (!at("batch").hidden) clear();
  if (!picture) return;
  picture.there = picture.back = undefined;
  await show();
}

const local = (blob) => ({ blob, address: URL.createObjectURL(blob) });

/** Translate what is on the stage, there or there and back, and show it. */
async function show(view = "there") {
  const mine = picture, wish = wanted = {};
  running?.abort();
  at("drop").hidden = true;
  at("batch").hidden = true;
  mine.before ??= local(mine.file);
  const options = { model: model.name, to: way.to, back: view === "back" ? "true" : undefined };
  at("compare").classList.add("busy");
  const text = view === "back" ? "And back …" : "Translating …";
  const result = mine[view] ?? await busy(text, (signal, tell) => made(mine, options, signal, tell));
  if (wish !== wanted) return;
  mine[view] = result;
  at("compare").classList.remove("busy");
  if (!result) {
    if (at("stage").hidden || view === "there") {
      at("stage").hidden = true;
      at("drop").hidden = false;
      picture = null;
    }
    return;
  }
  await place(mine, view);
}

async function made(mine, options, signal, tell) {
  if (mine.film) {
    const done = await engine.job([mine.file], options, signal, tell);
    return { address: done.address, name: done.name, notes: done.notes };
  }
  const { blob, notes } = await engine.translate(mine.file, options, signal, tell);
  const result = { ...local(blob), notes, name: `${stem(mine.name)}.${options.to}.${ENDINGS[blob.type] || "png"}` };
  if (blob.type === "image/tiff") { // no browser but one shows it
    result.shown = local((await engine.translate(mine.file, { ...options, format: "png" }, signal)).blob);
  }
  return result;
}

/** Can this browser show it? Known once its size is. Asked in the moment that its address is set: an event that is
 * over is not told again. */
function shows(one) {
  const known = one.decode ? one.decode() : new Promise((yes, no) => { one.onloadedmetadata = yes; one.onerror = no; });
  return known.then(() => true, () => false);
}

async function place(mine, view) {
  const result = mine[view], wish = wanted;
  const there = view === "there";
  const from = way.from, to = there ? way.to : `${way.from} again`;
  const playing = mine.film && !/\.(gif|webp)$/.test(result.name);
  const kind = playing ? "video" : "img";
  const after = element(kind, { className: "after" });
  const before = element(kind, { className: "before" });
  if (playing) for (const film of [after, before]) Object.assign(film, { muted: true, loop: true, playsInline: true, preload: "auto" });
  else Object.assign(after, { alt: `The picture, translated to ${there ? way.to : `${way.to} and back`}` }),
    Object.assign(before, { alt: `The picture as it was, ${from}` });
  after.src = (result.shown || result).address;
  before.src = mine.before.address;
  const [showsAfter, showsBefore] = await Promise.all([after, before].map(shows));
  const alone = !showsBefore;
  if (wish !== wanted) return;
  if (!showsAfter && !playing) fail(new Error("this browser cannot show the result: download it"));
  const compare = at("compare");
  compare.querySelectorAll("img, video").forEach((old) => old.remove());
  compare.prepend(after, ...(alone ? [] : [before]));
  compare.classList.toggle("alone", alone);
  compare.querySelector(".left").textContent = from;
  compare.querySelector(".right").textContent = to;
  at("slider").setAttribute("aria-label", `How much of ${from} is shown, the rest is ${to}`);
  slide();
  for (const [id, pressed, text] of [["there", there, capital(way.to)], ["back", !there, `and back to ${way.from}`]]) {
    at(id).textContent = text;
    at(id).setAttribute("aria-pressed", pressed);
  }
  at("back").hidden = model.directions.length < 2 || !!mine.film;
  at("play").hidden = !playing;
  at("play").textContent = "Play";
  Object.assign(at("download"), { href: result.address, download: result.name });
  const [width, height] = playing ? [after.videoWidth, after.videoHeight] : [after.naturalWidth, after.naturalHeight];
  compare.style.width = `min(100%, ${width / height} * min(74vh, 46rem), ${2 * width}px)`; // small ones twice as large
  const notes = [result.name, `${width} × ${height}`, ...(result.notes || [])];
  if (alone) notes.push("this browser cannot show the picture as it was");
  at("shown").textContent = notes.join(" · ");
  at("stage").hidden = at("new").hidden = false;
  if (playing) play();
}

// ---- several at once

async function takeSeveral(files) {
  const wish = wanted = {};
  at("drop").hidden = true;
  const done = await busy("Translating …", (signal, tell) => engine.job(files, { model: model.name, to: way.to }, signal, tell));
  if (wish !== wanted) return;
  if (!done) return void (at("drop").hidden = false);
  at("batch-said").textContent = `${done.done} ${done.done === 1 ? "picture is" : "pictures are"} now ${way.to}`
    + (done.failed.length ? `, ${done.failed.length} could not be translated:` : ".");
  at("batch-failed").replaceChildren(
    ...[...done.failed, ...done.notes].map((text) => element("li", { textContent: sentence(text) })));
  Object.assign(at("batch-download"), { href: done.address, download: done.name, textContent: `Download ${done.name}` });
  at("batch").hidden = at("new").hidden = false;
}

// ---- the slider, and films under it

function slide() {
  const value = at("slider").value;
  at("compare").style.setProperty("--at", value + "%");
  at("slider").setAttribute("aria-valuetext", `${value}% ${at("compare").querySelector(".left").textContent}`);
}

function play() {
  const films = [...at("compare").querySelectorAll("video")];
  if (!films.length) return;
  if (films[0].paused) {
    for (const film of films) film.currentTime = films[0].currentTime;
    Promise.all(films.map((film) => film.play())).catch(() => {});
  } else films.forEach((film) => film.pause());
  at("play").textContent = films[0].paused ? "Play" : "Pause";
}

// ---- the camera

async function openCamera() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
  } catch (error) {
    return fail(new Error(`the camera cannot be used (${error.message || error.name}): choose a file instead`));
  }
  at("finder").srcObject = stream;
  at("camera").showModal();
  at("camera").onclose = () => {
    stream.getTracks().forEach((track) => track.stop());
    at("finder").srcObject = null;
  };
}

async function shoot() {
  const finder = at("finder");
  if (!finder.videoWidth) await new Promise((ready) => { finder.onloadeddata = ready; });
  const canvas = element("canvas", { width: finder.videoWidth, height: finder.videoHeight });
  canvas.getContext("2d").drawImage(finder, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  at("camera").close();
  await take([new File([blob], "photo.jpg", { type: "image/jpeg" })]);
}

// ---- everything together

function listen() {
  at("files").accept = "image/*" + (engine.takesFilms ? ",video/*,.zip,.mkv" : "");
  at("pick").onclick = () => at("files").click();
  for (const id of ["files", "shot"]) at(id).onchange = (event) => { take(event.target.files); event.target.value = ""; };
  at("take").onclick = () => navigator.mediaDevices?.getUserMedia ? openCamera() : at("shot").click();
  at("shoot").onclick = shoot;
  at("shut").onclick = () => at("camera").close();
  at("new").onclick = () => { clear(); at("pick").focus(); };
  at("cancel").onclick = () => { running?.abort(); if (at("stage").hidden) clear(); };
  at("there").onclick = () => show("there");
  at("back").onclick = () => show("back");
  at("play").onclick = play;
  at("slider").oninput = slide;
  addEventListener("paste", (event) => take(event.clipboardData.files));
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    addEventListener(name, (event) => {
      event.preventDefault();
      at("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
      if (name === "drop") take(event.dataTransfer.files);
    });
  }
  const samples = SAMPLES.map(([name, text]) => {
    const image = element("img", { src: `samples/${name}.jpg`, alt: "", width: 118, height: 78 });
    const button = element("button", { type: "button" }, image, element("span", { textContent: text }));
    button.onclick = async () => {
      const blob = await (await fetch(image.src)).blob();
      take([new File([blob], `${name}.jpg`, { type: "image/jpeg" })]);
    };
    return button;
  });
  document.querySelector(".samples").replaceChildren(...samples);
  at("foot").textContent = `Made by viceversa. ${engine.footer}`;
}

async function start() {
  listen();
  try {
    models = await engine.models();
  } catch (error) {
    return fail(error);
  }
  showModels();
  choose(models[0]);
  document.documentElement.dataset.ready = "true";
}

start();
