// What the parts of the panel share. `pieces.py` puts it before each of them.

/** Make an element: attributes, then children; what is null or false is left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

let made = 0;

/** An id that no other element of the page has. */
function freshId() {
  made += 1;
  return `omniq-${Math.random().toString(36).slice(2, 8)}-${made}`;
}
