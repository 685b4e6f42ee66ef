"""A visit to a report in the system's Chromium, without a network; shared with the test of the demo."""

import os
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


@contextmanager
def chromium():
    """A browser; a test that asks for it is skipped where there is none, except in CI."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None, "CI needs Chromium for this test: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Visit:
    """A page, and everything that it asked for or complained about."""

    def __init__(self, browser, report, width=1280, scheme="light"):
        self.requests, self.complaints = [], []
        size = {"width": width, "height": 900}
        self.context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(report.as_uri(), timeout=120_000)
        self.page.wait_for_selector("html[data-ready]", timeout=120_000)
        if self.page.locator("#chosen:not([open])").count():
            assert not self.page.locator("#text").is_visible()
            # By no click: a pointer that rests on the page points at a cell once the page moves.
            self.page.evaluate("document.querySelector('#chosen').open = true")
            self.page.wait_for_selector("#positions svg")

    def unfold(self):
        """Open what is folded, and wait for what then says that it scrolls."""
        self.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        self.page.wait_for_timeout(100)


def violations(page):
    """What axe-core finds serious or critical, in words."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['target']} {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]
