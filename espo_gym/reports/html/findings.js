// What the runs and their comparisons came to, in words: before the figures.

const list = (texts) => make("ul", {}, ...texts.map((text) => make("li", {}, text)));

function warnings(texts) {
  section("warnings", "Warnings", list(texts));
}

function comparisons(found) {
  const made = section("comparison", "Comparison");
  for (const one of found) {
    if (found.length > 1) made.append(make("h3", {}, one.folder));
    if (one.headline) made.append(make("p", { class: "headline" }, one.headline));
    made.append(make("p", { class: "quiet" }, one.method));
    made.append(list(one.sentences));
    made.append(table(one.head, one.rows), make("p", { class: "quiet" }, one.intervals));
    const mark = (ok) => (ok === null ? "" : ok ? "ok: " : "NOT OK: ");
    made.append(make("details", one.audit.some((check) => check.ok === false) ? { open: "" } : {}, make("summary", {}, "Audit"),
      list(one.audit.map((check) => mark(check.ok) + check.found))));
  }
}
