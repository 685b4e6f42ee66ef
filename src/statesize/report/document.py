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
    """A whole page, whose policy forbids remote content, evaluated code, and any script but its own.

    Args:
        title: Its title, as text.
        body: Its content, as HTML.
        data: What its scripts draw, as JSON values.
        scripts: Names of this package's scripts, run in this order after Vega's.

    Returns:
        HTML.
    """
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
    r"""JSON that no HTML parser can leave: `<`, `>` and `&` are written as escapes.

    Args:
        data: JSON values.

    Returns:
        Text for the inside of a script element.

    Example:
        >>> embedded_json(["</script>"])
        '["\\u003c/script\\u003e"]'
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def vega() -> str:
    """Vega, Vega-Lite and their embedding as one script.

    Returns:
        JavaScript.
    """
    # A closing tag inside the libraries' strings would end the script element.
    # The stub forgets that the snippet has a default.
    bundle = cast("str", vl_convert.javascript_bundle())  # pyright: ignore[reportCallIssue]
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@cache
def resource(name: str) -> str:
    """A file of this package.

    Args:
        name: Its name.

    Returns:
        Its text.
    """
    return (resources.files("statesize.report") / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
