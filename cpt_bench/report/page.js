"use strict";
// The report's page. All data is in #data; texts go in as text, never as HTML.
(() => {
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const runs = D.runs, methods = D.comparison.methods;
const PALETTE = {
  light: ["#0b66c3", "#c2410c", "#0a7d4b", "#8b3fb0", "#a16207", "#0e7490", "#be185d", "#4b5563", "#5b6abf", "#6b8e23"],
  dark: ["#6cb2f7", "#ff9f68", "#5bd19a", "#d19cf0", "#f0c060", "#5fd3e6", "#ff8fc0", "#b6bdc9", "#a3aef5", "#b7d36a"],
};
const DASH = ["solid", "dot", "dash", "longdash", "dashdot"];
let theme = "light", run = 0;

// ------------------------------------------------------------------------------------ small things
function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key in node) node[key] = value; else node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}
// Plotly reads a little HTML in labels: a name must not.
const esc = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const fmt = (v, digits = 1, sign = false) => v === null || v === undefined ? "–"
  : (sign && v > 0 ? "+" : "") + v.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1").replace("-", "−");
const span = (i, digits = 1, sign = false) => i ? `${fmt(i.low, digits, sign)} … ${fmt(i.high, digits, sign)}` : "";
const color = (i) => PALETTE[theme][i % PALETTE[theme].length];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDelta = (p) => p.formula.includes(" - ");
const isNats = (p) => p.formula.includes("KL(");
const mean = (xs) => xs.length && xs.every((x) => x !== null) ? xs.reduce((a, b) => a + b, 0) / xs.length : null;
const stageNames = (r) => ["base", ...r.order.map((t, i) => `${i + 1} ${t}`)];
const tint = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, "0");

function layout(more = {}) {
  const axis = { gridcolor: css("--line"), zerolinecolor: css("--soft"), zerolinewidth: 1, linecolor: css("--line"), automargin: true };
  const merged = {
    font: { family: "system-ui, sans-serif", size: 12.5, color: css("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 48, r: 16, t: 12, b: 44 }, hovermode: "closest",
    hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink"), size: 12.5 } },
    legend: { orientation: "h", y: -0.2, yanchor: "top" }, ...more,
  };
  for (const key of Object.keys(merged)) if (/^[xy]axis/.test(key)) merged[key] = { ...axis, ...merged[key] };
  merged.xaxis = { ...axis, ...merged.xaxis }; merged.yaxis = { ...axis, ...merged.yaxis };
  return merged;
}
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], displayModeBar: false };
// On a telephone names stand upright, so that each has its place, and titles break into lines.
const narrow = () => innerWidth < 600;
function broken(text, pixels) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines.length - 1, longer = lines[last] ? `${lines[last]} ${word}` : word;
    if (lines[last] && longer.length * 7.6 > pixels) lines.push(word); else lines[last] = longer;
  }
  return lines.join("<br>");
}
function fitted(box, more) {
  const height = more.height ?? 330, out = { ...more };
  for (const key of ["xaxis", "yaxis", "yaxis2"]) {
    const axis = more[key];
    if (!axis) continue;
    out[key] = { ...axis };
    if (axis.title) out[key].title = { ...axis.title, standoff: key === "xaxis" ? 12 : 8, text: broken(axis.title.text, key === "xaxis" ? box.clientWidth - 90 : height * 0.6) };
    if (key === "xaxis" && axis.ticktext && axis.side !== "top" && narrow()) out[key].tickangle = -90;
  }
  if (narrow() && more.xaxis?.ticktext && more.xaxis.side !== "top") {
    out.height = height + 90;  // names and legend are taller
    out.legend = { orientation: "h", y: -0.42, yanchor: "top" };
  } else if (narrow() && more.legend && more.xaxis?.title) out.legend = { ...more.legend, y: -0.34 };
  return out;
}
function draw(id, traces, more) {
  const box = $(id);
  more = fitted(box, more);
  if (box.firstChild && !box.classList.contains("js-plotly-plot")) box.replaceChildren();
  box.classList.remove("absent");
  return Plotly.react(box, traces, layout(more), CONFIG);
}
function absent(id, why) {
  const box = $(id);
  if (box.classList.contains("js-plotly-plot")) Plotly.purge(box);
  box.classList.add("absent");
  box.replaceChildren(why);
  data(id, null);
}
// Each plot's numbers as a table, for those who read rather than look.
function data(id, rows, header) {
  const box = document.querySelector(`[data-for="${id}"]`);
  if (!rows) return box.replaceChildren();
  const open = box.querySelector("details")?.open;
  box.replaceChildren(el("details", { open: Boolean(open) }, el("summary", { textContent: "As a table" }),
    el("div", { className: "scroll" }, table(header, rows))));
  watch(box);
}
// What scrolls sideways says so, as long as there is more to see.
const wide = new ResizeObserver((entries) => entries.forEach(({ target }) => sign(target.closest(".scroll"))));
function sign(box) {
  if (!box) return;
  const over = box.scrollWidth > box.clientWidth + 1;
  box.toggleAttribute("data-wide", over);
  if (over && !box.hasAttribute("tabindex")) box.tabIndex = 0;
}
function watch(root = document) {
  for (const box of root.querySelectorAll(".scroll")) { wide.observe(box); if (box.firstElementChild) wide.observe(box.firstElementChild); sign(box); }
}
function table(header, rows, node = el("table")) {
  const cell = (tag, text, i) => el(tag, { textContent: text, dir: "auto", ...(tag === "th" ? { scope: i === 0 ? "row" : "col" } : {}) });
  node.replaceChildren(
    el("thead", {}, el("tr", {}, ...header.map((h, i) => cell("th", h, i + 1)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((c, i) => cell(i ? "td" : "th", c, i))))));
  return node;
}
function options(select, pairs, value) {
  select.replaceChildren(...pairs.map(([v, text]) => el("option", { value: v, textContent: text })));
  if (value !== undefined) select.value = value;
}

