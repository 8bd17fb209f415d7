// A box that scrolls can be scrolled with the keyboard, too.
const boxes = "pre, .table-wrapper, .drawing, dt.sig";

function makeFocusable() {
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex");
  }
}

window.addEventListener("load", makeFocusable);
window.addEventListener("resize", makeFocusable);
