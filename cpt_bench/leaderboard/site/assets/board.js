"use strict";
(() => {
  const PAGE = 50;
  const FEW = ["Learn", "AvgAcc", "FM", "GeneralDelta", "GapToJoint"];
  const recomputed = (suite) => DATA.rows.some((row) => row.suite === suite && row.division !== "reported");
  const suites = [...new Set(DATA.rows.map((row) => row.suite))].sort((a, b) => recomputed(b) - recomputed(a) || (a < b ? -1 : 1));
  const wanted = hashValues();
  const state = {
    suite: suites.includes(wanted.suite) ? wanted.suite : suites[0] || "",
    sort: wanted.sort || DATA.ranked_by, down: wanted.order !== "up", shown: PAGE, more: wanted.more === "1",
    search: wanted.q || "", division: wanted.division || "", model: wanted.model || "",
    lane: wanted.lane || "", privileges: wanted.privileges || "", picked: [],
  };
  for (const row of DATA.rows) {
    row.words = [row.name, row.model, row.lane, row.badge, ...row.authors, ...row.privileges].join(" ").toLowerCase();
  }

  function rowsOfSuite() { return DATA.rows.filter((row) => row.suite === state.suite); }

  function filtered() {
    const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    return rowsOfSuite().filter((row) =>
      (!state.division || row.division === state.division) &&
      (!state.model || row.model === state.model) &&
      (!state.lane || row.lane === state.lane) &&
      (!state.privileges ||
        (state.privileges === "none" ? !row.privileges.length : row.privileges.some((p) => p.split(":")[0] === state.privileges))) &&
      words.every((word) => row.words.includes(word)));
  }

  function value(row, key) {
    if (key === "name") return row.name.toLowerCase();
    if (key === "rank") return row.rank ? row.rank[0] * 1e6 + row.rank[1] : null;
    if (key === "seeds") return row.seeds;
    if (key === "badge") return row.badge;
    return row.metrics[key] ? row.metrics[key][0] : null;
  }

  function sorted(rows) {
    const key = state.sort, way = state.down ? -1 : 1;
    const above = (row) => (row.division === "joint" && !row.superseded ? 0 : 1);  // the upper bound, whatever the order
    return rows.map((row, i) => [value(row, key), i, row]).sort((a, b) => {
      if (above(a[2]) !== above(b[2])) return above(a[2]) - above(b[2]);
      if (a[0] === null || b[0] === null) return (a[0] === null) - (b[0] === null) || a[1] - b[1];
      return (a[0] < b[0] ? -way : a[0] > b[0] ? way : 0) || a[1] - b[1];
    }).map((triple) => triple[2]);
  }

  function columns(rows) {
    // A publication's own convention has a column of its own; it is never shown as ours.
    const own = rows.some((row) => row.division === "reported" && row.metrics.FM_paper) ? [...FEW, "FM_paper"] : FEW;
    return (state.more ? DATA.columns : own).filter((key) => rows.some((row) => row.metrics[key]));
  }

  /* ------------------------------------------------------------------ table */

  function head(keys) {
    const tr = el("tr");
    const cell = (key, label, number, title) => {
      const on = state.sort === key;
      const arrow = el("span", { class: "arrow", "aria-hidden": "true" }, on ? (state.down ? "↓" : "↑") : "");
      const button = el("button", { type: "button", title }, label, arrow);
      button.addEventListener("click", () => sortBy(key));
      tr.append(el("th", { scope: "col", class: number ? "num" : null, "aria-sort": on ? (state.down ? "descending" : "ascending") : null, "data-key": key }, button));
    };
    tr.append(el("th", { class: "blank", scope: "col", "aria-label": "compare" }));
    cell("rank", "Rank", false, "by " + DATA.ranked_by + " within the division; a range where methods tie, wider where seeds vary more");
    cell("name", "Method", false, "");
    for (const key of keys) cell(key, key, true, DATA.titles[key] || "");
    cell("seeds", "Seeds", true, "");
    cell("badge", "Proof", false, "rescored, reproduced or reported");
    return tr;
  }

  function line(row, keys) {
    const grey = row.division === "reported";
    const tr = el("tr", { class: (grey ? "reported" : row.division) + (row.superseded ? " superseded" : "") });
    const pick = row.matrix.length && el("input", { type: "checkbox", "data-id": row.id, "aria-label": "compare " + row.name });
    if (pick) {
      pick.checked = state.picked.includes(row.id);
      pick.addEventListener("change", () => picked(row, pick));
    }
    tr.append(el("td", { class: "pick" }, pick || ""));
    const rank = row.rank ? (row.rank[0] === row.rank[1] ? String(row.rank[0]) : row.rank[0] + "–" + row.rank[1]) : "–";
    tr.append(el("td", { "data-label": "Rank", class: "rank" }, row.division === "joint" ? "bound" : rank));
    const link = safeLink(row.page || row.link);
    const small = [row.model, ...(row.privileges.length ? [row.privileges.join(", ")] : [])].join(" · ");
    const title = link ? el("a", { href: link, rel: grey ? "noopener noreferrer nofollow" : null }, row.name) : el("span", null, row.name);
    tr.append(el("td", { class: "name", title: row.notes || null }, title, el("small", null, small)));
    for (const key of keys) {
      const m = row.metrics[key];
      const td = el("td", { class: "num", "data-label": key }, el("span", null, m ? number(m[0], SIGNED.has(key)) : "–"));
      if (m && m[1] !== null) td.firstChild.append(el("span", { class: "half" }, "±" + number(m[1])));
      tr.append(td);
    }
    tr.append(el("td", { class: "num", "data-label": "Seeds" }, String(row.seeds)));
    const proof = grey ? "reported, not recomputable" : row.badge;
    const marks = el("span", { class: "badges" }, el("span", { class: "badge " + row.badge }, proof));
    if (row.division === "joint") marks.append(el("span", { class: "badge bound" }, "upper bound"));
    else if (!grey) marks.append(el("span", { class: "badge " + row.division }, row.division));
    if (!grey) marks.append(el("span", { class: "badge" }, row.lane));
    tr.append(el("td", { "data-label": "Proof" }, marks));
    return tr;
  }

  let current = [];
  function draw() {
    const rows = sorted(filtered());
    current = rows;
    const keys = columns(rowsOfSuite());
    const table = byId("board");
    table.tHead.replaceChildren(head(keys));
    const part = document.createDocumentFragment();
    for (const row of rows.slice(0, state.shown)) part.append(line(row, keys));
    table.tBodies[0].replaceChildren(part);
    const shown = Math.min(state.shown, rows.length);
    byId("status").textContent = rows.length ? "showing " + shown + " of " + rows.length + (rows.length === 1 ? " row" : " rows") + ", by " + state.sort : "no row fits the filters";
    byId("show-more").hidden = byId("show-all").hidden = shown >= rows.length;
    setHash({
      suite: state.suite === suites[0] ? "" : state.suite, sort: state.sort === DATA.ranked_by ? "" : state.sort,
      order: state.down ? "" : "up", q: state.search, division: state.division, model: state.model,
      lane: state.lane, privileges: state.privileges, more: state.more ? "1" : "",
    });
    const drawn = [state.suite, state.search, state.division, state.model, state.lane, state.privileges].join("\n");
    if (drawn !== plotted) {  // sorting moves no point; the plot follows once the table is on the screen
      plotted = drawn;
      clearTimeout(waiting);
      waiting = setTimeout(plot, 60);
    }
  }

  let waiting = 0, plotted = null, dots = [];

  function sortBy(key) {
    if (state.sort === key) state.down = !state.down;
    else { state.sort = key; state.down = !["rank", "name", "badge"].includes(key); }
    draw();
    const button = document.querySelector('#board th[data-key="' + CSS.escape(key) + '"] button');
    if (button) button.focus();
  }

  /* ------------------------------------------------------------------- plot */

  function ticks(low, high) {
    const rough = (high - low) / 5 || 1, power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const out = [];
    for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) out.push(Math.abs(v) < 1e-9 ? 0 : v);
    return out;
  }

  function svg(tag, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, v] of Object.entries(attributes)) node.setAttribute(key, v);
    node.append(...children);
    return node;
  }

  function plot() {
    const place = byId("plot");
    const points = current.filter((row) => row.metrics.Learn && row.metrics.FM);
    const card = place.closest("section");
    card.hidden = points.length === 0;
    if (!points.length) { place.replaceChildren(); return; }
    const narrow = place.clientWidth < 560;
    const width = narrow ? 420 : 1100, height = narrow ? 320 : 360, left = 60, right = 18, top = 14, bottom = 42;
    const spread = (key) => {
      const ends = points.flatMap((row) => { const [m, h] = row.metrics[key]; const half = points.length <= 60 && h !== null ? Math.min(h, 25) : 0; return [m - half, m + half]; });
      const low = Math.min(...ends), high = Math.max(...ends), pad = Math.max((high - low) * .08, .5);
      return [low - pad, high + pad];
    };
    const [x0, x1] = spread("Learn"), [y0, y1] = spread("FM");
    const x = (v) => left + (v - x0) / (x1 - x0) * (width - left - right);
    const y = (v) => top + (y1 - v) / (y1 - y0) * (height - top - bottom);
    const root = svg("svg", { viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": "Learning against forgetting of " + points.length + " entries; the same numbers are in the table" });
    for (const v of ticks(x0, x1)) {
      root.append(svg("line", { class: "grid", x1: x(v), x2: x(v), y1: top, y2: height - bottom }));
      root.append(svg("text", { x: x(v), y: height - bottom + 16, "text-anchor": "middle" }, number(v, false, 0)));
    }
    for (const v of ticks(y0, y1)) {
      root.append(svg("line", { class: v === 0 ? "zero" : "grid", x1: left, x2: width - right, y1: y(v), y2: y(v) }));
      root.append(svg("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, number(v, true, 0)));
    }
    root.append(svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "Learn: accuracy just after learning, %  →"));
    root.append(svg("text", { x: 12, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: "rotate(-90 12 " + (top + height - bottom) / 2 + ")" }, "FM: kept more  →"));
    const few = points.length <= 60, layer = svg("g", {});
    const clampX = (v) => Math.min(Math.max(v, left), width - right), clampY = (v) => Math.min(Math.max(v, top), height - bottom);
    const boxes = [], many = {};
    dots = points.map((row) => [x(row.metrics.Learn[0]), y(row.metrics.FM[0]), row]);
    for (const row of points) {
      if (points.length > 300) {  // one path a division: thousands of nodes would take a tenth of a second
        many[row.division] = (many[row.division] || "") + "M" + x(row.metrics.Learn[0]).toFixed(1) + " " + y(row.metrics.FM[0]).toFixed(1) + "h0";
        continue;
      }
      const [lm, lh] = row.metrics.Learn, [fm, fh] = row.metrics.FM, cx = x(lm), cy = y(fm);
      if (few) {
        if (lh !== null) layer.append(svg("line", { class: "bar " + row.division, x1: clampX(x(lm - lh)), x2: clampX(x(lm + lh)), y1: cy, y2: cy }));
        if (fh !== null) layer.append(svg("line", { class: "bar " + row.division, x1: cx, x2: cx, y1: clampY(y(fm - fh)), y2: clampY(y(fm + fh)) }));
      }
      const dot = svg("circle", { class: row.division, cx: cx.toFixed(1), cy: cy.toFixed(1), r: few ? 5 : 3 });
      layer.append(dot);
      if (points.length <= 14) {
        const end = cx > width - 140, text = row.name.length > 24 ? row.name.slice(0, 23) + "…" : row.name;
        const w = text.length * 6.6, place = [[10, -8], [10, 16], [10, -22], [10, 30]].find(([, dy]) =>
          !boxes.some((b) => Math.abs(b[1] - (cy + dy)) < 14 && Math.abs(b[0] - cx) < Math.max(w, b[2]))) || [10, -8];
        boxes.push([cx, cy + place[1], w]);
        layer.append(svg("text", { class: "label", x: cx + (end ? -place[0] : place[0]), y: cy + place[1], "text-anchor": end ? "end" : "start" }, text));
      }
    }
    for (const [division, d] of Object.entries(many)) layer.append(svg("path", { class: "many " + division, d }));
    root.append(layer);
    place.replaceChildren(root);
  }

  /* The nearest point within a finger's width. */
  function near(event) {
    const root = byId("plot").firstChild;
    if (!root) return null;
    const box = root.getBoundingClientRect(), scale = root.viewBox.baseVal.width / box.width;
    const px = (event.clientX - box.left) * scale, py = (event.clientY - box.top) * scale;
    let best = null, least = 14 * scale;
    for (const [cx, cy, row] of dots) {
      const far = Math.hypot(cx - px, cy - py);
      if (far < least) { least = far; best = row; }
    }
    return best;
  }
  byId("plot").addEventListener("click", (event) => {
    const row = near(event), link = row && safeLink(row.page || row.link);
    if (link) location.href = link;
  });
  byId("plot").addEventListener("mousemove", (event) => {
    const row = near(event);
    byId("plot").title = row ? row.name + ": Learn " + number(row.metrics.Learn[0]) + ", FM " + number(row.metrics.FM[0], true) : "";
  });

  /* ---------------------------------------------------------------- controls */

  function picked(row, box) {
    state.picked = state.picked.filter((id) => id !== row.id);
    if (box.checked) state.picked = [...state.picked, row.id].slice(-2);
    for (const other of document.querySelectorAll("#board td.pick input")) {
      other.checked = state.picked.includes(other.getAttribute("data-id"));
    }
    bar();
  }

  function bar() {
    const names = state.picked.map((id) => DATA.rows.find((r) => r.id === id).name);
    byId("compare-bar").hidden = names.length === 0;
    byId("compare-names").textContent = names.length === 1 ? names[0] + " and …" : names.join(" and ");
    const [a, b] = state.picked;
    byId("compare-go").href = "compare.html#a=" + encodeURIComponent(a || "") + (b ? "&b=" + encodeURIComponent(b) : "");
  }

  function options(select, values, chosen, all) {
    select.replaceChildren(el("option", { value: "" }, all), ...values.map((v) => el("option", { value: v, selected: v === chosen }, v)));
    select.value = values.includes(chosen) ? chosen : "";
    return select.value;
  }

  function controls() {
    const rows = rowsOfSuite(), each = (key) => [...new Set(rows.map((row) => row[key]))].sort();
    state.division = options(byId("f-division"), each("division"), state.division, "all");
    state.model = options(byId("f-model"), each("model"), state.model, "all");
    state.lane = options(byId("f-lane"), each("lane"), state.lane, "all");
    const privileges = [...new Set(rows.flatMap((row) => row.privileges.map((p) => p.split(":")[0])))].sort();
    state.privileges = options(byId("f-privileges"), ["none", ...privileges], state.privileges, "any");
    byId("search").value = state.search;
    byId("more").checked = state.more;
    byId("suites").replaceChildren(...suites.map((suite) => {
      const button = el("button", { type: "button", "aria-pressed": String(suite === state.suite) }, suite);
      button.addEventListener("click", () => {
        Object.assign(state, { suite, shown: PAGE, division: "", model: "", lane: "", privileges: "", picked: [] });
        controls(); bar(); draw();
        const pressed = document.querySelector('#suites [aria-pressed="true"]');
        if (pressed) pressed.focus();
      });
      return button;
    }));
  }

  for (const key of ["division", "model", "lane", "privileges"]) {
    byId("f-" + key).addEventListener("change", (event) => { state[key] = event.target.value; state.shown = PAGE; draw(); });
  }
  byId("search").addEventListener("input", (event) => { state.search = event.target.value; state.shown = PAGE; draw(); });
  byId("more").addEventListener("change", (event) => { state.more = event.target.checked; draw(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("show-more").addEventListener("click", () => { state.shown += PAGE; draw(); });
  byId("show-all").addEventListener("click", () => { state.shown = Infinity; draw(); });
  byId("compare-clear").addEventListener("click", () => { state.picked = []; bar(); draw(); });
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    if (event.key === "/" && !typing) { event.preventDefault(); byId("search").focus(); }
  });
  let resizing = 0;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(plot, 120); });

  controls();
  draw();
})();