// ------------------------------------------------------------------------------------------- header
function header() {
  const first = runs[run];
  $("title").textContent = methods.length === 1
    ? `${methods[0].name}: what it learned, what it forgot`
    : `${methods.length} methods: what they learned, what they forgot`;
  const gaps = runs.flatMap((r) => r.missing.map((cell) => `${r.name}: ${cell}`));
  if (gaps.length) {
    const shown = gaps.slice(0, 40).map((g) => el("li", { textContent: g, dir: "auto" }));
    if (gaps.length > 40) shown.push(el("li", { textContent: `and ${gaps.length - 40} more` }));
    $("missing").replaceChildren(el("section", { className: "warning" },
      el("h2", { textContent: "Cells are missing" }),
      el("p", { className: "how", textContent: "A number that needs one of them is not given; nothing is averaged over the rest." }),
      el("ul", {}, ...shown)));
  }
  const tile = (key, title, digits = 1) => {
    const p = first.metrics[key], sign = isDelta(p);
    return el("div", {}, el("h3", { textContent: title ?? p.title }),
      el("div", { className: "big", textContent: fmt(p.value, digits, sign) }),
      el("div", { className: "small", textContent: p.value === null ? `needs ${p.missing[0]}` : `${key}  ${span(p.interval, digits, sign)}` }));
  };
  const box = (...nodes) => el("div", { className: nodes.length > 1 ? "tile pair" : "tile" }, ...nodes);
  $("tiles").replaceChildren(
    box(tile("Learn"), tile("FM")), box(tile("AvgAcc")), box(tile("Gain")), box(tile("GeneralDelta", "general capability, change")));
}

// ------------------------------------------------------------------------------------------- matrix
const READINGS = { accuracy: "accuracy, strict", best_reading: "best reading", format_ok: "form met, %", change: "change since the base" };
function matrix() {
  const r = runs[run], m = r.matrix, g = m.general, which = $("reading").value;
  const of = (part) => which === "change"
    ? part.accuracy.map((row) => row.map((v, j) => v === null || part.accuracy[0][j] === null ? null : v - part.accuracy[0][j]))
    : part[which];
  const left = of(m), right = g.benchmarks.length ? of(g) : [];
  const columns = [...m.tasks, ...(right.length ? g.benchmarks : [])];
  const z = left.map((row, t) => [...row, ...(right.length ? right[t] : [])]);
  const rows = stageNames(r), n = m.tasks.length;
  const diverging = which === "change";
  const dark = theme === "dark";
  const scale = diverging
    ? [[0, dark ? "#c2410c" : "#c2410c"], [0.5, dark ? "#23262d" : "#f4f4f1"], [1, dark ? "#1d6fc4" : "#0b66c3"]]
    : dark ? [[0, "#1c1f25"], [0.5, "#1f5c94"], [1, "#8fd0ff"]] : [[0, "#fbfbf9"], [0.5, "#7fb4e4"], [1, "#0a4a8f"]];
  const top = diverging ? Math.max(10, ...z.flat().filter((v) => v !== null).map(Math.abs)) : 100;
  const ink = (v) => v === null ? css("--soft") : diverging
    ? (Math.abs(v) > 0.6 * top ? "#ffffff" : css("--ink"))
    : dark ? (v > 72 ? "#10131a" : "#f2f4f7") : (v > 62 ? "#ffffff" : "#1c1e21");
  const annotations = z.flatMap((row, t) => row.map((v, j) => ({
    x: j, y: t, text: v === null ? "missing" : fmt(v, 1, diverging), showarrow: false, font: { color: ink(v), size: v === null ? 10 : 12.5 } })));
  const shapes = m.tasks.map((_, j) => ({ type: "rect", x0: j - 0.5, x1: j + 0.5, y0: j + 0.5, y1: j + 1.5, line: { color: css("--ink"), width: 2 }, layer: "above" }));
  if (right.length) shapes.unshift({ type: "line", x0: n - 0.5, x1: n - 0.5, y0: -0.5, y1: rows.length - 0.5, line: { color: css("--paper"), width: 7 } });
  draw("matrix", [{ type: "heatmap", z, x: columns.map((_, j) => j), y: rows.map((_, t) => t), colorscale: scale, zmin: diverging ? -top : 0, zmax: top,
    xgap: 2, ygap: 2, showscale: false, hoverongaps: false,
    customdata: z.map((row, t) => row.map((_, j) => `${esc(columns[j])}, after ${esc(rows[t])}`)), hovertemplate: "%{customdata}: %{z:.1f}<extra></extra>" }],
    { height: 62 + 38 * rows.length, annotations, shapes, margin: { l: 100, r: 10, t: 30, b: 8 },
      xaxis: { side: "top", tickvals: columns.map((_, j) => j), ticktext: columns.map(esc), showgrid: false, zeroline: false, fixedrange: true },
      yaxis: { autorange: "reversed", tickvals: rows.map((_, t) => t), ticktext: rows.map(esc), showgrid: false, zeroline: false, fixedrange: true } });
  data("matrix", z.map((row, t) => [rows[t], ...row.map((v) => fmt(v, 1, diverging))]), ["after", ...columns]);
}

