"""An HTML file that holds everything it needs and may load nothing, and the parts that every page is made of."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import NamedTuple, cast


class Section(NamedTuple):
    """A part of a page, as HTML, under its heading, whose id is `key`-title; a folded one shows its heading alone."""

    key: str
    title: str
    content: str
    folded: bool = False

    @property
    def html(self) -> str:
        """The section."""
        heading = f'<h2 id="{self.key}-title">{escape(self.title)}</h2>'
        shown = f"<details><summary>{heading}</summary>{self.content}</details>"
        return (
            f'<section aria-labelledby="{self.key}-title">{shown if self.folded else heading + self.content}</section>'
        )


def document(
    title: str, finding: str, sections: Sequence[Section], data: Mapping[str, object], scripts: Sequence[str]
) -> str:
    """A whole page, whose policy forbids remote content, evaluated code, and any script but its own."""
    code = (vega(), *(resource(name) for name in scripts))
    first, *others = finding.split("\n")
    items = "".join(f"<li>{escape(line)}</li>" for line in others)
    links = [(section.key, section.title) for section in sections if not section.folded]
    # One link leads to all that is folded.
    links += [(section.key, "Details") for section in sections if section.folded][:1]
    parts = {
        "hashes": " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in code
        ),
        "title": escape(title),
        "style": resource("page.css"),
        "finding": f"<p><strong>{escape(first)}</strong></p>" + (items and f"<ul>{items}</ul>"),
        "links": " ".join(f'<a href="#{key}-title">{escape(name)}</a>' for key, name in links),
        "sections": "\n".join(section.html for section in sections),
        "data": embedded_json(data),
        "scripts": "\n".join(f"<script>{script}</script>" for script in code),
    }
    return filled("frame.html", parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A file of this package with HTML instead of its comments, by their text."""
    # All at once, so that no part is searched for the comments of others.
    return re.sub("<!-- ([a-z-]+) -->", lambda comment: parts[comment[1]], resource(template))


def embedded_json(data: object) -> str:
    """JSON that no HTML parser can leave: `<`, `>` and `&` are written as escapes."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def vega() -> str:
    """Vega, Vega-Lite and their embedding as one script."""
    # Commands use this module for tables too.
    import vl_convert

    # A closing tag inside the libraries' strings would end the script element.
    # The stub forgets that the snippet has a default.
    bundle = cast("str", vl_convert.javascript_bundle())  # pyright: ignore[reportCallIssue]
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@cache
def resource(name: str) -> str:
    """The text of a file of this package."""
    return (resources.files("statesize.report") / name).read_text(encoding="utf-8")
