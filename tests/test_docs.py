"""Pages that speak of the code say what is there: messages, names, figures."""

import ast
import importlib
import re
from inspect import ismodule
from pathlib import Path

import pytest

from tools.figures.pages import BLOCK

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def strings_of(tree):
    """Every string of a module, … in place of what is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def messages():
    sources = sorted((ROOT / "src").rglob("*.py"))
    return [text for path in sources for text in strings_of(ast.parse(path.read_text(encoding="utf-8")))]


def quoted_messages():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^- `([^`]+)`:", page, re.MULTILINE)


@pytest.mark.parametrize("quoted", quoted_messages())
def test_quoted_error_messages_are_in_the_source(quoted, messages):
    assert any(quoted in message for message in messages)


def test_tests_that_are_named_are_there():
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "noxfile.py"]
    named = {
        name for page in pages for name in re.findall(r"\btests/[\w/]+(?:\.py)?", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]


def api_page():
    return (DOCS / "reference.rst").read_text(encoding="utf-8")


def documented():
    """What the API page documents, by name."""
    found = {}
    for kind, name in re.findall(r"^\.\. auto(\w+):: ([\w.]+)(?:\(\))?$", api_page(), re.MULTILINE):
        if kind == "module":
            module = importlib.import_module(name)
            listed = re.search(rf"automodule:: {re.escape(name)}\n   :members: (.+)$", api_page(), re.MULTILINE)
            members = listed[1].split(", ") if listed else module.__all__
            found |= {f"{name}.{member}": getattr(module, member) for member in members}
        else:
            home, _, last = name.rpartition(".")
            found[name] = getattr(importlib.import_module(home), last)
    return found


def test_every_public_name_is_in_the_api():
    known = {id(value) for value in documented().values()}
    core = ("", ".metrics", ".operators", ".reduction", ".testing")
    for space in (*core, ".lab", ".lab.mixers", ".lab.tasks", ".lab.training", ".lab.zoo"):
        module = importlib.import_module(f"statesize{space}")
        values = {name: getattr(module, name) for name in module.__all__ if name != "__version__"}
        assert [name for name, value in values.items() if not ismodule(value) and id(value) not in known] == []


def imports_of_pages():
    statements = re.compile(r"^from (statesize[\w.]*) import ([\w, ]+?)(?: as \w+)?$", re.MULTILINE)
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for module, names in statements.findall(page.read_text(encoding="utf-8")):
            yield from ((module, name) for name in names.split(", "))


def test_what_the_pages_import_is_in_the_api():
    known = {id(value) for value in documented().values()}
    missing = set()
    for module, name in set(imports_of_pages()):
        value = getattr(importlib.import_module(module), name)
        if id(value) not in known and not hasattr(value, "__path__"):
            missing.add(f"{module}.{name}")
    assert missing == set()


def test_times_on_the_performance_page_are_figures():
    page = (DOCS / "appendix" / "performance.md").read_text(encoding="utf-8")
    prose = BLOCK.sub("", page)
    assert not re.search(r"\d+ ?×|\d+\.\d+ s\b", prose)