// ------------------------------------------------------------------------------------------- curves
function curves() {
  const r = runs[run], m = r.matrix, stages = stageNames(r), xs = stages.map((_, t) => t);
  const traces = m.tasks.map((task, j) => ({ type: "scatter", mode: "lines+markers", name: esc(task), x: xs, y: m.accuracy.map((row) => row[j]),
    line: { color: color(j), width: 2 }, marker: { size: xs.map((t) => t === j + 1 ? 11 : 4), color: color(j), line: { color: css("--card"), width: xs.map((t) => t === j + 1 ? 1.5 : 0) } },
    hovertemplate: `${esc(task)}: %{y:.1f}<extra></extra>` }));
  const g = m.general, general = g.accuracy.length ? g.accuracy.map(mean) : [];
  if (general.length) traces.push({ type: "scatter", mode: "lines+markers", name: "general, mean", x: xs, y: general, connectgaps: true,
    line: { color: css("--ink"), width: 2.5, dash: "dash" }, marker: { size: 4, color: css("--ink") }, hovertemplate: "general: %{y:.1f}<extra></extra>" });
  draw("curves", traces, { height: 400, hovermode: "x unified", xaxis: { tickvals: xs, ticktext: stages.map(esc), showgrid: false, zeroline: false },
    yaxis: { title: { text: "accuracy, %" }, rangemode: "tozero" } });
  data("curves", m.tasks.map((task, j) => [task, ...m.accuracy.map((row) => fmt(row[j]))]).concat(general.length ? [["general, mean", ...general.map((v) => fmt(v))]] : []), ["task", ...stages]);
}

