"""An HTML file that holds everything it needs and may load nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import cast

import vl_convert


def document(title: str, body: str, data: Mapping[str, object], scripts: Sequence[str]) -> str:
    """A whole page, whose policy forbids remote content, evaluated code, and any script but its own."""
    code = (vega(), *(resource(name) for name in scripts))
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in code)
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title>",
        f"<style>{resource('page.css')}</style>",
        "</head>",
        "<body>",
        body,
        f'<script type="application/json" id="data">{embedded_json(data)}</script>',
        *(f"<script>{script}</script>" for script in code),
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def embedded_json(data: object) -> str:
    """JSON that no HTML parser can leave: `<`, `>` and `&` are written as escapes."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def vega() -> str:
    """Vega, Vega-Lite and their embedding as one script."""
    # A closing tag inside the libraries' strings would end the script element.
    # The stub forgets that the snippet has a default.
    bundle = cast("str", vl_convert.javascript_bundle())  # pyright: ignore[reportCallIssue]
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@cache
def resource(name: str) -> str:
    """The text of a file of this package."""
    return (resources.files("statesize.report") / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
