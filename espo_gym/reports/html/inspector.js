// The token inspector: one batch, the loss of every algorithm on it.

/** The value of a column at token t: a column is a list, or one number for all tokens. */
const entry = (column, t) => (Array.isArray(column) ? column[t] : column);

function inspector(batch) {
  const { rows, algorithms } = batch;
  const made = section("inspector", "Tokens");
  const position = batch.steps < batch.total_steps
    ? `The policy after ${batch.timesteps} completions of training and ${batch.steps} of the ${batch.total_steps} optimizer steps of its next update, on the minibatch of step ${batch.steps + 1}`
    : `The policy after ${batch.timesteps} completions of training and all ${batch.steps} optimizer steps of its next update, on the minibatch of the last step`;
  made.append(make("p", { class: "quiet" }, `${batch.source}. ${position}: ${batch.completions} completions, `
    + `${rows.length} of them shown. ${batch.own} has the hyperparameters of the run, the others those of the preset ${batch.preset}.`));

  const switcher = make("fieldset", { id: "switch" }, make("legend", {}, "Loss of"));
  const line = make("p", { id: "summary", "aria-live": "polite" });
  const list = make("div", { id: "completion-list" });
  const detail = make("aside", { class: "detail", "aria-label": "The selected token", "aria-live": "polite" });
  made.append(switcher, line, key(), make("div", { class: "workbench" }, list, detail), make("h3", {}, "All algorithms on this batch"), comparison(),
    make("p", { class: "quiet" }, "Cut: share of the tokens with a non-zero advantage whose gradient the clip cuts. Gradient lost: share of the sum "
      + "of |d loss / d logp| without a clip that the clip removes. Width: mean distance of the bounds from 1."));

  const hottest = Math.max(1e-9, ...rows.flatMap((row) => [].concat(row.entropy ?? 0)));
  const boxes = rows.map((row, r) => completion(row, r));
  let chosen = [0, 0];
  rows.some((row, r) => row.tokens.some((_, t) => entry(algorithms[0].rows[r].cut, t) && (chosen = [r, t])));
  let current = algorithms[0];

  for (const algorithm of algorithms) {
    const radio = make("input", { type: "radio", name: "algorithm", value: algorithm.name, title: algorithm.about });
    radio.addEventListener("change", () => choose(algorithm.name, true));
    const run = algorithm.name === batch.own ? "this run, " : "";
    switcher.append(make("label", { class: "chip" }, radio,
      make("span", {}, `${algorithm.name} `, make("small", {}, `${run}${percent(algorithm.summary.cut)} cut`))));
  }

  function completion(row, r) {
    const tokens = make("div", { class: "tokens", role: "group", "aria-label": `Completion of ${row.prompt}; use the arrow keys to move between tokens` });
    const made = row.tokens.map((text, t) => {
      const box = make("span", { class: "token", role: "button", tabindex: t ? "-1" : "0", "data-at": `${r},${t}` }, visible(text));
      // The square root, since most entropies are near 0.
      const heat = entry(row.own, t) ? Math.sqrt(Math.max(0, entry(row.entropy, t)) / hottest) : 0;
      box.style.backgroundColor = `color-mix(in srgb, var(--hot) ${Math.round(100 * heat)}%, var(--card))`;
      if (heat > 0.6) box.classList.add("hot");
      tokens.append(box);
      return box;
    });
    const head = make("p", {}, make("span", { class: "text" }, row.prompt), " ",
      verdict(row.verdict, row.reason), make("span", { class: "quiet" }, ` reward ${number(row.reward)}`), make("span", { class: "quiet credit" }));
    list.append(make("div", { class: "completion" }, head, tokens));
    return { head, tokens: made };
  }

  function key() {
    const scale = make("span", { class: "scale" });
    scale.style.background = "linear-gradient(to right, var(--card), color-mix(in srgb, var(--hot) 50%, var(--card)) 50%, var(--hot))";
    const top = Math.max(0, ...rows.flatMap((row) => [].concat(row.entropy ?? 0)));
    const sample = (name, text) => make("span", {}, make("span", { class: `token ${name}` }, "7"), ` ${text}`);
    const up = sample("up", "pushed up"), down = sample("down", "pushed down; the height of the bar shows how hard");
    for (const box of [up, down]) box.firstChild.style.setProperty("--push", 0.7);
    return make("div", { class: "key" },
      make("span", {}, "entropy 0 ", scale, ` ${number(top)} nats (square root)`),
      sample("cut", "gradient cut by the clip"), sample("idle", "advantage 0"), up, down);
  }

  function comparison() {
    const head = ["", "cut", "gradient lost", "smallest ratio", "largest ratio", "width", "loss"];
    const rows = algorithms.map(({ name, summary, loss }) => [name, percent(summary.cut), percent(summary.lost),
      summary.ratio_min.toFixed(4), summary.ratio_max.toFixed(4), number(summary.width, "no clip"), number(loss)]);
    const made = table(head, rows);
    made.id = "comparison";
    return made;
  }

  function choose(name, remember) {
    current = algorithms.find((algorithm) => algorithm.name === name) || algorithms[0];
    switcher.querySelector(`input[value="${CSS.escape(current.name)}"]`).checked = true;
    if (remember) history.replaceState(null, "", `#tokens=${encodeURIComponent(current.name)}`);
    made.dataset.algorithm = current.name;
    const { cut, lost, active, ratio_min, ratio_max, width } = current.summary;
    line.replaceChildren(make("strong", {}, current.name), `: ${current.about} The clip cuts ${percent(cut)} of the tokens with an advantage (which are ${percent(active)} of all) `
      + `and discards ${percent(lost)} of the gradient. Ratios ${ratio_min.toFixed(4)} to ${ratio_max.toFixed(4)}`
      + (width === null ? ", no bounds." : `, bounds ${number(width)} from 1 on average.`));
    const largest = Math.max(1e-12, ...current.rows.flatMap((row) => [].concat(row.gradient ?? 0).map(Math.abs)));
    rows.forEach((row, r) => {
      const view = current.rows[r];
      boxes[r].tokens.forEach((box, t) => {
        const own = entry(row.own, t), gradient = entry(view.gradient, t), cut = Boolean(entry(view.cut, t));
        box.classList.toggle("others", !own);
        box.classList.toggle("cut", cut);
        box.classList.toggle("idle", own && entry(view.advantages, t) === 0);
        box.classList.toggle("up", own && gradient < 0);
        box.classList.toggle("down", own && gradient > 0);
        box.style.setProperty("--push", Math.sqrt(Math.abs(gradient) / largest).toFixed(3));
        box.setAttribute("aria-label", `${row.tokens[t]}${cut ? ", cut" : ""}`);
      });
      const fixed = !Array.isArray(view.advantages);
      const cuts = row.tokens.filter((_, t) => entry(view.cut, t)).length;
      boxes[r].head.querySelector(".credit").textContent = `, advantage ${fixed ? number(view.advantages) : "per token"}, ${cuts} cut`;
    });
    showDetail();
  }

  /** Show the numbers of the selected token. */
  function showDetail() {
    detail.replaceChildren();
    for (const box of list.querySelectorAll(".chosen")) box.classList.remove("chosen");
    const [r, t] = chosen, row = rows[r];
    if (!row || t >= row.tokens.length) return;
    boxes[r].tokens[t].classList.add("chosen");
    const view = current.rows[r], at = (column) => entry(view[column], t);
    detail.append(make("strong", {}, "Token ", make("code", {}, visible(row.tokens[t])), `, ${t + 1} of ${row.tokens.length}`));
    if (!entry(row.own, t)) {
      detail.append(make("p", {}, "Not one of the policy's own tokens, or its completion has no verdict: it is not part of any loss."));
      return;
    }
    const bound = (value) => (value === null ? "none" : value.toFixed(4));
    const bounds = ({ low, high }, between) =>
      (entry(low, t) === null && entry(high, t) === null ? "none" : `${bound(entry(low, t))}${between}${bound(entry(high, t))}`);
    const facts = [
      ["entropy", `${number(entry(row.entropy, t))} of ${number(Math.log(batch.vocab_size))} nats`],
      ["probability", `${chance(entry(row.old_logp, t))} → ${chance(entry(row.logp, t))}`],
      ...(at("groups") === null ? [] : [["entropy group", at("groups") ? String(at("groups")) : "0, the most certain tokens"]]),
      ["ratio", at("ratio").toFixed(5)],
      ["clip bounds", bounds(view, " to ")],
      ["advantage", number(at("advantages"))],
      ["weight", number(at("weights"))],
      ["d loss / d logp", number(at("gradient"))],
      ["without a clip", number(at("unclipped_gradient"))],
      ["cut", at("cut") ? "yes" : "no"],
    ];
    detail.append(make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
    const lines = algorithms.map((algorithm) => {
      const other = algorithm.rows[r], its = (column) => entry(other[column], t);
      const cells = [its("ratio").toFixed(4), bounds(other, "–"), its("gradient") ? its("gradient").toExponential(1) : "0", its("cut") ? "cut" : ""];
      return make("tr", algorithm === current ? { class: "chosen" } : {}, make("th", { scope: "row" }, algorithm.name), ...cells.map((cell) => make("td", {}, cell)));
    });
    const head = ["", "ratio", "bounds", "gradient", ""].map((cell) => make("th", { scope: "col" }, cell));
    detail.append(make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines)));
  }

  function pick(r, t, focus) {
    if (r < 0 || r >= rows.length || !rows[r].tokens.length) return;
    chosen = [r, Math.max(0, Math.min(t, rows[r].tokens.length - 1))];
    showDetail();
    if (focus) boxes[chosen[0]].tokens[chosen[1]].focus();
  }

  const under = (event) => event.target.closest?.("[data-at]")?.dataset.at.split(",").map(Number);
  for (const kind of ["pointerover", "click", "focusin"])
    list.addEventListener(kind, (event) => {
      const at = under(event);
      if (at && (kind !== "pointerover" || event.pointerType === "mouse")) pick(...at, false);
    });
  list.addEventListener("keydown", (event) => {
    const [r, t] = chosen;
    const next = { ArrowLeft: [r, t - 1], ArrowRight: [r, t + 1], ArrowUp: [r - 1, t], ArrowDown: [r + 1, t], Home: [r, 0], End: [r, Infinity] }[event.key];
    if (!next || !under(event)) return;
    event.preventDefault();
    pick(...next, true);
  });
  const wanted = () => decodeURIComponent((location.hash.match(/^#tokens=(.*)$/) || [])[1] || "");
  window.addEventListener("hashchange", () => wanted() && choose(wanted(), false));
  choose(wanted() || batch.own, false);
  if (wanted()) made.scrollIntoView();
}

function chance(logp) {
  const p = Math.exp(logp);
  return p < 0.001 ? number(p) : p.toFixed(4);
}

/** A token made visible: spaces and line breaks as symbols. */
function visible(text) {
  return text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
}

if (data.report) report(data.report);
if (data.inspection) inspector(data.inspection);
if (data.note) section("inspector", "Tokens", make("p", {}, data.note));
document.documentElement.dataset.ready = "yes";
