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
  const kept = section.querySelector(".kept");
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
    if (kept) {
      kept.textContent = frames[index].kept
        ? `The model of epoch ${frames[index].epoch} is kept: viceversa translate ${kept.dataset.run} --epoch ${frames[index].epoch}`
        : `The model of epoch ${frames[index].epoch} was not kept.`;
    }
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

// Curves, drawn by uPlot. What lies at the pointer, or where the arrow keys went, is told in the legend.
const figures = (value) => (value == null ? "" : value.toLocaleString("en", { maximumSignificantDigits: 3, minimumSignificantDigits: 3 }));

for (const chart of document.querySelectorAll(".chart")) {
  const { names, tones, faint, curves, range, level, mark } = JSON.parse(chart.querySelector("script").textContent);
  const place = chart.querySelector(".plot");
  const data = uPlot.join(curves);
  const reach = data[0].at(-1) || 1;
  let plot, at = data[0].length;

  // Curves have points at different epochs: of each the nearest is told.
  function nearest(plot, series, index) {
    const values = plot.data[series];
    for (let away = 0; away < values.length; away++) {
      for (const i of [index - away, index + away]) if (values[i] != null) return i;
    }
    return index;
  }

  // A value with a meaning, dotted, and the epoch that matters, upright; each with its name.
  function annotate({ ctx, bbox, valToPos }, soft, font) {
    const { left, top, width, height } = bbox;
    ctx.save();
    Object.assign(ctx, { strokeStyle: soft, fillStyle: soft, font, lineWidth: devicePixelRatio });
    const line = (x, y, u, v) => { ctx.beginPath(); ctx.moveTo(x, y); ctx.lineTo(u, v); ctx.stroke(); };
    if (mark) {
      const x = valToPos(mark[0], "x", true), before = x > left + width / 2;
      line(x, top, x, top + height);
      ctx.textAlign = before ? "right" : "left";
      ctx.fillText(mark[1], x + (before ? -6 : 6) * devicePixelRatio, top + 12 * devicePixelRatio);
    }
    if (level) {
      const y = valToPos(level[0], "y", true);
      ctx.setLineDash([devicePixelRatio, 4 * devicePixelRatio]);
      line(left, y, left + width, y);
      ctx.textAlign = "right";
      ctx.fillText(level[1], left + width, y - 6 * devicePixelRatio);
    }
    ctx.restore();
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const tone = (name) => style.getPropertyValue(`--${name}`).trim();
    const font = `11px ${tone("sans")}`;
    const axis = { font, stroke: tone("soft"), grid: { stroke: tone("hair"), width: 1 }, ticks: { show: false } };
    plot?.destroy();
    plot = new uPlot({
      width: place.clientWidth, height: 210, padding: [8, 8, 0, 0],
      scales: { x: { time: false, range: [0, reach] }, y: { range } },
      axes: [{ ...axis, grid: { show: false }, size: 26, gap: 4 }, { ...axis, size: 48, gap: 6 }],
      series: [{ label: "epoch", value: (_, x) => (x == null ? "" : String(+x.toFixed(2))) }, ...names.map((label, n) => ({
        label, stroke: tone(`tone-${tones[n] % 6}`), width: faint[n] ? 1 : 1.8, spanGaps: true,
        points: { show: curves[n][0].length === 1 }, value: (_, y) => figures(y),
      }))],
      cursor: { y: false, dataIdx: nearest, points: { size: 8 } },
      hooks: { draw: [(u) => annotate(u, tone("soft"), `${11 * devicePixelRatio}px ${tone("sans")}`)] },
    }, data, place);
  }

  draw();
  new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: 210 })).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  place.addEventListener("blur", () => plot.setCursor({ left: -10, top: -10 }));
  place.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!by) return;
    at = Math.min(data[0].length - 1, Math.max(0, at + by));
    plot.setCursor({ left: plot.valToPos(data[0][at], "x"), top: 1 });
    event.preventDefault();
  });
}
