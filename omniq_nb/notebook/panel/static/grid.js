// A table of which the page holds one page of rows, however many there are. Rows come as
// messages: they are never part of the widget's state.

function render({ model, el }) {
  const head = make("thead");
  const body = make("tbody");
  const said = make("span", { role: "status" });
  const buttons = {
    first: ["First rows", "«", () => ask(0)],
    previous: ["Previous rows", "‹", () => ask(first - size())],
    next: ["Next rows", "›", () => ask(first + size())],
    last: ["Last rows", "»", () => ask(lastPage())],
  };
  for (const [name, [label, sign, click]] of Object.entries(buttons)) {
    buttons[name] = make("button", {
      type: "button", class: "omniq-button", "aria-label": label, title: label, onclick: click,
    }, sign);
  }
  const jump = make("input", { type: "number", min: "1", "aria-label": "Go to row" });
  jump.addEventListener("change", () => {
    const row = Number(jump.value);
    if (row >= 1) ask(Math.floor((row - 1) / size()) * size());
  });
  const table = make("table", { "aria-label": "Rows of the query" }, head, body);
  el.append(make("div", { class: "omniq-grid" },
    make("div", { class: "omniq-top" }, buttons.first, buttons.previous, buttons.next,
      buttons.last, said, make("label", { class: "omniq-quiet" }, "go to row ", jump)),
    make("div", { class: "omniq-wide", tabindex: "0", role: "group", "aria-label": "Table" },
      table)));

  let first = 0;
  let asked = 0;
  const size = () => model.get("page_rows");
  const total = () => model.get("total");
  const lastPage = () => Math.floor(Math.max(0, total() - 1) / size()) * size();

  function ask(from) {
    asked += 1;
    first = Math.min(Math.max(0, from), lastPage());
    model.send({ ask: "rows", first, turn: asked });
  }

  function sort(name) {
    const [sorted, descending] = model.get("order");
    const next = sorted !== name ? [name, false] : descending ? ["", false] : [name, true];
    model.send({ ask: "sort", column: next[0], descending: next[1] });
  }

  function heads() {
    const [sorted, descending] = model.get("order");
    const cells = model.get("columns").map(([name, type, number]) => {
      const here = name === sorted;
      const arrow = here ? (descending ? " ↓" : " ↑") : "";
      return make("th", {
        scope: "col", class: number ? "omniq-number" : null,
        "aria-sort": here ? (descending ? "descending" : "ascending") : "none",
      }, make("button", { type: "button", title: `${type}: sort`, onclick: () => sort(name) },
        name, make("span", { "aria-hidden": "true" }, arrow)));
    });
    const focused = [...head.querySelectorAll("button")].indexOf(document.activeElement);
    head.replaceChildren(make("tr", {}, ...cells));
    head.querySelectorAll("button")[focused]?.focus();
  }

  function received(message) {
    if (message.turn !== undefined && message.turn !== asked) return; // an older question's
    const numbers = model.get("columns").map((column) => column[2]);
    const rows = message.rows.map((row) => make("tr", {}, ...row.map((cell, at) =>
      make("td", { class: numbers[at] ? "omniq-number" : cell === null ? "omniq-quiet" : null },
        cell === null ? "NULL" : cell))));
    body.replaceChildren(...rows);
    first = message.first;
    const last = first + message.rows.length;
    said.textContent = message.rows.length
      ? `${(first + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ` +
        `${total().toLocaleString("en")} rows`
      : "no rows";
    buttons.first.disabled = buttons.previous.disabled = first === 0;
    buttons.next.disabled = buttons.last.disabled = last >= total();
  }

  function changed() {
    // Columns, order and total change together: ask once, when all of them have.
    clearTimeout(changed.timer);
    changed.timer = setTimeout(() => { heads(); ask(0); }, 0);
  }

  heads();
  ask(0);
  model.on("msg:custom", received);
  model.on("change:version", changed);
  return () => {
    model.off("msg:custom", received);
    model.off("change:version", changed);
  };
}

export default { render };
