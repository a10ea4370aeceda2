// The report: figures before and after, learning curves, time, completions, configs.

const WIDTH = 360, HEIGHT = 190, LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 24;

function report(runs) {
  const shown = new Set(runs.groups.keys());
  const redraws = [];
  const several = runs.groups.some((group) => group.seeds.length > 1);
  if (runs.warnings.length) warnings(runs.warnings);
  if (runs.comparisons.length) comparisons(runs.comparisons);
  overview(runs, several);

  const curves = section("curves", "Curves");
  curves.append(make("p", { class: "quiet" },
    (several ? "Lines are means over seeds, bands their 95 % intervals: Student's t or, of shares, Wilson's with "
      + "Student's quantile, which stay in [0, 1]. A curve of one seed has no band. Where all seeds are equal a band has no "
      + "width, which does not mean certainty. "
      : "One seed each, so there are no bands. ")
    + "The x-axis is completions trained on. To read values, point at or tap a chart, or focus it and press the arrow keys."));
  if (runs.groups.length > 1) curves.append(legend(runs.groups, shown, redraws));
  for (const { title, charts } of runs.sections) {
    const grid = make("div", { class: "charts" });
    for (const chart of charts) grid.append(figure(chart, runs.groups, shown, redraws));
    curves.append(make("h3", {}, title), grid);
  }
  if (runs.phases.length) time(runs);
  if (runs.samples.length) completions(runs);
  const configs = section("configs", "Configs");
  for (const { run, text } of runs.configs)
    configs.append(make("details", {}, make("summary", {}, run), make("pre", { tabindex: "0" }, text)));
}

function overview(runs, several) {
  const names = [...new Set(runs.groups.flatMap((group) => Object.keys(group.figures)))];
  const before = runs.groups.some((group) => Object.values(group.figures).some((figure) => figure.before));
  const head = ["", "seeds", "completions", ...names];
  const rows = runs.groups.map((group) => [
    group.label,
    group.seeds.join(", "),
    group.timesteps[0] === group.timesteps[1] ? String(group.timesteps[0]) : group.timesteps.join("–"),
    ...names.map((name) => figures(group.figures[name], before)),
  ]);
  const made = section("overview", "Overview", table(head, rows));
  made.append(make("p", { class: "quiet" }, `Accuracy on held-out problems, ${before ? "before → " : ""}after `
    + "training, in brackets a 95 % interval: " + (several ? "over seeds Wilson's with Student's quantile, which stays in [0, 1] "
      + "(dots are seeds; where all are equal there is none); of one seed " : "") + "Wilson's over problems."));
}

function figures(figure, before) {
  const cell = document.createDocumentFragment();
  if (!figure) return cell;
  const one = (e) => (e ? e.value.toFixed(3) : "–");
  cell.append(before ? `${one(figure.before)} → ${one(figure.after)} ` : `${one(figure.after)} `);
  const last = figure.after || figure.before;
  if (last.low !== null && last.high !== null)
    cell.append(make("small", {}, `[${last.low.toFixed(3)}, ${last.high.toFixed(3)}]`));
  else if (last.seeds) cell.append(make("small", {}, `equal on ${last.seeds.length} seeds`));
  if (last.seeds) cell.append(" ", dots(last.seeds));
  return cell;
}

/** The values of single seeds between 0 and 1. */
function dots(values) {
  const strip = draw("svg", { class: "dots", viewBox: "0 0 64 10", role: "img",
    "aria-label": `seeds: ${values.map((value) => value.toFixed(3)).join(", ")}` });
  strip.append(draw("line", { x1: 4, x2: 60, y1: 5, y2: 5 }));
  for (const value of values) strip.append(draw("circle", { cx: 4 + 56 * value, cy: 5, r: 3 }));
  return strip;
}

function legend(groups, shown, redraws) {
  const box = make("div", { class: "legend", role: "group", "aria-label": "Curves to show" });
  groups.forEach((group, i) => {
    const tick = make("input", { type: "checkbox" });
    tick.checked = true;
    tick.addEventListener("change", () => {
      if (tick.checked) shown.add(i); else shown.delete(i);
      for (const redraw of redraws) redraw();
    });
    const sample = draw("svg", { viewBox: "0 0 34 12", "aria-hidden": "true" });
    sample.append(draw("line", { x1: 0, x2: 34, y1: 6, y2: 6, stroke: group.colour, "stroke-width": 2.5,
      "stroke-dasharray": group.dashes.join(" ") }));
    box.append(make("label", {}, tick, sample, group.label));
  });
  return box;
}

/** Round numbers from low to high, about n of them. */
function ticks(low, high, n) {
  const raw = (high - low) / n, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const made = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) made.push(k * step);
  return made;
}

const thousands = (x) => (x >= 1e6 ? `${number(x / 1e6)}M` : x >= 1e4 ? `${number(x / 1e3)}k` : String(x));

