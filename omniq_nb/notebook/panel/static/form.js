// The fields of one component. What is typed goes to the kernel as a message and is kept there:
// it is never part of the widget's state, which is saved with the notebook.

const PAUSE = 150; // milliseconds without a key before what was typed is checked

function render({ model, el }) {
  const legend = make("legend");
  const top = make("div"); // stays while somebody types there: only the rest is made again
  const rest = make("div");
  el.append(make("fieldset", { class: "omniq-form" }, legend, top, rest));
  let inputs = {};
  let backend = null, place = null;

  function typed(name, input, wait) {
    clearTimeout(input.omniqTimer);
    const send = () => model.send({ name, text: input.value });
    if (wait) input.omniqTimer = setTimeout(send, PAUSE);
    else send();
  }

  function choice(name, choices, chosen, first) {
    const options = choices.map(([value, label]) =>
      make("option", { value, selected: value === chosen }, label));
    if (first !== null) options.unshift(make("option", { value: "", selected: !chosen }, first));
    const select = make("select", {}, ...options);
    select.addEventListener("change", () => typed(name, select, false));
    return select;
  }

  function text(field) {
    const input = make("input", {
      type: field.kind === "secret" ? "password" : "text",
      placeholder: field.hint, autocomplete: "off", spellcheck: "false",
    });
    input.addEventListener("input", () => typed(field.name, input, true));
    input.addEventListener("change", () => typed(field.name, input, false));
    return input;
  }

  /** A label, its control, what it is about, and what is wrong with it. */
  function row(name, label, help, control) {
    const id = freshId();
    const helpId = `${id}-help`, problemId = `${id}-problem`;
    control.id = id;
    control.setAttribute("aria-describedby", `${problemId} ${helpId}`);
    const problem = make("span", { id: problemId, class: "omniq-problem", "aria-live": "polite" });
    const about = make("span", { id: helpId, class: "omniq-quiet" }, help);
    inputs[name] = { control, problem, about };
    const line = make("div", { class: "omniq-row" }, make("label", { for: id }, label), control,
      about, problem);
    inputs[name].line = line;
    return line;
  }

  /** The choice of the backend, made again only if there is something else to choose from. */
  function buildBackend(spec) {
    const choices = JSON.stringify(spec.choices);
    if (backend?.choices !== choices) {
      backend?.line.remove();
      const select = choice("backend_type", spec.choices, spec.chosen, null);
      top.prepend(row("backend_type", "Backend", spec.about, select));
      backend = { choices, ...inputs.backend_type };
    }
    inputs.backend_type = backend;
    backend.about.textContent = spec.about;
    if (backend.control !== document.activeElement) backend.control.value = spec.chosen;
  }

  /** The place, which every backend has: somebody may type there before the kernel has heard that
   * another backend was chosen. */
  function buildPlace(field) {
    if (field === undefined) {
      place?.line.remove();
      place = null;
      return;
    }
    if (place === null) {
      top.append(row(field.name, field.label, field.help, text(field)));
      place = inputs[field.name];
    }
    inputs[field.name] = place;
    place.about.textContent = field.help;
    place.control.placeholder = field.hint;
  }

  function build() {
    const spec = model.get("spec");
    inputs = {};
    legend.textContent = spec.legend;
    buildBackend(spec);
    buildPlace(spec.fields[0]);
    const open = rest.querySelector("details")?.open || spec.open;
    const rows = spec.fields.slice(1).map((field) => {
      const control = field.kind === "choice"
        ? choice(field.name, field.choices.map((word) => [word, word]), "",
          field.hint ? `${field.hint} (default)` : "(default)")
        : text(field);
      return row(field.name, field.label, field.help, control);
    });
    rest.replaceChildren();
    if (rows.length > 0) {
      rest.append(make("details", { open },
        make("summary", {}, `${rows.length} options of ${spec.chosen}`),
        make("div", { class: "omniq-rows" }, ...rows)));
    }
    fill();
    judge();
  }

  /** What the kernel holds, as far as it may be shown. Not into the field that is being typed in. */
  function fill() {
    const shown = model.get("shown"), held = model.get("held");
    for (const [name, { control }] of Object.entries(inputs)) {
      if (name === "backend_type" || control === document.activeElement) continue;
      const value = shown[name] ?? "";
      // A password that was typed here stays as dots; what the kernel holds cannot come back.
      if (held.includes(name) && !value) control.placeholder = "•••••• (given)";
      else control.value = value;
    }
  }

  function judge() {
    const problems = model.get("problems");
    for (const [name, { control, problem }] of Object.entries(inputs)) {
      problem.textContent = problems[name] ?? "";
      if (problems[name]) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    }
  }

  build();
  model.on("change:spec", build);
  model.on("change:shown change:held", fill);
  model.on("change:problems", judge);
  return () => {
    model.off("change:spec", build);
    model.off("change:shown change:held", fill);
    model.off("change:problems", judge);
  };
}

export default { render };
