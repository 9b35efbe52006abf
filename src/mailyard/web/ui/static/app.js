// The pages' only script of our own: live refresh over Server-Sent Events, the charts, the menu.
// An element with data-live="kind …" and data-src="/fragment" is fetched again, at most twice a
// second, whenever an event of one of its kinds arrives.
(() => {
  "use strict";
  htmx.config.allowEval = false;
  htmx.config.includeIndicatorStyles = false;

  const menu = document.querySelector(".menu");
  if (menu) {
    menu.addEventListener("click", () => {
      const open = document.querySelector(".side").classList.toggle("open");
      menu.setAttribute("aria-expanded", String(open));
    });
  }

  // The navigation is longer than a small screen: its current entry is in sight.
  const side = document.querySelector(".side"), current = side && side.querySelector("[aria-current]");
  if (current && side.scrollHeight > side.clientHeight) {
    side.scrollTop = Math.max(0, current.offsetTop - side.clientHeight / 2);
  }

  for (const form of document.querySelectorAll("form[data-confirm]")) {
    form.addEventListener("submit", (event) => {
      if (!window.confirm(form.dataset.confirm)) event.preventDefault();
    });
  }

  // A button that copies what it names; where the clipboard is closed (no https) the text is marked.
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        window.getSelection().selectAllChildren(source);
        button.textContent = "Marked";
      }
    });
  }

  // The editor: what is typed is shown a moment later, without a button.
  const editor = document.querySelector("form[data-live-preview]");
  if (editor) {
    const show = document.getElementById("show");
    let due = 0;
    const soon = (event) => {
      if (event && event.target.closest(".test")) return;
      clearTimeout(due);
      due = setTimeout(() => editor.requestSubmit(show), event ? 400 : 0);
    };
    editor.addEventListener("input", soon);
    soon();
  }

  const pending = new Map();
  const refresh = (element) => {
    if (pending.has(element)) return;
    pending.set(element, setTimeout(() => {
      pending.delete(element);
      if (document.body.contains(element)) {
        htmx.ajax("GET", element.dataset.src, { target: element, swap: "innerHTML" });
      }
    }, 500));
  };
  const kindsOf = (element) => element.dataset.live.split(" ");
  const listeners = () => [...document.querySelectorAll("[data-live]")];

  const follow = () => {
    const kinds = [...new Set(listeners().flatMap(kindsOf))];
    if (!kinds.length) return;
    const source = new EventSource("/v1/events?kinds=" + encodeURIComponent(kinds.join(",")));
    for (const kind of kinds) {
      source.addEventListener(kind, () => {
        for (const element of listeners()) if (kindsOf(element).includes(kind)) refresh(element);
      });
    }
    // What came between the page and its stream is in neither.
    source.addEventListener("open", () => listeners().forEach(refresh), { once: true });
    source.addEventListener("open", () => document.body.dataset.connection = "live");
    source.addEventListener("error", () => document.body.dataset.connection = "waiting");
    window.addEventListener("pagehide", () => source.close());
  };

  for (const element of document.querySelectorAll("[data-every]")) {
    setInterval(() => refresh(element), Number(element.dataset.every) * 1000);
  }

  const chart = document.querySelector("[data-chart]");
  if (chart) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    let plot = null;
    const clock = (mark) => new Date(mark * 1000).toLocaleTimeString([], {
      hour: "2-digit", minute: "2-digit", hour12: false,
    });
    const daily = chart.dataset.unit === "day";
    const [first, second] = (chart.dataset.lines || "received,sent").split(",");
    const day = (mark) => new Date(mark * 1000).toISOString().slice(5, 10);
    const tick = daily ? day : clock;
    const unit = daily ? "" : "/min";
    const days = { incrs: [1, 2, 7, 14].map((count) => count * 86400) };
    const axis = () => ({ stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 } });
    const draw = (data) => {
      if (plot) { plot.setData(data); return; }
      plot = new uPlot({
        width: chart.clientWidth, height: 220, cursor: { y: false },
        series: [
          { label: daily ? "day" : "at", value: (_, mark) => mark == null ? "–" : tick(mark) },
          { label: first + unit, stroke: colour("--good"), width: 2, fill: colour("--good-soft") },
          { label: second + unit, stroke: colour(second === "failed" ? "--bad" : "--accent"), width: 2 },
        ],
        axes: [
          { ...axis(), ...(daily && days), values: (_, marks) => marks.map(tick) },
          { ...axis(), size: 64 },
        ],
        ...(daily && { tzDate: (mark) => uPlot.tzDate(new Date(mark * 1000), "Etc/UTC") }),
        scales: { y: { range: (_, __, highest) => [0, Math.max(10, highest * 1.1)] } },
      }, data, chart);
    };
    const load = () => fetch(chart.dataset.chart, { headers: { accept: "application/json" } })
      .then((answer) => answer.ok ? answer.json() : Promise.reject(new Error(String(answer.status))))
      .then((series) => draw([series.at, series[first], series[second]]))
      .catch((error) => console.warn("the chart could not be loaded", error));
    load();
    if (!daily) setInterval(load, 5000);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      if (plot) plot.destroy();
      plot = null;
      load();
    });
    window.addEventListener("resize", () => plot && plot.setSize({ width: chart.clientWidth, height: 220 }));
  }

  follow();
})();
