"""An HTML file that holds everything it needs and may load nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import cast

import vl_convert


def document(title: str, body: str, data: Mapping[str, object], scripts: Sequence[str]) -> str:
    """A whole page, whose policy forbids remote content, evaluated code, and any script but its own."""
    code = (vega(), *(resource(name) for name in scripts))
    parts = {
        "hashes": " ".join(f"'sha256-{_digest(script)}'" for script in code),
        "title": escape(title),
        "style": resource("page.css"),
        "body": body,
        "data": embedded_json(data),
        "scripts": "\n".join(f"<script>{script}</script>" for script in code),
    }
    return filled("frame.html", parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A file of this package with HTML instead of its comments, by their text."""
    # All at once, so that no part is searched for the comments of others.
    return re.sub("<!-- ([a-z-]+) -->", lambda comment: parts[comment[1]], resource(template))


def numbers_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table whose first column names its rows."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = ""
    for first, *rest in rows:
        cells = "".join(f'<td class="number">{escape(cell)}</td>' for cell in rest)
        body += f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


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
