// Pages that change while they are looked at: lines drawn from arrays, parts of a
// page that the server renders anew, and the stream of events that brings both.
// A page is whole without this script, which only keeps it up to date.
//
//   <script defer src="{{asset "live.js"}}"></script>, then the page's own script:
//
//   live.plot(figure, options)      a line plot in a <figure class="plot">; returns a
//                                   function draw(times, columns): times are seconds
//                                   since 1970, in order; columns are as many arrays
//                                   of numbers as there are series, each as long as
//                                   times, null where nothing was measured
//     options.label                 what is measured, such as "Hit ratio"
//     options.series                names of the lines, such as ["hits", "misses"]
//     options.format                number → text, for axis and table; default as is
//     options.max                   top of the axis; default what the numbers need
//
//     The figure has a <figcaption>, and may have <details> with a <table> for those
//     who see no plot; what is missing is added. The table shows the numbers of when
//     it was opened, and stands still while somebody reads it. The plot itself is
//     one image to a screen reader, with a summary as its name.
//
//   live.parts(parts)               {id: html}: puts new HTML into the elements of
//                                   these ids, where it is another; the server made
//                                   it, and has escaped what is in it
//
//   live.follow(url, on, options)   reads server-sent events, JSON each, and calls
//                                   on[type](data); returns {pause(), resume()}
//     options.state                 element that says how the stream stands
//     options.button                <button hidden> that pauses and resumes
//
//     A broken stream is taken up where it broke: the server gets the last event's
//     id as Last-Event-ID or, after an answer that was no stream, as ?after=ID.
//     While the page is hidden nothing is read.
"use strict";