// ------------------------------------------------------------------------------------------- pareto
function pareto() {
  const key = $("pareto-y").value;
  const points = methods.map((m, i) => ({ m, i, x: m.numbers.Learn, y: m.numbers[key] })).filter((p) => p.x.value !== null && p.y.value !== null);
  if (!points.length) return absent("pareto", "No method here has both numbers: cells are missing.");
  const kinds = [...new Set(methods.map((m) => m.kind.replace(/learning_rate=[^,)]*/, "").replace(/\(\s*,?\s*\)/, "").trim()))];
  const kindOf = (m) => kinds.indexOf(m.kind.replace(/learning_rate=[^,)]*/, "").replace(/\(\s*,?\s*\)/, "").trim());
  const bars = (side, c) => ({ type: "data", symmetric: false, array: points.map((p) => p[side].over_samples.high - p[side].value),
    arrayminus: points.map((p) => p[side].value - p[side].over_samples.low), color: c, thickness: 1.2, width: 3 });
  const front = points.filter((p) => !points.some((q) => q !== p && q.x.value >= p.x.value && q.y.value >= p.y.value && (q.x.value > p.x.value || q.y.value > p.y.value)))
    .sort((a, b) => a.x.value - b.x.value);
  const rates = new Set(methods.map((m) => m.learning_rate));
  const label = (m) => rates.size < 2 || m.learning_rate === null || m.learning_rate === undefined || m.name.includes("learning_rate=") ? "" : `, lr ${m.learning_rate}`;
  const seeds = points.flatMap((p) => p.x.by_seed.length > 1 ? p.x.by_seed.map((x, s) => [x, p.y.by_seed[s], p]) : []);
  draw("pareto", [
    { type: "scatter", mode: "lines", x: front.map((p) => p.x.value), y: front.map((p) => p.y.value), line: { color: css("--soft"), dash: "dot", width: 1.5 }, hoverinfo: "skip", showlegend: false },
    { type: "scatter", mode: "markers", x: seeds.map((s) => s[0]), y: seeds.map((s) => s[1]), marker: { size: 5, opacity: 0.55, color: seeds.map((s) => color(kindOf(s[2].m))) }, name: "one seed", showlegend: seeds.length > 0, hovertemplate: "one seed: %{x:.1f}, %{y:+.1f}<extra></extra>" },
    { type: "scatter", mode: "markers+text", x: points.map((p) => p.x.value), y: points.map((p) => p.y.value), text: points.map((p) => esc(p.m.name + label(p.m))), textposition: points.map((_, i) => i % 2 ? "bottom center" : "top center"),
      textfont: { size: 11, color: css("--soft") }, cliponaxis: false, marker: { size: 12, color: points.map((p) => color(kindOf(p.m))), line: { color: css("--card"), width: 1.5 } },
      error_x: bars("x", css("--soft")), error_y: bars("y", css("--soft")), showlegend: false, hovertemplate: `%{text}<br>Learn %{x:.1f}, ${key} %{y:+.1f}<extra></extra>` }],
    { height: 400, xaxis: { title: { text: "Learn: accuracy just after learning, %" }, zeroline: false }, yaxis: { title: { text: `${key}, percentage points` } }, margin: { l: 56, r: 24, t: 20, b: 46 }, legend: { orientation: "h", y: -0.24, yanchor: "top" } });
  data("pareto", points.map((p) => [p.m.name, fmt(p.x.value), span(p.x.over_samples), fmt(p.y.value, 1, true), span(p.y.over_samples, 1, true)]), ["method", "Learn", "interval", key, "interval"]);
}

// --------------------------------------------------------------------------- from the base to the end
const PARTS = [["BaseAcc", "the base"], ["FWT_T", "before its turn"], ["TLG", "its own stage"], ["BWT_T", "later stages"]];
function waterfall() {
  const shown = methods.map((m, i) => ({ m, i })).filter(({ m }) => PARTS.every(([key]) => m.numbers[key].value !== null));
  if (!shown.length) return absent("waterfall", "Needs every cell of the matrix and the base's row.");
  const steps = [...PARTS.map(([, text]) => text), "the end"];
  // Each bar floats: it begins where the bar before it ended.
  const traces = shown.map(({ m, i }) => {
    const parts = PARTS.map(([key]) => m.numbers[key].value), starts = parts.map((_, k) => k ? parts.slice(0, k).reduce((a, b) => a + b, 0) : 0);
    return { type: "bar", name: esc(m.name), x: steps.map((_, k) => k), base: [...starts, 0], y: [...parts, m.numbers.AvgAcc.value],
      marker: { color: [...parts.map((v) => v < 0 ? tint(color(i), 0.4) : color(i)), color(i)], line: { color: color(i), width: 1 } },
      customdata: [...PARTS.map(([key], k) => `${key}: ${fmt(parts[k], 1, k > 0)}`), `AvgAcc: ${fmt(m.numbers.AvgAcc.value)}`], hovertemplate: "%{customdata}<extra>" + esc(m.name) + "</extra>" };
  });
  draw("waterfall", traces, { height: 380, barmode: "group", bargap: 0.25, showlegend: shown.length > 1, xaxis: { tickvals: steps.map((_, k) => k), ticktext: steps, showgrid: false, zeroline: false },
    yaxis: { title: { text: "accuracy over all tasks, %" }, rangemode: "tozero" } });
  data("waterfall", shown.map(({ m }) => [m.name, ...PARTS.map(([key], k) => `${fmt(m.numbers[key].value, 1, k > 0)} [${span(m.numbers[key].over_samples, 1, k > 0)}]`), fmt(m.numbers.AvgAcc.value)]), ["method", ...PARTS.map(([key]) => key), "AvgAcc"]);
}

