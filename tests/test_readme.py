"""The README and the pages of docs/: their Python is run, what they show is compared, what they name exists."""

import contextlib
import io
import itertools
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from statesize.adapters import sources
from statesize.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
NOTEBOOKS = [
    page for page in DOCS if "file_format: mystnb" in page.read_text(encoding="utf-8")
]  # run by the docs build
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(page for page in DOCS if page not in NOTEBOOKS)]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^(?=## )", re.MULTILINE)
PRINTED = re.compile(r"what\s`statesize ([^`]+)`\sprints:\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def assert_same_output(shown: str, printed: str) -> None:
    """Words must be the same; numbers may differ by 1 % or in their last decimal, as processors round differently."""
    assert NUMBER.sub("#", " ".join(printed.split())) == NUMBER.sub("#", " ".join(shown.split()))
    for number, expected in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        mantissa, _, exponent = expected.partition("e")
        last = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])) if "." in mantissa else 0.0
        assert float(number) == pytest.approx(float(expected), rel=1e-2, abs=1.001 * last)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_python_of_each_section_runs_alone_and_prints_what_is_shown(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "SOURCES", sources.SOURCES)  # put back where a page adds one
    for section in SECTION.split(page.read_text(encoding="utf-8")):
        # A reader copies an example from the section that he was sent to, not from all of a page.
        namespace = {"__name__": "__main__"}
        blocks = FENCE.findall(section)
        for number, (language, source) in enumerate(blocks):
            if language != "python":
                continue
            assert source.strip(), f"{page.name} has an empty block"
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(source, f"{page.name}, {section[:40]!r}, block {number}", "exec"), namespace)  # noqa: S102
            shown = blocks[number + 1][1] if blocks[number + 1 : number + 2] and blocks[number + 1][0] == "text" else ""
            assert_same_output(shown, printed.getvalue())
        # What a page writes for pytest is run too.
        for name in [name for name in namespace if name.startswith("Test")]:
            for check in [check for check in dir(namespace[name]) if check.startswith("test_")]:
                getattr(namespace[name](), check)()


def shell_lines(text: str) -> list[str]:
    return [line for language, block in FENCE.findall(text) if language == "sh" for line in block.splitlines()]


def test_both_commands_are_one_line_that_makes_its_own_environment():
    lines = [line for line in shell_lines(README) if re.match(r"python3 -m venv \.venv && .*pip install ", line)]
    assert [line for line in lines if line.endswith("&& statesize demo")]
    assert [line for line in lines if re.search(r"&& \.venv/bin/pytest( |$)", line)]
    assert all("-c constraints.txt" in line for line in lines)


def test_pages_show_how_the_printing_of_a_command_begins(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.chdir(tmp_path)
    known = [found for page in PAGES for found in PRINTED.findall(page.read_text(encoding="utf-8"))]
    assert known
    for command, shown in known:
        assert main(shlex.split(command)) == 0
        printed = capsys.readouterr().out
        assert_same_output(shown, "".join(printed.splitlines(keepends=True)[: len(shown.splitlines())]))


def test_extras_in_commands_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = set(",".join(re.findall(r"\.\[([\w,]+)\]", README)).split(","))
    assert named
    assert named <= set(extras)


def commands_with_flags() -> list[tuple[str, list[str]]]:
    """Each `statesize command … --flag` of the pages, as the command's words and all of its flags."""
    found: dict[str, set[str]] = {}
    for text in (page.read_text(encoding="utf-8") for page in [*PAGES, *NOTEBOOKS]):
        spans = re.findall(r"`(statesize [^`\n]+)`", text)
        lines = [line.rpartition("&& ")[2].removeprefix(".venv/bin/") for line in shell_lines(text)]
        for snippet in [*spans, *(line for line in lines if line.startswith("statesize "))]:
            words = shlex.split(snippet, comments=True)[1:]
            flags = {word.partition("=")[0] for word in words if word.startswith("--")}
            # The command is what comes before its arguments, which are files or in capitals.
            command = " ".join(itertools.takewhile(str.isalpha, itertools.takewhile(str.islower, words)))
            found.setdefault(command, set()).update(flags)
    return [(command, sorted(flags)) for command, flags in sorted(found.items())]


@pytest.mark.parametrize(("command", "flags"), commands_with_flags())
def test_commands_and_flags_exist(command, flags, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # so that the help breaks no flag
    assert main([*command.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    assert [flag for flag in flags if flag not in printed] == []
