"""Sphinx configuration; built with warnings as errors, references that lead nowhere among them."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

from statesize.version import __version__

project = "statesize"
author = copyright = "The statesize authors"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "README.md"]  # the last is part of the index

# Pages with {code-cell} blocks are run, and left as notebooks in _build/jupyter_execute; one that raises is an error.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # for a cell, on a busy machine
nb_merge_streams = True
nb_output_stderr = "error"
nb_render_markdown_format = "myst"

nitpicky = True
# What other packages document; the build needs no network, so their inventories are not read.
nitpick_ignore_regex = [
    ("py:.*", r"(alt|altair|collections|contextlib|numpy|os|pandas|pathlib|tokenizers|torch|transformers|xarray)\..*"),
    ("py:.*", "Inputs|Tensor|Trainer"),
    # Types that users hand on and never name.
    (
        "py:class",
        r"statesize\..*\.(Agreement|Block|CausalSize|Chat|Claim|Cut|CutResult|ModelAndTokenizer|OwnMixing|PageTable|Profiled|Result|ResultPage|Run|"
        r"TextRun|TrainingState|Value)",
    ),
    ("py:class", r"(Document|Findings|Kind|Loss|Metric|Own|PathLike|Profiled|ResultPage|StudyTable)"),
    # Names that are read only where types are checked, so that commands refuse before torch is imported.
    ("py:class", r"(AnyTokenizer|Channels|Cut|EngineName|Layers|Memory|Positions|Tokenizer|Weights|nn\.Module)"),
    ("py:exc", "NothingMeasuredError"),  # a ModelError
]

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["outputs.css"]
html_title = f"statesize {release}"


def escape_bars(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings write |x| for the absolute value, which reStructuredText takes for a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def add_example_report(app: Sphinx) -> None:
    """Beside the pages lies the report that a tutorial reads."""
    if app.builder.format == "html":
        sys.path.insert(0, str(Path(__file__).parent))
        from example_report import write_example_report

        write_example_report(Path(app.outdir) / "example-report.html")


def list_appendix(app: Sphinx, docname: str, source: list[str]) -> None:
    """In the sidebar the pages of the appendix stand below it; as Markdown their list is plain."""
    if docname == "appendix/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", add_example_report)
    app.connect("source-read", list_appendix)
    app.connect("autodoc-process-docstring", escape_bars)