// -------------------------------------------------------------------------------------------- kinds
function kinds() {
  const r = runs[run], M = r.metrics, tasks = r.order.slice(0, -1);
  const of = (key, task) => M[key].tasks[task]?.value ?? null;
  const general = M.GeneralDelta.benchmarks;
  const names = [...tasks.filter((t) => of("Lost", t) !== null), ...Object.keys(general).filter((b) => general[b].kinds && Object.keys(general[b].kinds).length)];
  if (!names.length) return absent("kinds", r.order.length < 2 ? "Forgetting needs a second task." : "Not known: cells are missing.");
  const get = (kind, name) => general[name] && !tasks.includes(name) ? general[name].kinds[kind] ?? null : of(kind === "won" ? "Won" : kind === "lost" ? "Lost" : `Lost_${kind}`, name);
  const known = names.filter((n) => get("mode", n) !== null);
  const lostOnly = names.map((n) => get("mode", n) === null ? get("lost", n) - get("format", n) : 0);
  const bar = (name, ys, c, pattern) => ({ type: "bar", name, x: names.map((_, i) => i), y: ys, marker: { color: c, pattern: pattern ? { shape: pattern, size: 6, solidity: 0.35 } : undefined }, hovertemplate: `${name}: %{y:.1f} %<extra></extra>` });
  const negative = (kind) => names.map((n) => { const v = get(kind, n); return v === null ? null : -v; });
  const traces = [bar("format", negative("format"), color(4)), bar("mode", negative("mode"), color(0)), bar("content", negative("content"), color(1))];
  if (known.length < names.length) traces.push(bar("mode or content (not measured which)", lostOnly.map((v) => -v), css("--soft"), "/"));
  traces.push(bar("won back", names.map((n) => get("won", n)), tint(color(2), 0.75)));
  draw("kinds", traces, { height: 400, barmode: "relative", bargap: 0.35, hovermode: "x unified", xaxis: { tickvals: names.map((_, i) => i), ticktext: names.map(esc), showgrid: false, zeroline: false, tickangle: -35 },
    yaxis: { title: { text: "% of the benchmark's samples" }, zerolinewidth: 1.5 }, margin: { l: 52, r: 12, t: 14, b: 44 } });
  data("kinds", names.map((n) => [n, ...["lost", "format", "mode", "content", "won"].map((k) => get(k, n) === null ? "not measured" : fmt(get(k, n)))]), ["benchmark", "lost, %", "format", "mode", "content", "won"]);
}

// ----------------------------------------------------------------------------------------------- KL
function kl() {
  const x = $("kl-x").value, y = $("kl-y").value;
  const points = D.kl.points.filter((p) => p[x] !== null && p[y] !== null);
  if (!points.length) return absent("kl", "Not measured: these runs have no kl.jsonl (it is written while a run runs, after each stage).");
  const names = [...new Set(points.map((p) => p.run))];
  const traces = names.map((i) => {
    const mine = points.filter((p) => p.run === i);
    return { type: "scatter", mode: "markers", name: esc(runs[i].name), x: mine.map((p) => p[x]), y: mine.map((p) => p[y]), text: mine.map((p) => `stage ${p.stage}, ${esc(p.task)}`),
      marker: { size: 10, color: color(methods.findIndex((m) => m.name === runs[i].method)), symbol: i % 8, line: { color: css("--card"), width: 1 } }, hovertemplate: `%{text}<br>KL %{x:.3f}, %{y:+.1f} points<extra>${esc(runs[i].name)}</extra>` };
  });
  const fit = D.kl.fits[`${x},${y}`], notes = [];
  if (fit) {
    const lo = Math.min(...points.map((p) => p[x])), hi = Math.max(...points.map((p) => p[x]));
    const xs = Array.from({ length: 60 }, (_, i) => lo + (hi - lo) * i / 59), [a, b, c] = fit.coefficients;
    traces.push({ type: "scatter", mode: "lines", name: `quadratic, R² = ${fit.r2.toFixed(2)} (n = ${fit.n})`, x: xs, y: xs.map((v) => a + b * v + c * v * v), line: { color: css("--soft"), width: 2, dash: "dash" }, hoverinfo: "skip" });
    notes.push({ xref: "paper", yref: "paper", x: 0.99, y: 0.98, xanchor: "right", text: `R² = ${fit.r2.toFixed(2)}, n = ${fit.n}`, showarrow: false, font: { color: css("--soft") } });
  }
  draw("kl", traces, { height: 380, annotations: notes, xaxis: { title: { text: x === "kl_new" ? "KL(base ‖ policy) on the new task's prompts, nats a token" : "KL(base ‖ policy) on general prompts, nats a token" }, rangemode: "tozero", zeroline: false },
    yaxis: { title: { text: y === "general" ? "general capability, change in points" : "earlier tasks since learned, points" } }, legend: { orientation: "h", y: -0.22, yanchor: "top" } });
  data("kl", points.map((p) => [runs[p.run].name, `${p.stage} ${p.task}`, fmt(p[x], 3), fmt(p[y], 1, true), fmt(p.entropy, 3)]), ["run", "stage", "KL", "change, points", "policy's entropy"]);
}

