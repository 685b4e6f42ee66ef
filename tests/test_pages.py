"""Pages read as plain CommonMark, as a repository shows them: nothing raw, every link and picture there."""

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
DOCS = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts]
PAGES = [*ROOT.glob("*.md"), *DOCS]
PARSER = MarkdownIt("commonmark").enable("table")
# What is carried on average over cuts says nothing beside the most that one cut allows.
_AVERAGED, _CEILING = r"\b(averaged?|averages|on average|means? over)\b", r"\b(ceilings?|at most|that it holds)\b"
MEAN_AGAINST_CEILING = re.compile(rf"{_AVERAGED}[^.]*{_CEILING}|{_CEILING}[^.]*{_AVERAGED}", re.IGNORECASE)


def tokens_of(page):
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


def anchors(page):
    """What a repository makes of headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_nothing_is_raw(page):
    # A merge that was left in a page: it reads as a heading or a quotation.
    assert re.findall(r"^(?:<{7}|={7}|>{7})(?: .*)?$", page.read_text(encoding="utf-8"), re.MULTILINE) == []
    tokens = list(tokens_of(page))
    directives = [token.info for token in tokens if token.type == "fence" and token.info.startswith("{")]
    assert set(directives) <= {"{code-cell}"}
    code = [token.content for token in tokens if token.type in ("fence", "code_inline", "code_block")]
    assert [text for text in code if "data-figure" in text] == []
    prose = [
        re.sub(r"\$\$?.*?\$\$?", "maths", token.content, flags=re.DOTALL) for token in tokens if token.type == "inline"
    ]
    # A figure that Sphinx alone would fill in, a role, a directive, a list of definitions, a label.
    raw = r"\{\{ |(?<!`)\{\{|(?<!`)\{[\w:-]+\}`|^:{3,}|\n: |^\([\w-]+\)="
    assert [text for text in prose if re.search(raw, text, re.MULTILINE)] == []
    opened = [token.content for token in tokens if token.type in ("html_inline", "html_block")]
    assert all(re.match(r"</?span|<br>|<!-- |</?a\b|</?details|</?summary", content.strip()) for content in opened)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page):
    for token in tokens_of(page):
        target = token.attrs.get("href") or token.attrs.get("src")
        if not target or re.match(r"\w+:", str(target)):
            continue
        path, _, anchor = str(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_headline_sets_a_mean_over_cuts_against_a_ceiling(page):
    tokens = [token for token in tokens_of(page) if token.type == "inline"]
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    # Titles, and what a page says first.
    opening = next((token.content for token in tokens if token.content not in titles), "")
    assert [said for said in (*titles, opening) if MEAN_AGAINST_CEILING.search(said)] == []


def test_the_appendix_lists_its_pages():
    appendix = ROOT / "docs" / "appendix"
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (appendix / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.name for page in appendix.glob("*.md") if page.name != "README.md")
