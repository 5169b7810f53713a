"""A walk through the pages in a real browser: upload, watch it run, filter, review with keys, download.

An error in the browser's console fails it, and so does anything that the content security policy refused. Every page
on the way is looked at in light and dark and at 400 pixels: names of fields and buttons, contrast, focus, width.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import HANG_S

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = {"light": 1280, "dark": 1280, "small": 400}

# What assistive technology needs, as far as it can be computed (WCAG 2.2: 1.3.1, 1.4.3, 1.4.10, 2.4.3, 4.1.1, 4.1.2).
CHECK = """() => {
  const found = [], all = (css) => [...document.querySelectorAll(css)], root = document.documentElement;
  const name = (e) => (e.getAttribute("aria-label") || (e.labels && [...e.labels].map((l) => l.textContent).join(" "))
    || e.textContent || "").trim();
  for (const e of all("input:not([type=hidden]), select, textarea, button, a, summary, progress, meter"))
    if (!e.closest("[aria-hidden]") && !name(e)) found.push("no name: " + e.outerHTML.slice(0, 120));
  for (const e of all("table")) if (!e.caption) found.push("no caption: " + e.className);
  const ids = all("[id]").map((e) => e.id), twice = ids.filter((id, at) => ids.indexOf(id) !== at);
  if (twice.length) found.push("ids given twice: " + twice);
  const levels = all("h1, h2, h3, h4").filter((e) => !e.closest("dialog")).map((e) => +e.tagName[1]);
  if (levels.filter((one) => one === 1).length !== 1) found.push("headings: " + levels);
  levels.forEach((one, at) => { if (at && one > levels[at - 1] + 1)
    found.push("a heading is left out: " + levels); });
  if (all("[tabindex]").some((e) => e.tabIndex > 0)) found.push("an order of focus of its own");
  if (root.scrollWidth > root.clientWidth) found.push(`wider than the screen: ${root.scrollWidth}`);
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255, v <= .04045 ? v / 12.92
    : ((v + .055) / 1.055) ** 2.4)); return .2126 * r + .7152 * g + .0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
    if (c[3] === 255) return c; } return rgba(getComputedStyle(root).colorScheme.includes("dark") &&
    matchMedia("(prefers-color-scheme: dark)").matches ? "#000" : "#fff"); };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const e = node.parentElement;
    if (!node.data.trim() || !e.checkVisibility() || e.closest("svg, option, datalist, script, .hidden, :disabled"))
      continue;
    const a = light(rgba(getComputedStyle(e).color)), b = light(ground(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(2)}: ${node.data.trim().slice(0, 40)}`);
  }
  return [...new Set(found)];
}"""
FOCUS = """() => { const e = document.activeElement, box = e.getBoundingClientRect(), style = getComputedStyle(e);
  return [e.tagName, (e.textContent || e.id || "").trim().slice(0, 30), style.outlineStyle !== "none",
    box.width > 0 && box.height > 0]; }"""


def browser_path() -> str:
    """A browser of this machine. Without one the test is skipped, or fails where one must be."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        reason = f"none of {', '.join(BROWSERS)} is installed (Debian: apt-get install chromium)"
        if os.environ.get("LORACLE_REQUIRE_BROWSER") == "1":
            pytest.fail(f"LORACLE_REQUIRE_BROWSER=1, but {reason}")
        pytest.skip(reason)
    return found


@contextmanager
def running(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until the block ends."""
    command = [sys.executable, "-m", "worker", *arguments]
    process = subprocess.Popen(
        command, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=HANG_S)


class Walk:
    """A browser's page with its complaints, in three looks."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.problems: list[str] = []
        page.on(
            "console",
            lambda said: self.problems.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._see)

    def _see(self, request: Any) -> None:
        if not request.url.startswith((self.address, "blob:", "data:")):
            self.problems.append(f"asked elsewhere: {request.url}")

    def look(self) -> None:
        """Checks what is shown now."""
        for look, width in WIDTHS.items():
            self.page.set_viewport_size({"width": width, "height": 800})
            self.page.emulate_media(color_scheme="dark" if look == "dark" else "light")
            self.problems += [f"{look} {self.page.url}: {one}" for one in self.page.evaluate(CHECK)]
        self.page.set_viewport_size({"width": 1280, "height": 800})
        assert not self.problems, "\n".join(self.problems)

    def tab(self, times: int) -> list[str]:
        """What has the focus after each press of Tab; each is seen, and shows that it has it."""
        found = []
        for _ in range(times):
            self.page.keyboard.press("Tab")
            tag, text, outlined, shown = self.page.evaluate(FOCUS)
            assert outlined, (tag, text)
            assert shown, (tag, text)
            found.append(text)
        return found


def test_from_a_file_to_corrected_labels_in_a_browser(environment: dict[str, str], tmp_path: Path) -> None:
    executable = browser_path()
    sync_api = pytest.importorskip("playwright.sync_api")
    reviews = tmp_path / "<b>my reviews.csv"
    texts = [
        f"{'A wonderful film' if n % 2 else 'A dull and awful film'}, <script>alert({n})</script>"
        for n in range(60)
    ]
    lines = [
        f'r{n},"{one}",{"negative" if n % 2 and n < 5 else "positive" if n % 2 else "negative"}'
        for n, one in enumerate(texts)
    ]
    reviews.write_text("id,text,label\n" + "\n".join(lines), encoding="utf-8")
    # The stub labels without a model, and so at once.
    environment = {**environment, "LORACLE_ADAPTER": "stub"}
    with running(environment, "web", "--port", "0") as web:
        assert web.stderr is not None
        address = re.findall(r"Open (http://[^/]+)/", web.stderr.readline())[0]
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            page = browser.new_context(accept_downloads=True).new_page()
            page.set_default_timeout(HANG_S * 1000)
            _walk(Walk(page, address), reviews, environment)
            browser.close()


def _walk(walk: Walk, reviews: Path, environment: dict[str, str]) -> None:
    page = walk.page
    page.goto(f"{walk.address}/new")
    assert walk.tab(3)[0] == "Skip to the content"
    walk.look()
    page.set_input_files("#file", reviews)
    page.click("text=Upload")
    page.check("input[name=keep_columns][value=id]")
    page.wait_for_selector("[data-preview] th:has-text('id')")
    walk.look()
    page.click("text=Label it")
    page.wait_for_selector(".why:has-text('no worker runs')")
    walk.look()
    page.goto(f"{walk.address}/jobs")
    before = page.locator("tbody tr").bounding_box()
    with running(environment, "worker"):
        page.wait_for_selector(".state.done")
    page.wait_for_selector("text=60 of 60")
    assert page.locator("tbody tr").bounding_box()["width"] == before["width"]
    walk.look()
    page.click("tbody th a")
    page.wait_for_selector("#figures")
    walk.look()
    with page.expect_download() as download:
        page.click("text='CSV for Excel'")
    assert Path(download.value.path()).read_bytes().startswith(b"\xef\xbb\xbfrow_no,")
    page.click("text=Results")
    page.check("input[name=wrong]")
    page.click("text=Show")
    assert "wrong=1" in page.url
    walk.look()
    page.click("a[data-dialog] >> nth=0")
    page.wait_for_selector("dialog h1")
    page.keyboard.press("Escape")
    page.click(".tabs >> text=Review")
    page.wait_for_selector(".verdict")
    walk.look()
    row = page.input_value("input[name=row_no]")
    page.fill("#author", "Ann")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.wait_for_selector("text=1 by you")
    assert page.input_value("input[name=row_no]") != row
    page.keyboard.press("u")
    page.wait_for_selector("text=0 judged in this job")
    assert page.input_value("input[name=row_no]") == row
    page.keyboard.press("2")
    page.wait_for_selector("text=1 by you")
    page.goto(f"{walk.address}/jobs/1/results?corrected=1")
    assert page.locator("tbody tr").count() == 1
    page.goto(f"{walk.address}/system")
    walk.look()