// ------------------------------------------------------------------------------------------- habits
function habits() {
  const r = runs[run], m = r.matrix, stages = stageNames(r), xs = stages.map((_, t) => t);
  const parts = [["format_ok", "form met, %", color(2), "y"], ["reasoned", "reasons, %", color(0), "y"], ["reply_tokens", "length, tokens", color(1), "y2"]].filter(([key]) => m[key]);
  const traces = parts.map(([key, name, c, axis]) => ({ type: "scatter", mode: "lines+markers", name, x: xs, y: m[key].map(mean), yaxis: axis, line: { color: c, width: 2, dash: axis === "y2" ? "dot" : "solid" }, hovertemplate: `${name}: %{y:.1f}<extra></extra>` }));
  draw("habits", traces, { height: 320, hovermode: "x unified", xaxis: { tickvals: xs, ticktext: stages.map(esc), showgrid: false, zeroline: false }, yaxis: { title: { text: "% of replies" }, range: [0, 105] },
    yaxis2: { title: { text: "tokens" }, overlaying: "y", side: "right", showgrid: false, rangemode: "tozero", tickmode: "auto", nticks: 6 }, margin: { l: 52, r: 56, t: 14, b: 44 } });
  data("habits", parts.map(([key, name]) => [name, ...m[key].map((row) => fmt(mean(row)))]), ["habit", ...stages]);
}

// ----------------------------------------------------------------------------------------- training
function training() {
  const key = $("figure").value;
  const all = runs.map((r, i) => {
    let start = 0; const xs = [], ys = [], marks = [];
    r.order.forEach((task, j) => {
      const log = r.train[String(j + 1)]; if (!log) return;
      const ys1 = log.figures[key];
      marks.push([start, task]);
      log.steps.forEach((step, k) => { xs.push(start + step); ys.push(ys1 ? ys1[k] : null); });
      xs.push(null); ys.push(null);
      start += log.steps.length ? log.steps[log.steps.length - 1] : 0;
    });
    return { r, i, xs, ys, marks, end: start };
  }).filter((t) => t.ys.some((v) => v !== null));
  if (!all.length) return absent("training", "Not logged by these trainers.");
  const shown = all.find((t) => t.i === run) ?? all[0];
  const traces = all.map((t) => ({ type: "scatter", mode: "lines", name: esc(t.r.name), x: t.xs, y: t.ys, line: { color: color(methods.findIndex((m) => m.name === t.r.method)), width: t === shown ? 2 : 1.2, dash: DASH[(t.r.seed ?? 0) % DASH.length] }, opacity: t === shown ? 1 : 0.45, hovertemplate: "%{y:.4g}<extra></extra>" }));
  draw("training", traces, { height: 360, hovermode: "x", xaxis: { title: { text: "training step, all stages" }, zeroline: false, showgrid: false }, yaxis: { title: { text: esc(D.figures[key]) } },
    shapes: shown.marks.map(([x]) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: css("--line"), width: 1.5 } })),
    annotations: shown.marks.map(([x, task]) => ({ x, yref: "paper", y: 1, xanchor: "left", yanchor: "top", xshift: 3, text: esc(task), showarrow: false, textangle: narrow() ? -90 : 0, font: { size: 11, color: css("--soft") } })) });
  const rows = all.flatMap((t) => t.r.order.map((task, j) => { const ys = t.r.train[String(j + 1)]?.figures[key]?.filter((v) => v !== null); return ys?.length ? [t.r.name, task, fmt(ys[0], 3), fmt(mean(ys), 3), fmt(ys[ys.length - 1], 3)] : null; })).filter(Boolean);
  data("training", rows, ["run", "stage", "first", "mean", "last"]);
}

