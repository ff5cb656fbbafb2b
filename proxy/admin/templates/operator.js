// Keeps the operator's page up to date: what stands on it the server renders anew
// once a second, and each change of the database adds a row.
"use strict";

(() => {
  const mostRows = 100, mostSamples = 300;
  const byID = (id) => document.getElementById(id);

  // A part in which somebody has the focus, or has selected something, is left
  // alone until they leave.
  function isBusy(node) {
    const selection = document.getSelection();
    return node.contains(document.activeElement) || !selection.isCollapsed && selection.containsNode(node, true);
  }

  const idle = (parts) => Object.fromEntries(Object.entries(parts).filter(([id]) => byID(id) && !isBusy(byID(id))));

  const plots = byID("plots");
  const number = (n) => n.toLocaleString("en", { maximumFractionDigits: 3 });
  let drawRatio, drawTimes, samples = [];

  function plot(newer) {
    if (!plots || !newer.length) return;
    samples = [...samples, ...newer].slice(-mostSamples);
    if (plots.hidden) {
      plots.hidden = false;
      drawRatio = live.plot(byID("plot-ratio"), { label: "Hit ratio, percent", series: ["hits of what was looked for"], format: number, max: 100 });
      drawTimes = live.plot(byID("plot-time"), { label: "Time, milliseconds", series: ["hit, median", "hit, 99 %", "miss, median", "miss, 99 %"], format: number });
    }
    const column = (name) => samples.map((s) => s[name]), times = column("at");
    drawRatio(times, [column("hit_ratio_percent")]);
    drawTimes(times, ["hit_p50_ms", "hit_p99_ms", "miss_p50_ms", "miss_p99_ms"].map(column));
  }

  const changes = byID("changes");

  function cell(name, text, kind) {
    const node = document.createElement(name);
    node.textContent = text;
    if (kind) node.className = kind;
    return node;
  }

  function row(change) {
    const tr = document.createElement("tr"), time = document.createElement("time");
    const at = cell("th", "");
    at.scope = "row";
    time.dateTime = change.at;
    time.textContent = new Date(change.at).toISOString().slice(11, 23);
    at.append(time);
    const unnamed = change.unnamed ? [`${change.unnamed} that no stored answer names`] : [];
    const tags = [change.tags.join(", "), ...unnamed].filter(Boolean).join(" and ");
    tr.append(at,
      cell("td", change.tables.map((t) => t.table).join(", ") || "–"),
      cell("td", change.tables.reduce((n, t) => n + t.rows, 0).toLocaleString("en"), "number"),
      cell("td", tags),
      cell("td", change.delay_ms === null ? "–" : `${change.delay_ms.toFixed(1)} ms`, "number"));
    return tr;
  }

  function add(change) {
    changes.querySelector(".none")?.remove();
    changes.prepend(row(change));
    while (changes.rows.length > mostRows) changes.lastElementChild.remove();
  }

  // A page that has heard nothing must not go on saying that all is well.
  const silence = 5000; // ms
  let heard = Date.now(), paused = false;

  function hear() {
    heard = Date.now();
    tell();
  }

  function tell() {
    const silent = !paused && !document.hidden && Date.now() - heard > silence;
    if (silent && byID("silent").hidden) byID("silent").textContent = `Not known. Nothing was heard of this process since ${new Date(heard).toLocaleTimeString()}: all that is below is from then.`;
    byID("silent").hidden = !silent;
    byID("verdict").hidden = silent;
  }

  setInterval(tell, 1000);
  document.addEventListener("visibilitychange", () => document.hidden || hear());

  const streams = [live.follow("/events", {
    status: (event) => {
      hear();
      live.parts(idle(event.parts));
      plot(event.samples);
    },
  }, { state: byID("stream") })];
  if (changes) streams.push(live.follow(`/changes/events?after=${changes.dataset.last}`, { change: add }));

  const button = byID("pause");
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    for (const stream of streams) paused ? stream.pause() : stream.resume();
    button.textContent = paused ? "Resume" : "Pause";
    hear();
  });
})();
