// A box that scrolls can be scrolled with the keyboard, too.
const boxes = "pre, .table-wrapper, .drawing, dt.sig";

function makeFocusable() {
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex");
  }
}

// Each complementary part of a page has a name of its own.
function nameParts() {
  const isChinese = document.documentElement.lang.startsWith("zh");
  const names = {
    ".sidebar-drawer": isChinese ? "站点" : "Site",
    ".toc-drawer": isChinese ? "本页" : "This page",
  };
  for (const [part, name] of Object.entries(names)) {
    document.querySelector(part)?.setAttribute("aria-label", name);
  }
}

window.addEventListener("load", nameParts);
window.addEventListener("load", makeFocusable);
window.addEventListener("resize", makeFocusable);
