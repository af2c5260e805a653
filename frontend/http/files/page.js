// The page of `make up`: classify a photo, see its collage, watch p50 and p99 with and without the frontend's policy.
"use strict";

const WINDOW_S = 30; // quantiles are of the answers of this time
const SHOWN_S = 120; // the chart's width
const EVERY_MS = 500;
const TICKS = [1, 3, 10, 30, 100, 300, 1000, 3000, 10000];

const $ = (id) => document.getElementById(id);
const ms = (seconds) => (1000 * seconds < 10 ? (1000 * seconds).toFixed(1) : (1000 * seconds).toFixed(0)) + " ms";
const percent = (share) => (100 * share).toFixed(1) + " %";
let labels = [];
let answers = []; // {side, source, at, total_s}
let last = 0;
let sent = null;

async function json(path, options = {}) {
  const response = await fetch(path, options);
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

function quantile(sorted, share) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] : null;
}

// One photo

async function classify(blob) {
  $("shown").src = URL.createObjectURL(blob);
  $("answer").hidden = false;
  const began = performance.now();
  try {
    const told = await json("/playground/predict?top_k=3", { method: "POST", body: blob });
    const waited = (performance.now() - began) / 1000;
    const rows = told.classes.map((one) => [one.label, percent(one.probability)]);
    rows.push(["answered by", told.source + (told.coded_confidence === null ? "" : `, confidence ${percent(told.coded_confidence)}`)]);
    rows.push(["inference", ms(told.inference_s)], ["in the worker's queue", ms(told.queue_s)]);
    rows.push(["in the frontend", ms(told.total_s)], ["in this browser", ms(waited)]);
    rows.push(["model", `${told.model_name} ${told.model_version}`]);
    fill($("told"), [], rows);
    await showGroup(told.group_id, told.cell);
  } catch (error) {
    fill($("told"), [], [["not answered", error.message]]);
  }
}

async function showGroup(id, cell) {
  const canvas = $("collage");
  canvas.hidden = true;
  if (!id) {
    $("said").textContent = "It was answered before it joined a group: no collage was needed. Try again while samples are sent and a worker straggles.";
    return;
  }
  let group = await json(`/playground/groups/${encodeURIComponent(id)}`);
  for (let tries = 0; group.state === "under way" && tries < 20; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    group = await json(`/playground/groups/${encodeURIComponent(id)}`);
  }
  if (!group.image) {
    $("said").textContent = "The group had too few members for its code.";
    return;
  }
  const picture = new Image();
  picture.src = "data:image/png;base64," + group.image;
  await picture.decode();
  canvas.hidden = false;
  const drawing = canvas.getContext("2d");
  const side = canvas.width;
  const style = getComputedStyle(document.documentElement);
  drawing.imageSmoothingEnabled = false;
  drawing.clearRect(0, 0, side, side);
  const scale = side / Math.max(picture.width, picture.height);
  drawing.drawImage(picture, 0, 0, scale * picture.width, scale * picture.height);
  if (group.code !== "collage") {
    $("said").textContent = `${Object.keys(group.members).length} photos in one redundant input (${group.code}), yours among them. `
      + (group.state === "answered" ? "Its answer came back." : "All photos were answered by their own workers, so its run was stopped.");
    return;
  }
  drawing.font = "bold 13px system-ui, 'DejaVu Sans', sans-serif";
  drawing.textBaseline = "top";
  for (const found of group.boxes) {
    const [left, top, right, bottom] = found.box.map((share) => share * side);
    drawing.strokeStyle = style.getPropertyValue("--box");
    drawing.lineWidth = 2;
    drawing.strokeRect(left + 2, top + 2, right - left - 4, bottom - top - 4);
    const text = `${found.label} ${found.confidence.toFixed(2)}`;
    drawing.fillStyle = "rgba(0, 0, 0, 0.72)";
    drawing.fillRect(left + 3, top + 3, Math.min(drawing.measureText(text).width + 8, side / group.k - 6), 18);
    drawing.fillStyle = "#ffffff";
    drawing.fillText(text, left + 7, top + 5, side / group.k - 14);
  }
  if (cell !== null) {
    const width = side / group.k;
    drawing.strokeStyle = style.getPropertyValue("--with");
    drawing.lineWidth = 5;
    drawing.strokeRect((cell % group.k) * width + 3, Math.floor(cell / group.k) * width + 3, width - 6, width - 6);
  }
  $("said").textContent = group.state === "answered"
    ? "Your photo is framed. The collage-cnn found the boxes, with labels and confidences, in one inference."
    : "Your photo is framed. All photos were answered by their own workers, so the collage's inference was stopped.";
}