// -------------------------------------------------------------------------------------- number tables
function numbers() {
  const r = runs[run];
  table(["key", "value", "95 % interval", "n", "divisor", "formula", "sign", "source", "method of the interval"], Object.entries(r.metrics).map(([key, p]) => {
    const digits = isNats(p) ? 3 : 2, sign = isDelta(p);
    return [key, p.value === null ? "–" : fmt(p.value, digits, sign), p.value === null ? `needs ${p.missing.join("; ")}` : span(p.interval, digits, sign), p.n ?? "", p.divisor ?? "", p.formula, p.sign, p.source, p.interval?.method ?? ""];
  }), $("passports"));
  const keys = Object.keys(r.metrics);
  $("passports").querySelectorAll("tr").forEach((row, i) => {
    [...row.children].slice(5).forEach((c) => c.classList.add("words"));
    if (i && r.metrics[keys[i - 1]].value === null) row.children[2].classList.add("missing");
  });
  $("settings").textContent = r.settings;
  const names = [["wall_seconds", "wall, s"], ["train_seconds", "training, s"], ["rollout_seconds", "of it rollouts, s"], ["gpu_seconds", "GPU, s"], ["evaluate_seconds", "evaluation, s"], ["diagnose_seconds", "diagnosis, s"], ["trained_tokens", "tokens trained on"], ["evaluation_tokens", "tokens written in evaluation"], ["peak_memory_mib", "peak memory, MiB"]];
  const big = (v) => v === null || v === undefined ? "–" : Math.round(v).toLocaleString("en-US").replace(/,/g, " ");
  table(["run", ...names.map((n) => n[1]), "device"], runs.map((x) => [x.name, ...names.map(([key]) => big(x.costs[key])), x.costs.device ?? ""]), $("costs"));
}

