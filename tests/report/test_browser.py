"""The page as a browser shows it: wide and narrow, light and dark, readable, and nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtmpose.report.folder import Folder
from rtmpose.report.page import write

pytestmark = pytest.mark.slow
# What sticks out of the window, but for what lies in a part that scrolls by itself.
STICKS_OUT = """() => [...document.querySelectorAll("body *")]
  .filter(one => !one.closest(".scroll, pre, svg") && one.getBoundingClientRect().right > innerWidth + 1)
  .map(one => one.tagName + "." + one.className)"""
# Texts whose contrast with what they stand on is below WCAG's 4.5 (3 for large ones).
FAINT = """() => {
  const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, k) => sum + c * [.2126, .7152, .0722][k], 0);
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const under = one => {
    for (; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const said = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!said || one.closest("defs, style")) continue;
    const style = getComputedStyle(one), ink = one instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [luminance(numbers(ink)), luminance(under(one))].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24;
    if ((a + .05) / (b + .05) < (large ? 3 : 4.5)) found.push(one.textContent.slice(0, 30));
  }
  return found;
}"""


def test_wide_and_narrow_light_and_dark(browser: Any, run: Folder, tmp_path: Path) -> None:
    out = write(run, tmp_path / "page.html")
    papers = set()
    for scheme in ("light", "dark"):
        for width in (1440, 390):
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = context.new_page()
            said: list[str] = []
            asked: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(out.as_uri())
            page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
            where = f"{scheme}, {width} px"
            assert page.evaluate("document.documentElement.scrollWidth") == width, where
            assert page.evaluate(STICKS_OUT) == [], where
            assert page.evaluate(FAINT) == [], where
            smallest = page.eval_on_selector_all(
                ".chart svg", "all => Math.min(...all.map(one => one.getBoundingClientRect().width))"
            )
            assert smallest > 280, f"{where}: a chart is {smallest} px wide"
            shown = page.eval_on_selector_all("img", "all => all.every(one => one.naturalWidth > 0)")
            assert shown and said == [], where
            assert [url for url in asked if not url.startswith("data:")] == [out.as_uri()], where
            papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            context.close()
    assert len(papers) == 2, "dark is another page than light"