// Switches

function put(path, content) {
  const options = { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) };
  return json(path, options).catch(complain);
}

function offerLoad() {
  $("rateText").textContent = $("rate").value;
  put("/playground/load", { per_s: $("load").checked ? Number($("rate").value) : 0 });
}

// The chart

const series = { at: [], with50: [], with99: [], without50: [], without99: [] };
let plot = null;

function draw() {
  if (plot) plot.destroy();
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui, 'DejaVu Sans', sans-serif", labelFont: "12px system-ui, 'DejaVu Sans', sans-serif" };
  const line = (label, name, dashed) => ({ label, stroke: colour(name), width: dashed ? 1.5 : 2.5, dash: dashed ? [5, 5] : [], points: { show: false } });
  plot = new uPlot({
    width: $("chart").clientWidth, height: 280, legend: { show: false }, cursor: { show: false },
    scales: { x: { time: false, range: [-SHOWN_S, 0] }, y: { distr: 3, range: (_, low, high) => [Math.min(1, low || 1), Math.max(2000, high || 1)] } },
    axes: [
      { ...axis, label: "seconds ago", labelSize: 24, values: (_, ticks) => ticks.map((tick) => String(-tick)) },
      { ...axis, label: "milliseconds", labelSize: 24, size: 60, splits: () => TICKS, filter: (_, ticks) => ticks, values: (_, ticks) => ticks.map(String) },
    ],
    series: [{}, line("p99 with", "--with"), line("p99 without", "--without"), line("p50 with", "--with", true), line("p50 without", "--without", true)],
  }, data(), $("chart"));
}

function data() {
  const now = performance.now() / 1000;
  return [series.at.map((at) => at - now), series.with99, series.without99, series.with50, series.without50];
}

function note() {
  const now = performance.now() / 1000;
  answers = answers.filter((one) => one.at > now - WINDOW_S);
  series.at.push(now);
  for (const side of ["with", "without"]) {
    const times = answers.filter((one) => one.side === side).map((one) => 1000 * one.total_s).sort((a, b) => a - b);
    series[side + "50"].push(quantile(times, 0.5));
    series[side + "99"].push(quantile(times, 0.99));
  }
  while (series.at.length && series.at[0] < now - SHOWN_S) for (const one of Object.values(series)) one.shift();
  plot.setData(data());
}

function tell(live) {
  const rows = [];
  for (const [side, title] of [["with", "with the policy"], ["without", "without"]]) {
    const mine = answers.filter((one) => one.side === side);
    const sources = [...new Set(mine.map((one) => one.source))].sort();
    for (const source of ["all", ...sources]) {
      const times = mine.filter((one) => source === "all" || one.source === source).map((one) => one.total_s).sort((a, b) => a - b);
      if (!times.length) continue;
      rows.push([title, source, percent(times.length / mine.length), ms(quantile(times, 0.5)), ms(quantile(times, 0.99))]);
    }
  }
  fill($("sources"), [["requests", ""], ["answered by", ""], ["share", "number"], ["p50", "number"], ["p99", "number"]], rows);
  sent = sent || live.sent;
  const since = (attempt) => live.sent[attempt] - sent[attempt];
  const extra = since("s_cnn") ? (since("coded") + since("replica")) / since("s_cnn") : 0;
  $("status").textContent = `${answers.length} answers in ${WINDOW_S} s, extra load ${percent(extra)}, deadline ${ms(live.deadline_s)}`;
  $("status").className = "";
}

