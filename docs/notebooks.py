"""Runs the tutorials and writes each as a notebook with its outputs: `python docs/notebooks.py [NAME ...]`."""

import json
import sys
from pathlib import Path

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook
from nbclient import NotebookClient

from statesize.io.files import replace_file

TUTORIALS = Path(__file__).parent / "tutorials"
SECONDS = 600  # for a cell, on a busy machine


def notebook(page: Path) -> nbformat.NotebookNode:
    """A tutorial as a notebook, without outputs; cells that pages hide stay hidden by their tags."""
    found = read_myst_markdown_notebook(page.read_text(encoding="utf-8"), add_source_map=False)
    for number, cell in enumerate(found.cells):
        # Without a random id, the same page makes the same notebook.
        cell["id"] = f"cell-{number}"
    found.metadata = nbformat.from_dict({"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    return nbformat.versions[4].upgrade(found) if (found.nbformat, found.nbformat_minor) < (4, 5) else found


def main() -> None:
    """Write the notebooks of all tutorials, or of some."""
    names = sys.argv[1:] or sorted(page.stem for page in TUTORIALS.glob("*.md"))
    for name in names:
        found = notebook(TUTORIALS / f"{name}.md")
        NotebookClient(
            found, timeout=SECONDS, kernel_name="python3", record_timing=False, coalesce_streams=True
        ).execute()
        for cell in found.cells:
            cell.metadata.pop("execution", None)
        replace_file(TUTORIALS / f"{name}.ipynb", (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())
        print(name)


if __name__ == "__main__":
    main()
