"use strict";
// Before and after: the slider's value is where the edge lies.
for (const compare of document.querySelectorAll(".compare")) {
  const slider = compare.querySelector("input");
  const move = () => compare.style.setProperty("--at", slider.value + "%");
  slider.addEventListener("input", move);
  move(); // a browser may restore the value of an earlier visit
}

// Epoch by epoch: every still is one picture of all cells; a canvas shows its part of it.
const players = [...document.querySelectorAll(".player[data-frames]")].flatMap((section) => {
  const stored = document.getElementById(section.dataset.frames);
  return stored ? [player(section, JSON.parse(stored.textContent))] : [];
});

function player(section, frames) {
  const slider = section.querySelector("input");
  const output = section.querySelector("output");
  const button = section.querySelector("button");
  const parts = [...section.querySelectorAll("canvas")].map((canvas) => ({
    pen: canvas.getContext("2d"), box: canvas.dataset.box.split(" ").map(Number),
  }));
  const images = new Map();
  let timer = 0;

  function load(index) {
    if (!images.has(index)) {
      const image = new Image();
      image.src = frames[index].src;
      images.set(index, image.decode().then(() => image));
    }
    return images.get(index);
  }

  async function show(index) {
    slider.value = index;
    const name = `epoch ${frames[index].epoch}`;
    output.textContent = name;
    slider.setAttribute("aria-valuetext", name);
    const image = await load(index);
    if (Number(slider.value) !== index) return; // a newer one was asked for meanwhile
    for (const { pen, box: [left, top, right, bottom] } of parts) {
      pen.drawImage(image, left, top, right - left, bottom - top, 0, 0, right - left, bottom - top);
    }
    if (index + 1 < frames.length) load(index + 1);
  }

  function step(by) {
    stop();
    show(Math.min(frames.length - 1, Math.max(0, Number(slider.value) + by)));
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  }

  function play() {
    if (Number(slider.value) === frames.length - 1) show(0);
    button.textContent = "Pause";
    timer = setInterval(() => {
      const next = Number(slider.value) + 1;
      if (next < frames.length) show(next);
      else stop();
    }, 300);
  }

  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  button.addEventListener("click", () => (timer ? stop() : play()));
  show(frames.length - 1);
  return { section, step };
}

// Arrow keys step through the epochs wherever the page stands, when nothing else has the focus.
document.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
  if (!by || event.altKey || event.ctrlKey || event.metaKey || document.activeElement !== document.body) return;
  const seen = players.find(({ section }) => {
    const { top, bottom } = section.getBoundingClientRect();
    return top < innerHeight * 0.7 && bottom > innerHeight * 0.3;
  });
  if (seen) {
    seen.step(by);
    event.preventDefault();
  }
});

// Curves: the values nearest to the pointer, or to where the arrow keys went.
for (const chart of document.querySelectorAll(".chart")) {
  const drawing = chart.querySelector("svg");
  const lines = JSON.parse(drawing.dataset.values);
  const cross = drawing.querySelector(".cross");
  const dots = drawing.querySelectorAll(".dot");
  const values = chart.querySelectorAll(".legend b");
  const readout = chart.querySelector(".readout");
  const longest = lines.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points;
  let at = longest.length;

  const nearest = (points, x) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));

  function tell(x) {
    const [left, , epoch] = nearest(longest, x);
    cross.setAttribute("x1", left);
    cross.setAttribute("x2", left);
    cross.style.visibility = "visible";
    lines.forEach(({ points }, n) => {
      const [px, py, , text] = nearest(points, left);
      dots[n].setAttribute("cx", px);
      dots[n].setAttribute("cy", py);
      dots[n].style.visibility = "visible";
      values[n].textContent = text;
    });
    readout.textContent = `epoch ${epoch}`;
  }

  function forget() {
    cross.style.visibility = "hidden";
    dots.forEach((dot) => (dot.style.visibility = "hidden"));
    values.forEach((value) => (value.textContent = ""));
    readout.textContent = "";
  }

  drawing.addEventListener("pointermove", (event) => {
    const { left, width } = drawing.getBoundingClientRect();
    tell(((event.clientX - left) / width) * drawing.viewBox.baseVal.width);
  });
  drawing.addEventListener("pointerleave", forget);
  drawing.addEventListener("blur", forget);
  drawing.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!by) return;
    at = Math.min(longest.length - 1, Math.max(0, at + by));
    tell(longest[at][0]);
    event.preventDefault();
  });
}
