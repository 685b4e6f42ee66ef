"""Every study of the list has its file, its command and its page of documentation."""

from pathlib import Path

import pytest

from statesize.lab.cli.study import study as commands
from statesize.lab.studies.catalogue import QUESTIONS, load_study

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_study_has_its_file_its_command_and_a_page_that_names_it(name):
    assert load_study(name).name == name
    assert name in set(commands)
    assert any(f"statesize study {name}" in page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