function figure(chart, groups, shown, redraws) {
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: "0" });
  const tip = make("div", { class: "tip", "aria-live": "polite" });
  tip.hidden = true;
  const made = make("figure", { "data-metric": chart.metric },
    make("figcaption", {}, chart.title, make("small", {}, chart.note)), svg, tip);
  const clip = `clip-${chart.metric.replace(/[^a-z0-9]/gi, "-")}`;
  let x, y, visible = [], stops = [], at = -1;

  function redraw() {
    svg.replaceChildren();
    hide();
    visible = chart.series.filter((series) => shown.has(series.group));
    stops = [...new Set(visible.flatMap((series) => series.x))].sort((a, b) => a - b);
    if (!stops.length) return;
    const [left, right] = [0, Math.max(stops[stops.length - 1], 1)];
    let [low, high] = extent(visible, chart.axis);
    const names = visible.map((s) => `${groups[s.group].label} ends at ${number(s.y[s.y.length - 1])}`);
    svg.setAttribute("aria-label", `${chart.title}: ${names.join(", ")}`);
    x = (value) => LEFT + (WIDTH - LEFT - RIGHT) * (value - left) / (right - left);
    y = (value) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low);
    const mask = draw("clipPath", { id: clip });
    mask.append(draw("rect", { x: LEFT, y: TOP - 2, width: WIDTH - LEFT - RIGHT + 4, height: HEIGHT - TOP - BOTTOM + 4 }));
    svg.append(mask);
    for (const value of ticks(low, high, 4)) {
      svg.append(draw("line", { class: "gridline", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
      svg.append(draw("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, number(Number(value.toPrecision(6)))));
    }
    for (const value of ticks(left, right, 4)) {
      const anchor = x(value) > WIDTH - 20 ? "end" : "middle";
      svg.append(draw("text", { x: x(value), y: HEIGHT - 7, "text-anchor": anchor }, thousands(value)));
    }
    svg.append(draw("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }));
    const plot = draw("g", { "clip-path": `url(#${clip})` });
    for (const series of visible) if (series.low) plot.append(band(series));
    for (const series of visible) plot.append(...line(series));
    svg.append(plot);
  }

  const path = (xs, ys) => xs.map((value, i) => `${i ? "L" : "M"}${x(value).toFixed(1)} ${y(ys[i]).toFixed(1)}`).join("");

  function band(series) {
    const back = path([...series.x].reverse(), [...series.high].reverse()).replace("M", "L");
    return draw("path", { d: `${path(series.x, series.low)}${back}Z`, fill: groups[series.group].colour, opacity: 0.18 });
  }

  function line(series) {
    const { colour, dashes } = groups[series.group];
    const parts = [draw("path", { class: "line", d: path(series.x, series.y), fill: "none", stroke: colour,
      "stroke-width": 1.8, "stroke-dasharray": dashes.join(" "), "stroke-linejoin": "round" })];
    if (series.x.length < 9) series.x.forEach((value, i) =>
      parts.push(draw("circle", { cx: x(value), cy: y(series.y[i]), r: 2.4, fill: colour })));
    return parts;
  }

  function hide() {
    tip.hidden = true;
    svg.querySelector(".cross")?.remove();
  }

  function show(index) {
    if (!stops.length) return;
    at = Math.max(0, Math.min(stops.length - 1, index));
    hide();
    const stop = stops[at];
    svg.append(draw("line", { class: "cross", x1: x(stop), x2: x(stop), y1: TOP, y2: HEIGHT - BOTTOM }));
    tip.replaceChildren(make("strong", {}, `${stop} completions`));
    for (const series of visible) {
      const i = series.x.indexOf(stop);
      if (i < 0) continue;
      const mark = make("i");
      mark.style.backgroundColor = groups[series.group].colour;
      const range = series.low && series.low[i] < series.high[i] ? ` [${number(series.low[i])}, ${number(series.high[i])}]` : "";
      const label = groups.length > 1 ? `${groups[series.group].label}: ` : "";
      tip.append(make("div", {}, mark, `${label}${number(series.y[i])}${range}`));
    }
    tip.hidden = false;
    const inside = svg.getBoundingClientRect(), outside = made.getBoundingClientRect();
    const along = inside.left - outside.left + x(stop) * inside.width / WIDTH;
    tip.style.left = `${Math.max(4, Math.min(along + 10, outside.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${svg.offsetTop || made.querySelector("figcaption").offsetHeight + 12}px`;
  }

  const nearest = (event) => {
    const inside = svg.getBoundingClientRect(), at = (event.clientX - inside.left) * WIDTH / inside.width;
    return stops.reduce((best, stop, i) => (Math.abs(x(stop) - at) < Math.abs(x(stops[best]) - at) ? i : best), 0);
  };
  for (const kind of ["pointermove", "pointerdown"])
    svg.addEventListener(kind, (event) => stops.length && show(nearest(event)));
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: stops.length - 1 }[event.key];
    if (event.key === "Escape") hide();
    if (next === undefined) return;
    event.preventDefault();
    show(next);
  });
  redraws.push(redraw);
  redraw();
  return made;
}

/** From 0 to 1 or more for a share; else what the means need, and of the bands at most as much again on each side. */
function extent(visible, axis) {
  const means = visible.flatMap((series) => series.y);
  let low = Math.min(...means), high = Math.max(...means);
  if (axis === "share") return [0, Math.max(1, high)];
  const room = high - low || Math.abs(high) || 1;
  for (const { low: below, high: above } of visible) {
    if (!below) continue;
    low = Math.min(low, Math.max(Math.min(...below), Math.min(...means) - room));
    high = Math.max(high, Math.min(Math.max(...above), Math.max(...means) + room));
  }
  if (Math.min(...means) >= 0 && (axis === "small" || low < 0.5 * high)) low = 0;  // no band of a share goes below 0
  if (axis === "small") high = Math.max(high, 0.05);
  if (high === low) [low, high] = [low - room / 2, high + room / 2];
  return [low, high + 0.04 * (high - low)];
}

function time(runs) {
  const names = { generate: "sampling", verify: "verifier", score: "scoring", update: "updates" };
  const colours = { generate: "#0072B2", verify: "#E69F00", score: "#CC79A7", update: "#009E73" };
  const total = (phase) => Object.keys(names).reduce((sum, key) => sum + (phase[key] || 0), 0);
  const longest = Math.max(...runs.phases.map(total)) || 1;
  const bars = make("div", { class: "bars" });
  for (const phase of runs.phases) {
    const bar = make("div", { class: "bar", role: "img", "aria-label":
      Object.keys(names).map((key) => `${names[key]} ${number(phase[key])} s`).join(", ") });
    for (const key of Object.keys(names)) {
      const part = make("i", { title: `${names[key]}: ${number(phase[key])} s` });
      part.style.width = `${100 * (phase[key] || 0) / longest}%`;
      part.style.backgroundColor = colours[key];
      bar.append(part);
    }
    bars.append(make("span", {}, runs.groups[phase.group].label), bar, make("span", {}, `${number(total(phase))} s`));
  }
  const key = make("p", { class: "key" });
  for (const name of Object.keys(names)) {
    const mark = make("span", { class: "scale" });
    mark.style.width = ".9rem";
    mark.style.backgroundColor = colours[name];
    key.append(make("span", {}, mark, ` ${names[name]}`));
  }
  const head = ["seconds per rollout", ...Object.values(names), "sum", "tokens/s, sampling"];
  const rows = runs.phases.map((phase) => [runs.groups[phase.group].label,
    ...Object.keys(names).map((name) => number(phase[name])), number(total(phase)), number(phase.tokens_per_second)]);
  section("time", "Time per phase", key, make("div", { class: "scroll" }, bars), make("p"), table(head, rows));
}

const VERDICTS = { correct: "correct", incorrect: "incorrect", no_answer: "no answer", no_verdict: "no verdict" };

function verdict(status, reason) {
  const known = Object.hasOwn(VERDICTS, status) ? status : "no_verdict";
  return make("span", { class: `verdict ${known}` }, (VERDICTS[status] || String(status)) + (reason ? `: ${reason}` : ""));
}

function completions(runs) {
  const which = make("select", { "aria-label": "Run" });
  runs.samples.forEach((sample, i) => which.append(make("option", { value: i }, sample.run)));
  const filter = make("select", { "aria-label": "Verdict" }, make("option", { value: "" }, "all verdicts"));
  for (const [status, name] of Object.entries(VERDICTS)) filter.append(make("option", { value: status }, name));
  const list = make("div");
  const fill = () => {
    list.replaceChildren();
    const chosen = runs.samples[which.value];
    const shown = ["before", "after"].filter((when) => chosen.problems.some((problem) => problem[when].length));
    if (chosen.unreadable) list.append(make("p", { class: "quiet" },
      `${chosen.unreadable} rows of samples.jsonl are no samples and are left out.`));
    for (const problem of chosen.problems) {
      const sides = shown.map((when) => {
        const rows = problem[when].filter((row) => !filter.value || row.verdict === filter.value);
        const items = rows.map((row) => make("li", {}, verdict(row.verdict, row.reason), ` ${row.kind} `,
          make("div", { class: "text" }, row.completion)));
        return [items.length, make("div", {}, make("h4", {}, `${when} training`), make("ul", {}, ...items))];
      });
      if (sides.every(([count]) => !count)) continue;
      list.append(make("div", { class: "problem" }, make("div", { class: "text" }, make("strong", {}, problem.prompt)),
        make("div", { class: "beside" }, ...sides.map(([, side]) => side))));
    }
    if (!list.querySelector(".problem")) list.append(make("p", { class: "quiet" }, "No completion has this verdict."));
  };
  which.addEventListener("change", fill);
  filter.addEventListener("change", fill);
  section("completions", "Completions", make("p", { class: "quiet" },
    "Held-out problems, before and after training as far as they were kept: greedy decoding and some samples, with the verifier's verdicts."),
    make("div", { class: "pick" }, which, filter), list);
  fill();
}
