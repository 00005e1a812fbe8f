// Tells the kernel whether anybody sees the panel, so that it stops looking things up for nobody.

const BEAT = 10000; // milliseconds; `pieces.PATIENCE` is a few of them

/** Let keys mean what they mean in a form: else Enter on a button would edit the cell. */
function keepShortcutsOut(el) {
  const panel = el.closest(".omniq-panel");
  // JupyterLab looks for the mark at the element itself before it tries its shortcuts there.
  const mark = (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true");
  if (panel) panel.addEventListener("focusin", mark);
  else requestAnimationFrame(() => keepShortcutsOut(el)); // not in the page yet
}

function render({ model, el }) {
  keepShortcutsOut(el);
  const view = freshId();
  const tell = () => model.send({ view, seen: !document.hidden });
  const timer = setInterval(() => { if (!document.hidden) tell(); }, BEAT);
  document.addEventListener("visibilitychange", tell);
  tell();
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", tell);
    model.send({ view, seen: false });
  };
}

export default { render };