const live = (() => {
  const space = "http://www.w3.org/2000/svg";

  function svg(name, attributes, text) {
    const node = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function element(name, text) {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  const clock = (time) => new Date(time * 1000).toLocaleTimeString();

  // top is the end of an axis: 1, 2 or 5 times a power of ten.
  function top(highest) {
    if (!(highest > 0)) return 1;
    const power = 10 ** Math.floor(Math.log10(highest));
    return [1, 2, 5, 10].find((n) => n * power >= highest * 0.999) * power;
  }

  function plot(figure, { label, series, format = String, max }) {
    const height = 180, left = 68, right = 8, above = 10, below = 24;
    const image = svg("svg", { role: "img", height, class: "lines" });
    let caption = figure.querySelector("figcaption");
    if (!caption) figure.prepend(caption = element("figcaption", label));
    let details = figure.querySelector("details");
    if (!details) {
      details = element("details");
      details.append(element("summary"));
      figure.append(details);
    }
    details.querySelector("summary").textContent = `Figures: ${label}`;
    caption.after(legend(series), image);
    let times = [], columns = series.map(() => []);
    details.addEventListener("toggle", () => details.open && tabulate());
    new ResizeObserver(render).observe(figure);

    function draw(newTimes, newColumns) {
      [times, columns] = [newTimes, newColumns];
      render();
    }

    function render() {
      const width = figure.clientWidth;
      if (!width) return;
      const all = columns.flat().filter((n) => n !== null);
      const end = max ?? top(Math.max(0, ...all));
      const first = times[0] ?? 0, span = Math.max(1, (times.at(-1) ?? 0) - first);
      const x = (time) => (left + (time - first) / span * (width - left - right)).toFixed(1);
      const y = (n) => (above + (1 - Math.min(n, end) / end) * (height - above - below)).toFixed(1);
      image.setAttribute("width", width);
      image.setAttribute("aria-label", summary(all));
      image.replaceChildren();
      for (const n of [0, end / 2, end]) {
        image.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(n), y2: y(n) }),
          svg("text", { x: left - 6, y: y(n), dy: "0.32em", "text-anchor": "end" }, format(n)));
      }
      if (times.length) {
        image.append(svg("text", { x: left, y: height - 6 }, clock(first)),
          svg("text", { x: width - right, y: height - 6, "text-anchor": "end" }, clock(times.at(-1))));
      }
      columns.forEach((column, i) => line(column, `line-${i + 1}`, x, y));
    }

    // line leaves out what was not measured. A number between two that were not is
    // a dot.
    function line(column, name, x, y) {
      let d = "";
      column.forEach((n, i) => {
        if (n === null) return;
        const begins = (column[i - 1] ?? null) === null, ends = (column[i + 1] ?? null) === null;
        if (begins && ends) image.append(svg("circle", { class: name, cx: x(times[i]), cy: y(n), r: 2 }));
        else d += `${begins ? "M" : "L"}${x(times[i])} ${y(n)}`;
      });
      image.append(svg("path", { class: name, d }));
    }

    function summary(all) {
      if (!all.length) return `${label}: nothing measured yet`;
      const lines = series.map((name, i) => {
        const measured = columns[i].filter((n) => n !== null);
        if (!measured.length) return `${name}: nothing measured`;
        return `${name}: last ${format(measured.at(-1))}, lowest ${format(Math.min(...measured))}, highest ${format(Math.max(...measured))}`;
      });
      return `${label} from ${clock(times[0])} to ${clock(times.at(-1))}. ${lines.join("; ")}.`;
    }

    function tabulate() {
      const table = element("table"), head = element("tr"), body = element("tbody");
      for (const name of ["Time", ...series]) {
        const cell = element("th", name);
        cell.scope = "col";
        head.append(cell);
      }
      for (let i = times.length - 1; i >= 0; i--) {
        const row = element("tr"), time = element("th", clock(times[i]));
        time.scope = "row";
        row.append(time, ...columns.map((c) => element("td", c[i] === null ? "–" : format(c[i]))));
        body.append(row);
      }
      const header = element("thead");
      header.append(head);
      table.append(element("caption", `${label}, newest first`), header, body);
      // What scrolls can be scrolled with the keyboard too.
      const box = element("div");
      box.className = "scroll";
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", `Figures: ${label}`);
      box.append(table);
      details.replaceChildren(details.querySelector("summary"), box);
    }

    return draw;
  }

  // legend names the lines; that each is dashed in its own way is in the style.
  function legend(series) {
    const list = element("ul");
    list.className = "legend";
    series.forEach((name, i) => {
      const item = element("li"), mark = svg("svg", { width: 28, height: 10, "aria-hidden": "true", class: "lines" });
      mark.append(svg("path", { class: `line-${i + 1}`, d: "M2 5H26" }));
      item.append(mark, ` ${name}`);
      list.append(item);
    });
    return list;
  }

  function parts(all) {
    for (const [id, html] of Object.entries(all)) {
      const node = document.getElementById(id);
      // What the browser makes of HTML need not be the same text.
      if (node && node.sent !== html) node.innerHTML = node.sent = html;
    }
  }

  function follow(url, on, { state, button } = {}) {
    const again = 5000; // ms until a stream that was refused is asked for again
    let source, timer, last = "", paused = false;
    const say = (text) => { if (state && state.textContent !== text) state.textContent = text; };

    function open() {
      close();
      if (paused || document.hidden) return;
      const target = new URL(url, document.baseURI);
      if (last) target.searchParams.set("after", last);
      source = new EventSource(target);
      source.onopen = () => say("Live");
      source.onerror = () => {
        say("Not connected; trying again");
        if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, again);
      };
      for (const [type, handle] of Object.entries(on)) {
        source.addEventListener(type, (event) => {
          last = event.lastEventId || last;
          handle(JSON.parse(event.data));
        });
      }
    }

    function close() {
      clearTimeout(timer);
      source?.close();
      source = undefined;
    }

    function pause() {
      paused = true;
      close();
      say("Paused");
      if (button) button.textContent = "Resume";
    }

    function resume() {
      paused = false;
      if (button) button.textContent = "Pause";
      open();
    }

    if (button) {
      button.hidden = false;
      button.addEventListener("click", () => (paused ? resume() : pause()));
    }
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    resume();
    return { pause, resume };
  }

  return { plot, parts, follow };
})();