const rows = new Map(); // of the workers' table: a switch that was just drawn again could not be pressed

function rowOf(worker) {
  const cells = { role: worker.role, kind: document.createElement("span"), state: document.createElement("span"), calls: document.createElement("span"), cell: document.createElement("span") };
  if (worker.straggles !== null) {
    cells.box = add(cells.cell, "input");
    cells.box.type = "checkbox";
    cells.box.setAttribute("aria-label", `${worker.address} straggles`);
    cells.box.addEventListener("change", () => put(`/playground/workers/${worker.address}`, { straggles: cells.box.checked }));
  }
  return cells;
}

function showWorkers(workers) {
  if (workers.length !== rows.size || !workers.every((worker) => rows.has(worker.address))) {
    rows.clear();
    for (const worker of workers) rows.set(worker.address, rowOf(worker));
    fill($("workers"), [["worker", ""], ["model", ""], ["state", ""], ["calls", "number"], ["make it straggle", ""]], workers.map((worker) => {
      const { kind, state, calls, cell } = rows.get(worker.address);
      return [worker.address, kind, state, calls, cell];
    }));
  }
  for (const worker of workers) {
    const { kind, state, calls, box } = rows.get(worker.address);
    kind.textContent = worker.kind;
    state.textContent = !worker.ready ? "not ready" : worker.straggles ? "straggles" : "ready";
    state.className = worker.straggles || !worker.ready ? "straggling" : "";
    calls.textContent = String(worker.outstanding);
    if (box) box.checked = worker.straggles;
  }
  const switched = workers.filter((worker) => worker.role === "s_cnn" && worker.straggles !== null);
  $("all").checked = switched.length > 0 && switched.every((worker) => worker.straggles);
}

function complain(error) {
  $("status").textContent = `no answer from the frontend: ${error.message}`;
  $("status").className = "error";
}

async function watch() {
  try {
    const live = await json(`/playground/live?since=${last}`);
    const now = performance.now() / 1000;
    if (live.last < last) answers = [];
    last = live.last;
    for (const one of live.answers) answers.push({ ...one, at: now - one.age_s });
    note();
    tell(live);
    showWorkers(live.workers);
    $("load").checked = live.per_s > 0;
  } catch (error) {
    complain(error);
  }
  setTimeout(watch, EVERY_MS);
}

function offer() {
  const shown = new Map();
  labels.forEach((label, number) => shown.set(label, shown.has(label) ? shown.get(label) : number));
  for (const [label, number] of [...shown].slice(0, 12)) {
    const button = add($("samples"), "button");
    button.title = label;
    const image = add(button, "img");
    image.src = `/playground/samples/${number}`;
    image.alt = label;
    button.addEventListener("click", async () => classify(await (await fetch(image.src)).blob()));
  }
}

async function begin() {
  labels = await json("/playground/samples");
  offer();
  const drop = $("drop");
  const take = (list) => { if (list.length) classify(list[0]); };
  drop.addEventListener("click", () => $("file").click());
  drop.addEventListener("keydown", (event) => { if (event.key === "Enter") $("file").click(); });
  $("file").addEventListener("change", () => take($("file").files));
  for (const name of ["dragover", "dragenter"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files); });
  for (const control of ["rate", "load"]) $(control).addEventListener("change", offerLoad);
  const legend = [["with", "p99 with the policy"], ["without", "p99 without"], ["with dashed", "p50 with the policy"], ["without dashed", "p50 without"]];
  for (const [kind, text] of legend) add($("legend"), "span", text, kind);
  $("all").addEventListener("change", () => {
    for (const [address, { box, role }] of rows) if (box && role === "s_cnn") put(`/playground/workers/${address}`, { straggles: $("all").checked });
  });
  draw();
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  watch();
}

begin().catch(complain);
