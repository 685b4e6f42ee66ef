"""What one does here: check, audit, test, docs, package, bench; and floors, in an environment of its own."""

import importlib.metadata
import json
import re
import sys
import sysconfig
import tomllib
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.options.default_venv_backend = "none"
nox.options.sessions = ["check", "test", "docs"]

SOURCES = ("src", "tests", "benchmarks", "campaigns", "experiments", "tools", "docs", "noxfile.py")
WHEEL_MEGABYTES = 20
COVERED = 95
FLOOR_EXTRAS = ("lightning", "trainer")
FLA_TESTS = (
    "tests/adapters/test_fla.py",
    "tests/adapters/models/test_checks.py",
    "tests/models/test_models.py",
)
# What leans on other packages most: files, tables, charts, command line, callbacks, engines.
FLOOR_TESTS = (
    "tests/measurement",
    "tests/integrations",
    "tests/cli/test_app.py",
    "tests/cli/shared/test_progress.py",
    "tests/results/test_store.py",
    "tests/profiling/test_profile.py",
    "tests/lab/studies/engine/test_run.py",
    "tests/measurement/test_measurement.py",
)


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
def coverage(session: nox.Session) -> None:
    """What the tests take; fails where it is less than COVERED percent of statements and branches."""
    options = ["--cov=statesize", "--cov-report=term-missing:skip-covered", f"--cov-fail-under={COVERED}"]
    python(session, "pytest", "-n", "2", *options, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Spelling, and the site into docs/_build/html, warnings as errors; the tutorials as notebooks beside it."""
    texts = (*Path().glob("*.md"), *Path("docs").rglob("*.md"), *Path("src").rglob("*.py"))
    python(session, "codespell_lib", *map(str, texts))
    python(session, "sphinx", "-W", "--keep-going", "-q", "-E", "docs", "docs/_build/html", *session.posargs)


@nox.session
def links(session: nox.Session) -> None:
    """Whether the addresses in the documentation answer; needs the network."""
    python(session, "sphinx", "-q", "-b", "linkcheck", "-D", "nb_execution_mode=off", "docs", "docs/_build/links")


@nox.session
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of what is installed, where the package index can be asked for them."""
    found = Path(session.create_tmp()).absolute() / "audit.json"
    found.unlink(missing_ok=True)
    options = ("--skip-editable", "--progress-spinner=off", "--format=json", f"--output={found}")
    session.run(sys.executable, "-m", "pip_audit", *options, external=True, success_codes=[0, 1], silent=True)
    if not found.is_file():
        session.skip("nobody can be asked for vulnerabilities from here")
    packages = json.loads(found.read_text(encoding="utf-8"))["dependencies"]
    known = [package for package in packages if "vulns" in package]
    session.log(f"{len(known)} of {len(packages)} packages are known to the index")
    affected = [f"{one['name']} {one['version']}: {vuln['id']}" for one in known for vuln in one["vulns"]]
    if affected:
        session.error("vulnerable: " + ", ".join(affected))


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks, one after the other, by their names after --; some take hours."""
    if not session.posargs:
        session.error(f"name some of {', '.join(sorted(path.stem for path in Path('benchmarks').glob('*.py')))}")
    for name in session.posargs:
        python(session, f"benchmarks.{name}")


def link_requirements(site: Path) -> None:
    """Links what the statesize of an environment asks for, and what that asks for, from the current one."""
    (package,) = importlib.metadata.distributions(name="statesize", path=[str(site)])
    found: set[tuple[str, str]] = set()
    waiting = [(package, "")]
    while waiting:
        asking, extra = waiting.pop()
        for wanted in map(Requirement, asking.requires or ()):
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                new = {(wanted.name, part) for part in ("", *wanted.extras)} - found
                found |= new
                waiting += [(importlib.metadata.distribution(name), part) for name, part in new]
    for distribution in {importlib.metadata.distribution(name) for name, _ in found}:
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in (top for top in tops if not (site / top).exists()):
            (site / top).symlink_to(Path(distribution.locate_file(top)).absolute())


@nox.session
def package(session: nox.Session) -> None:
    """Wheel and sdist: built, checked; the wheel tried in an environment of only what it asks for, the sdist built."""
    folder = Path(session.create_tmp()).absolute()
    for old in folder.glob("statesize-*"):
        old.unlink()
    python(session, "hatchling", "build", "-d", str(folder))
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    python(session, "twine", "check", "--strict", str(wheel), str(sdist))
    megabytes = wheel.stat().st_size / 1e6
    session.log(f"the wheel has {megabytes:.1f} MB")
    if megabytes > WHEEL_MEGABYTES:
        session.error(f"the wheel has {megabytes:.1f} MB, and at most {WHEEL_MEGABYTES} are allowed")
    environment = folder / "environment"
    python(session, "venv", "--clear", "--without-pip", str(environment))
    pip = (f"--python={environment / 'bin' / 'python'}", "--quiet")
    install = (*pip, "install", "--no-deps", "--no-compile", "--force-reinstall")
    python(session, "pip", *install, str(wheel))
    (site,) = environment.glob("lib/python*/site-packages")
    link_requirements(site)
    python(session, "pip", *pip, "check")
    command = str(environment / "bin" / "statesize")
    text = str(Path("README.md").absolute())
    with session.chdir(environment):
        # A bundled model and a report, far from the sources and without any extra.
        tokens = ("--sequences", "1", "--max-tokens", "64", "--channels", "2")
        session.run(command, "profile", "gla", "--text", text, *tokens, "--output", "profile", external=True)
    # What the sdist asks for is there, and it holds all that the package is made of.
    anew = folder / "anew" / wheel.name
    python(session, "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={anew.parent}", str(sdist))
    if anew.read_bytes() != wheel.read_bytes():
        session.error("the sdist makes another wheel than the sources")


@nox.session
def fla(session: nox.Session) -> None:
    """Tests of layers of flash-linear-attention, in an environment of their own: Triton alone unpacks to a gigabyte.

    Arguments after -- go to pytest; `-m ""` runs the slow ones too, over its kernels in Triton's interpreter.
    """
    folder = Path(session.create_tmp()).absolute() / "environment"
    python(session, "venv", "--clear", str(folder))
    pip = (str(folder / "bin" / "pip"), "install", "--quiet", "-c", "constraints.txt")
    tools = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "mpmath")
    # With torchao installed, transformers imports it and warns wherever it loads a model. Compiled by
    # pip, its escape sequences are no errors of a test.
    session.run(*pip, "-e", ".[fla]", "torchao==0.18.0", *tools, external=True)
    command = (str(folder / "bin" / "python"), "-m", "pytest")
    session.run(*command, *FLA_TESTS, *session.posargs, external=True)


@nox.session
def families(session: nox.Session) -> None:
    """The sweep of families with the oldest, the pinned and the newest transformers; names after -- choose families.

    Each version lies in an environment of its own, which takes all else from the current one.
    """
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = next(name for name in project["dependencies"] if name.startswith("transformers>=")).replace(">=", "==")
    known = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = next(line for line in known if line.startswith("transformers=="))
    for number, wanted in enumerate((oldest, pinned, "transformers")):
        folder = Path(session.create_tmp()).absolute() / f"environment-{number}"
        python(session, "venv", "--clear", str(folder))
        command = str(folder / "bin" / "python")
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "current.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        pip = ("-m", "pip", "install", "--quiet", "--no-compile", "--upgrade")
        session.run(command, *pip, wanted, external=True)
        session.run(command, "benchmarks/families.py", *session.posargs, env={"PYTHONPATH": "src"}, external=True)


@nox.session
def floors(session: nox.Session) -> None:
    """The tests with the lowest versions that are allowed, of all but torch; arguments after -- go to pytest.

    torch is that of constraints.txt: its oldest wheels bring gigabytes of CUDA.
    """
    folder = Path(session.create_tmp()).absolute()
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *(name for extra in FLOOR_EXTRAS for name in extras[extra])]
    lowest = [name.replace(">=", "==") for name in named if not name.startswith("torch>")]
    known = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = r"(torch|pytest|pytest-timeout|pytest-xdist|hypothesis|mpmath|hatchling)=="
    others = [line for line in known if re.match(kept, line)]
    constraints = folder / "floors.txt"
    constraints.write_text("\n".join([*lowest, *others]) + "\n", encoding="utf-8")
    environment = folder / "environment"
    python(session, "venv", "--clear", str(environment))
    tools = [line.partition("==")[0] for line in others if not line.startswith("torch==")]
    wanted = f".[{','.join(FLOOR_EXTRAS)}]"
    pip = (str(environment / "bin" / "pip"), "install", "--quiet", "--no-compile", "-c", str(constraints))
    session.run(*pip, "-e", wanted, *tools, external=True)
    # Old packages warn of new ones, which is no fault of this one.
    command = (str(environment / "bin" / "python"), "-m", "pytest", "-W", "default")
    session.run(*command, *(session.posargs or FLOOR_TESTS), external=True)
