// What scrolls sideways can be scrolled with the keyboard, too.
function reachable() {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre, .md-typeset pre > code")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
}
addEventListener("load", () => { reachable(); setTimeout(reachable, 200); });
addEventListener("resize", reachable);
