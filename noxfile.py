"""The four things one does here: check, test, docs, bench. They run in the environment that nox is in."""

import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["check", "test", "docs"]

SOURCES = ("src", "tests", "benchmarks", "docs", "noxfile.py")


def python(session: nox.Session, module: str, *arguments: str) -> None:
    """Run a module of the current environment, whether or not it is activated."""
    session.run(sys.executable, "-m", module, *arguments, external=True)


@nox.session
def check(session: nox.Session) -> None:
    """Lint, formatting, types, layers."""
    sources = [name for name in SOURCES if Path(name).exists()]
    python(session, "ruff", "check", "--quiet", *sources)
    python(session, "ruff", "format", "--check", "--quiet", *sources)
    python(session, "pyright", "--pythonpath", sys.executable)
    session.run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache", external=True)


@nox.session
def test(session: nox.Session) -> None:
    """The tests; arguments after -- go to pytest."""
    python(session, "pytest", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Spelling, and the documentation with its notebooks run, warnings as errors, into docs/_build."""
    texts = (*Path().glob("*.md"), *Path("docs").rglob("*.md"), *Path("src").rglob("*.py"))
    python(session, "codespell_lib", *map(str, texts))
    python(session, "sphinx", "-W", "--keep-going", "-q", "-E", "docs", "docs/_build", *session.posargs)


@nox.session
def links(session: nox.Session) -> None:
    """Whether the addresses in the documentation answer; needs the network."""
    python(session, "sphinx", "-q", "-b", "linkcheck", "-D", "nb_execution_mode=off", "docs", "docs/_build/links")


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, one after the other; names after -- choose some."""
    chosen = session.posargs or sorted(path.stem for path in Path("benchmarks").glob("*.py"))
    if not chosen:
        session.skip("there are no benchmarks yet")
    for name in chosen:
        session.run(sys.executable, f"benchmarks/{name}.py", external=True)