// ------------------------------------------------------------------------------------ sample browser
const B = D.browser, PAGE = 150;
let found = [], chosen = null, pages = 1;
const EPS = 1e-9;
function passes(sample, filter) {
  const cells = sample[5][run], before = cells[B.benchmarks[sample[0]].before[run]], after = cells[cells.length - 1];
  if (filter === "all") return true;
  if (!after) return false;
  if (filter === "form") return after[3] < 0.5;
  if (filter === "never") return cells.every((c) => !c || c[1] < EPS);
  if (!before) return false;
  if (filter === "lost") return after[1] < before[1] - EPS;
  if (filter === "won") return after[1] > before[1] + EPS;
  return before[1] > 0.5 && after[1] > 0.5;
}
function search(keep) {
  const filter = $("s-filter").value, benchmark = $("s-benchmark").value, words = $("s-words").value.trim().toLowerCase();
  found = B.samples.filter((s) => (benchmark === "" || s[0] === Number(benchmark)) && passes(s, filter)
    && (!words || [s[1], s[2], ...s[3], ...s[5][run].filter(Boolean).map((c) => B.replies[c[0]])].some((text) => text.toLowerCase().includes(words))));
  pages = 1;
  const total = B.benchmarks.filter((_, i) => benchmark === "" || i === Number(benchmark)).reduce((a, b) => a + b.n, 0);
  const inside = B.samples.filter((s) => benchmark === "" || s[0] === Number(benchmark)).length;
  $("s-count").textContent = `${found.length} of ${inside} samples` + (inside < total ? ` in this file (${total} in the run; what was lost came first)` : "");
  if (!keep || !found.includes(chosen)) chosen = found[0] ?? null;
  list(); detail();
}
function list() {
  const items = found.slice(0, PAGE * pages).map((s) => {
    const bench = B.benchmarks[s[0]];
    const button = el("button", { type: "button", tabIndex: s === chosen ? 0 : -1 },
      el("span", { textContent: s[2].length > 90 ? s[2].slice(0, 90) + "…" : s[2], dir: "auto" }), el("small", {}, el("span", { textContent: s[1], dir: "auto" }), el("span", { textContent: bench.name })));
    button.setAttribute("aria-current", String(s === chosen));
    button.addEventListener("click", () => choose(s));
    return el("li", {}, button);
  });
  if (found.length > PAGE * pages) {
    const more = el("button", { type: "button", textContent: `${found.length - PAGE * pages} more` });
    more.addEventListener("click", () => { pages += 1; list(); });
    items.push(el("li", {}, more));
  }
  $("s-list").replaceChildren(...items);
}
function choose(sample, focus) {
  chosen = sample;
  [...$("s-list").children].forEach((li, i) => {
    const button = li.firstChild, on = found[i] === sample && i < PAGE * pages;
    button.setAttribute("aria-current", String(on)); button.tabIndex = on ? 0 : -1;
    if (on && focus) { button.focus(); button.scrollIntoView({ block: "nearest" }); }
  });
  detail();
}
$("s-list").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[event.key];
  if (!step || !found.length) return;
  event.preventDefault();
  const shown = Math.min(found.length, PAGE * pages);
  const next = Math.max(0, Math.min(shown - 1, found.indexOf(chosen) + step));
  choose(found[next], true);
});
function detail() {
  const box = $("s-detail");
  if (!chosen) return box.replaceChildren(el("p", { className: "sub", textContent: "No sample passes the filter." }));
  const [b, id, question, gold, images, cellsOf] = chosen, r = runs[run], bench = B.benchmarks[b], stages = stageNames(r), cells = cellsOf[run], before = bench.before[run];
  const pictures = images.map((i, k) => {
    if (i < 0) return el("p", { className: "absent", textContent: "image left out, for the file to stay small" });
    const img = el("img", { alt: `image ${k + 1} of ${id}`, src: B.images[i] });
    img.addEventListener("load", () => img.classList.toggle("small", img.naturalWidth < 130));
    return img;
  });
  const rows = cells.map((cell, t) => {
    const where = t === before ? "before" : t === cells.length - 1 ? "after" : "";
    if (!cell) return el("tr", {}, el("th", { scope: "row", textContent: stages[t] }), el("td", { textContent: "missing" }), el("td"));
    const [reply, score, best, form] = cell, full = score > 1 - EPS;
    const mark = el("span", { className: full ? "right" : score > EPS ? "half" : "wrong", textContent: full ? "✓ right" : score > EPS ? `◐ ${score}` : "✗ wrong" });
    const words = el("td", { className: "words" }, el("bdi", { className: "reply", dir: "auto", textContent: B.replies[reply] || "(nothing)" }));
    const verdict = el("td", { className: "words" }, mark);
    if (form < 0.5) verdict.append(el("span", { className: "tag", textContent: best > score + EPS ? "right, but not in the form" : "not in the form" }));
    return el("tr", { className: where }, el("th", { scope: "row", textContent: stages[t] + (where === "before" ? " (then)" : where === "after" ? " (now)" : "") }), words, verdict);
  });
  box.replaceChildren(
    el("div", { className: "ask" }, ...(pictures.length ? [el("div", {}, ...pictures)] : []), el("div", {},
      el("p", { className: "question", textContent: question, dir: "auto" }),
      el("p", { className: "sub", dir: "auto" }, "gold: ", el("b", { textContent: gold.join("  or  "), dir: "auto" })),
      el("p", { className: "note", textContent: `${bench.name}, ${id}`, dir: "auto" }))),
    el("div", { className: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", { textContent: "after", scope: "col" }), el("th", { textContent: "reply", className: "words", scope: "col" }), el("th", { textContent: "", className: "words", scope: "col" }))), el("tbody", {}, ...rows))));
  box.scrollTop = 0;
  watch(box);
}

// --------------------------------------------------------------------------------------------- start
const ofRun = [header, matrix, curves, kinds, habits, training, numbers];
const figures = [header, matrix, curves, waterfall, pareto, kinds, kl, habits, training, numbers];
function setTheme(next) {
  theme = next;
  document.documentElement.dataset.theme = next;
  figures.forEach((f) => f());
}
options($("run"), runs.map((r, i) => [i, r.name]), 0);
options($("reading"), Object.entries(READINGS), "accuracy");
options($("pareto-y"), [["FM", "FM: from the peak"], ["BWT", "BWT: since learned"], ["GeneralDelta", "general capability"], ["FM_base", "FM_base: the base may be the peak"]], "FM");
options($("kl-x"), [["kl_new", "the new task's prompts"], ["kl_general", "general prompts"]], "kl_new");
options($("kl-y"), [["general", "general capability"], ["tasks", "earlier tasks"]], "general");
const logged = Object.keys(D.figures).filter((k) => runs.some((r) => Object.values(r.train).some((log) => log.figures[k])));
options($("figure"), logged.map((k) => [k, D.figures[k]]), logged[0]);
options($("s-benchmark"), [["", "all"], ...B.benchmarks.map((b, i) => [i, b.name + (b.general ? " (general)" : "")])], "");
$("run").addEventListener("change", () => { run = Number($("run").value); ofRun.forEach((f) => f()); search(true); });
$("reading").addEventListener("change", matrix);
$("pareto-y").addEventListener("change", pareto);
for (const id of ["kl-x", "kl-y"]) $(id).addEventListener("change", kl);
$("figure").addEventListener("change", training);
for (const id of ["s-benchmark", "s-filter"]) $(id).addEventListener("change", () => search());
$("s-words").addEventListener("input", () => search());
$("theme").addEventListener("click", () => setTheme(theme === "dark" ? "light" : "dark"));
const prefers = matchMedia("(prefers-color-scheme: dark)");
prefers.addEventListener("change", () => setTheme(prefers.matches ? "dark" : "light"));
let screen = null;
addEventListener("beforeprint", () => { screen = theme; setTheme("light"); });
addEventListener("afterprint", () => { if (screen) setTheme(screen); });
setTheme(prefers.matches ? "dark" : "light");
search();
watch();
// Turned, or made narrower: what depends on the width is drawn again.
let was = narrow();
addEventListener("resize", () => { if (narrow() !== was) { was = narrow(); document.querySelectorAll(".js-plotly-plot").forEach((plot) => Plotly.purge(plot)); figures.forEach((f) => f()); } });
document.documentElement.dataset.ready = "true";
})();
