"use strict";
(() => {
  const rows = DATA.rows.filter((row) => row.matrix.length);
  const find = (id) => rows.find((row) => row.id === id);
  const wanted = hashValues();
  const state = { a: (find(wanted.a) || rows[0] || {}).id, b: (find(wanted.b) || rows[1] || rows[0] || {}).id };

  function fill(select, key) {
    select.replaceChildren(...rows.map((row) => el("option", { value: row.id }, row.name + " · " + row.suite + " · " + row.division + " · " + row.date)));
    select.value = state[key] || "";
    select.addEventListener("change", () => { state[key] = select.value; draw(); });
  }

  /* Welch's t at 95 %, as on the leaderboard; below two seeds nothing differs. */
  const T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042];
  const t95 = (f) => { const n = Math.floor(f); return n < 1 ? Infinity : n <= 30 ? T95[n - 1] : 1.96 + 2.46 / n; };
  function halfOfDifference(a, b) {
    if (a[2] === null || b[2] === null) return null;
    const va = a[2] * a[2] / a[3], vb = b[2] * b[2] / b[3];
    if (va + vb === 0) return 0;
    const freedom = (va + vb) ** 2 / (va * va / (a[3] - 1) + vb * vb / (b[3] - 1));
    return t95(Math.max(freedom, 1)) * Math.sqrt(va + vb);
  }

  function metrics(a, b) {
    const body = el("tbody");
    for (const key of DATA.columns) {
      const one = a.metrics[key], two = b.metrics[key];
      if (!one || !two) continue;
      const gap = two[0] - one[0], half = halfOfDifference(one, two);
      const word = half === null ? "one seed: no interval" : Math.abs(gap) > half ? (gap > 0 ? "B is higher" : "A is higher") : "tie";
      const cell = (m) => el("td", { class: "num" }, number(m[0], SIGNED.has(key), 2), m[1] === null ? "" : el("span", { class: "dim" }, " ±" + number(m[1])));
      body.append(el("tr", null, el("th", { scope: "row" }, key), cell(one), cell(two),
        el("td", { class: "num" }, el("b", null, number(gap, true, 2)), half === null ? "" : el("span", { class: "dim" }, " ±" + number(half))), el("td", null, word)));
    }
    const headers = ["metric", "A", "B", "B − A", "95 %"];
    return el("section", { class: "card" }, el("h2", null, "Metrics"), el("div", { class: "table-wrap" },
      el("table", { class: "plain-table" }, el("thead", null, el("tr", null, ...headers.map((h, i) => el("th", { scope: "col", class: i > 0 && i < 4 ? "num" : null }, h)))), body)));
  }

  function heat(row, title, other) {
    const names = [...row.tasks, ...row.general], body = el("tbody");
    const joint = row.division === "joint" || Boolean(other && other.division === "joint");
    row.matrix.forEach((line, t) => {
      if (line.every((v) => v === null) || (other && other.matrix[t].every((v) => v === null))) return;  // joint training has no stages between
      const label = joint && t === row.tasks.length ? "the end" : t + " " + row.tasks[t - 1];
      const tr = el("tr", null, el("th", { scope: "row" }, t === 0 ? "base" : label));
      line.forEach((v, j) => {
        const gap = other ? (v === null || other.matrix[t][j] === null ? null : other.matrix[t][j] - v) : v;
        const share = gap === null ? 0 : other ? Math.min(Math.abs(gap) / 40, 1) : gap / 100;
        const td = el("td", { class: (t === j + 1 && !joint ? "learned " : "") + (j >= row.tasks.length ? "general" : "") }, number(gap, Boolean(other)));
        td.style.setProperty("--v", share.toFixed(3));
        if (other) td.style.setProperty("--to", gap < 0 ? "var(--hot)" : "var(--cell)");
        tr.append(td);
      });
      body.append(tr);
    });
    return el("section", { class: "card" }, el("h2", null, title), el("div", { class: "table-wrap" },
      el("table", { class: "heat" + (other ? " diff" : "") }, el("thead", null, el("tr", null, el("th", { scope: "col" }, "after"),
        ...names.map((n, j) => el("th", { scope: "col", class: j >= row.tasks.length ? "general" : null }, n)))), body)));
  }

  function draw() {
    const a = find(state.a), b = find(state.b), place = byId("comparison");
    byId("pick-a").value = state.a || ""; byId("pick-b").value = state.b || "";
    if (!a || !b) { place.replaceChildren(el("p", { class: "notice" }, "There are no two entries to compare.")); return; }
    setHash({ a: a.id, b: b.id });
    const same = a.suite === b.suite && a.tasks.join() === b.tasks.join() && a.general.join() === b.general.join();
    const parts = [metrics(a, b)];
    if (a.suite !== b.suite) parts.unshift(el("p", { class: "notice" }, "These entries are of different suites: their numbers cannot be compared."));
    else if (a.division === "joint" || b.division === "joint") parts.unshift(el("p", { class: "notice" }, "One of these is the upper bound: it trained on all tasks at once and has no stages between."));
    else if (a.division !== b.division) parts.unshift(el("p", { class: "notice" }, "These entries are of different divisions: one is " + a.division + ", the other " + b.division + "."));
    if (same) parts.push(heat(a, "B − A, percentage points", b));
    parts.push(heat(a, "A: " + a.name), heat(b, "B: " + b.name));
    place.replaceChildren(...parts);
  }

  fill(byId("pick-a"), "a");
  fill(byId("pick-b"), "b");
  byId("swap").addEventListener("click", () => { [state.a, state.b] = [state.b, state.a]; draw(); });
  draw();
})();
