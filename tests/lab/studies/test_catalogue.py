"""Every study of the list has its folder, its command and its page of documentation."""

from importlib import import_module
from pathlib import Path

import pytest

from statesize.lab.cli.study import study as commands
from statesize.lab.studies.catalogue import STUDIES

DOCS = Path(__file__).parents[3] / "docs"


def test_folders_and_list_agree():
    source = Path(import_module("statesize.lab.studies").__file__).parent
    assert {path.parent.name for path in source.glob("*/claim.py")} == {study.name for study in STUDIES}


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_has_its_command_claim_and_charts(study):
    assert study.name in set(commands)
    assert all(example.startswith(f"statesize study {study.name}") for example in study.examples)
    claim = import_module(f"statesize.lab.studies.{study.name}.claim")
    assert callable(getattr(claim, study.name))
    assert callable(getattr(claim, f"{study.name}_charts"))


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_documentation_names_the_study(study):
    assert any(f"statesize study {study.name}" in page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
