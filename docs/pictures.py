"""Draws the pictures of the reports again, in the system's Chromium: `PYTHONPATH=. python docs/pictures.py`."""

import json
import shutil
import tempfile
from pathlib import Path

from example_report import write_example_report
from playwright.sync_api import sync_playwright

from benchmarks.bounds import TOKENS, result_of
from statesize.cli import main as statesize

IMAGES = Path(__file__).parent / "images"
BOUNDS = Path(__file__).parents[1] / "results" / "truncation" / "bounds.json"
SECTIONS = {
    "comparison": ("#table-0-title", "section[aria-labelledby=table-0-title]"),
    "layers": ("#chart-1-title", "section[aria-labelledby=chart-1-title]"),
    "map": ("#chart-2-title", "#map"),
    "text": ("#text-title", "#text"),
    "positions": ("#along", "#said"),
    "tolerance": ("#tolerance-title", "#tolerance-caption"),
    "table": ("section[aria-labelledby=table-1-title]",) * 2,
}
"""From which element to which a picture goes."""


def main() -> None:
    """Write a picture of each section."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = Path(folder) / "report.html"
        write_example_report(report)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]")
        page.screenshot(path=IMAGES / "report-words.png", clip={"x": 0, "y": 0, "width": 1100, "height": 900})
        for folded in ("table-1-title", "text-title"):
            page.evaluate(f"document.querySelector('#{folded}').closest('details').open = true")
        page.select_option("#model", label="gated linear attention")
        for section, ends in SECTIONS.items():
            page.select_option("#head", index=0)
            page.wait_for_timeout(500)
            first, last = (page.locator(end).bounding_box() for end in ends)
            # With a margin around it.
            corner = {"x": first["x"] - 12, "y": first["y"] - 12}
            width = max(first["width"], last["width"]) + 24
            size = {"width": width, "height": last["y"] + last["height"] - corner["y"]}
            page.screenshot(path=IMAGES / f"report-{section}.png", full_page=True, clip=corner | size)
        demo = Path(folder) / "demo.html"
        statesize(["demo", "--html", str(demo), "--output", str(Path(folder) / "demo")])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto(demo.as_uri())
        page.wait_for_selector("html[data-ready]")
        box = page.locator("#chart-0").bounding_box()
        clip = {"x": 0, "y": box["y"], "width": 1000, "height": box["height"] + 12}
        page.screenshot(path=IMAGES / "report-picture.png", full_page=True, clip=clip)
        bounds = Path(folder) / "bounds.html"
        rows = json.loads(BOUNDS.read_text(encoding="utf-8"))["rows"]
        smollm2 = [row for row in rows if row["file"].startswith("SmolLM2") and row["tokens"] == TOKENS]
        result_of(smollm2).to_html(bounds)
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto(bounds.as_uri())
        page.wait_for_selector("html[data-ready]")
        page.locator("#chart-0 svg").screenshot(path=IMAGES / "both-bounds.png")
        browser.close()


if __name__ == "__main__":
    main()
