// A text to copy. Where the browser gives no clipboard, the text is selected instead.

function render({ model, el }) {
  const text = make("pre", { tabindex: "0", role: "group", "aria-label": model.get("label") });
  const said = make("span", { class: "omniq-quiet", role: "status" });
  const button = make("button", { type: "button", class: "omniq-button", onclick: copy }, "Copy");
  const top = make("div", { class: "omniq-top" },
    make("strong", {}, model.get("label")), button, said);
  el.append(make("div", { class: "omniq-code" }, top, text));

  async function copy() {
    try {
      await navigator.clipboard.writeText(model.get("text"));
      said.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(text);
      said.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { said.textContent = ""; }, 3000);
  }

  function show() {
    text.textContent = model.get("text");
  }

  show();
  model.on("change:text", show);
  return () => model.off("change:text", show);
}

export default { render };
