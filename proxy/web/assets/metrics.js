// The page of figures (redis-metrics), kept up to date.
"use strict";

(() => {
  const kept = 300; // seconds that are shown
  const still = 5; // seconds between two drawings for who wants little motion
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const percent = (n) => `${n.toFixed(n % 1 ? 1 : 0)}%`;
  const ms = (n) => (n === 0 ? "0 ms" : `${n >= 10 ? n.toFixed(0) : n.toPrecision(2)} ms`);
  const count = (n) => n.toLocaleString("en");

  function plot(id, options, ...fields) {
    const figure = document.getElementById(id);
    figure.hidden = false;
    const draw = live.plot(figure, options);
    return (samples) => draw(samples.map((s) => s.at), fields.map((f) => samples.map((s) => s[f])));
  }

  const plots = [
    plot("ratio-plot", { label: "Hit ratio", series: ["hit ratio"], format: percent, max: 100 }, "hit_ratio_percent"),
    plot("latency-plot", { label: "Time of hits (one in 64 is timed)", series: ["half within", "99 of 100 within"], format: ms }, "hit_p50_ms", "hit_p99_ms"),
    plot("miss-plot", { label: "Time of misses", series: ["half within", "99 of 100 within"], format: ms }, "miss_p50_ms", "miss_p99_ms"),
    plot("rate-plot", { label: "Requests per second", series: ["hits in memory", "hits in Redis", "misses"], format: count }, "memory_hits", "redis_hits", "misses"),
  ];

  let samples = [], drawn = 0;

  live.follow(document.getElementById("report").dataset.events, {
    samples(more) {
      // Those of another process begin with what is shown already.
      const last = samples.at(-1)?.at ?? 0;
      samples = samples.concat(more.filter((s) => s.at > last)).slice(-kept);
      const now = samples.at(-1)?.at ?? 0;
      if (calm.matches && now - drawn < still) return;
      drawn = now;
      plots.forEach((draw) => draw(samples));
    },
    parts: live.parts,
  }, { state: document.getElementById("stream"), button: document.getElementById("pause") });
})();
