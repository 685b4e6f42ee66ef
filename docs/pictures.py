"""Draws the pictures of the reports again, in the system's Chromium: `python docs/pictures.py`."""

import shutil
import tempfile
from pathlib import Path

from example_report import write_example_report
from playwright.sync_api import sync_playwright

from statesize.cli import main as statesize

IMAGES = Path(__file__).parent / "images"
SECTIONS = ("comparison", "layers", "map", "text", "positions", "spectrum", "tolerance", "table")


def main() -> None:
    """Write a picture of each section, of a phone and of dark mode."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = Path(folder) / "report.html"
        write_example_report(report)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width, scheme, sections in ((1100, "light", SECTIONS), (390, "light", ("map",)), (1100, "dark", ("map",))):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.goto(report.as_uri())
            page.wait_for_selector("html[data-ready]")
            if width > 500 and scheme == "light":
                page.screenshot(path=IMAGES / "report-words.png", clip={"x": 0, "y": 0, "width": width, "height": 900})
            kind = "phone-" if width < 500 else "dark-" if scheme == "dark" else ""
            for section in sections:
                page.select_option("#model", label="gated linear attention")
                page.select_option("#head", index=2 if section == "spectrum" else 0)
                box = page.locator(f"section[aria-labelledby={section}-title]").bounding_box()
                # With a margin around it.
                corner = {"x": box["x"] - 12, "y": box["y"] - 12}
                clip = corner | {"width": box["width"] + 24, "height": box["height"] + 12}
                page.screenshot(path=IMAGES / f"report-{kind}{section}.png", full_page=True, clip=clip)
        demo = Path(folder) / "demo.html"
        statesize(["demo", "--quiet", "--output", str(demo)])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto(demo.as_uri())
        page.wait_for_selector("html[data-ready]")
        box = page.locator("#picture").bounding_box()
        clip = {"x": 0, "y": box["y"] - 70, "width": 1000, "height": box["height"] + 70}
        page.screenshot(path=IMAGES / "report-picture.png", full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    main()
