"""What the distribution contains."""

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import statesize

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "statesize"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_clone_is_tested():
    assert Path(statesize.__file__).is_relative_to(SOURCE)
    command = [sys.executable, "-c", "import statesize; print(statesize.__file__)"]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert Path(found.stdout.strip()).is_relative_to(SOURCE)


def test_version_is_the_distribution_s():
    assert statesize.__version__ == importlib.metadata.version("statesize")


def test_wheel_ships_every_file_of_the_source_tree(wheel):
    expected = {
        path.relative_to(ROOT / "src").as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {name for name in wheel.namelist() if name.startswith("statesize/")}
    assert shipped == expected
    licences = {name.rpartition("/")[2] for name in wheel.namelist() if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}


def test_citation_and_package_agree():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {statesize.__version__}\n" in citation
    assert "arXiv:2504.19561" in citation


def declared(*extras):
    """Names of what the package asks for, and of what these extras do."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    named = [*project["dependencies"], *(name for extra in extras or optional for name in optional[extra])]
    return {name.partition(">=")[0].partition("[")[0].lower() for name in named} - {"statesize"}


def imported():
    """The packages that the source names anywhere."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            yield from (name.partition(".")[0] for name in names)


def test_what_is_imported_is_asked_for():
    known = sys.stdlib_module_names | {"statesize"}
    distributions = importlib.metadata.packages_distributions()
    used = {name for name in imported() if name not in known}
    asked = declared("gguf", "lightning", "ray", "trainer")
    # numba brings llvmlite, transformers huggingface_hub, and who uses statesize.testing has pytest; what is not
    # installed goes by its own name, as fla of flash-linear-attention.
    foreign = {name for name in used if not {one.lower() for one in distributions.get(name, (name,))} & asked}
    assert foreign <= {"fla", "huggingface_hub", "llvmlite", "pytest"}


def test_public_names_are_listed():
    assert dir(statesize) == sorted([*statesize.__all__, "lab"])
    rooms = [getattr(statesize, name) for name in ("lab", "metrics", "operators", "reduction", "testing")]
    rooms += [getattr(statesize.lab, name) for name in ("mixers", "tasks", "training", "zoo")]
    assert [[name for name in dir(room) if not name.startswith("__")] for room in rooms] == [
        sorted(room.__all__) for room in rooms
    ]
    assert all(hasattr(statesize, name) for name in dir(statesize))
    with pytest.raises(AttributeError):
        _ = statesize.unknown


def test_import_brings_nothing_heavy():
    code = "import sys, statesize; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = set("torch numpy scipy numba pandas pyarrow xarray transformers altair rich".split())
    assert heavy.isdisjoint(done.stdout.split())


def test_constraints_pin_every_direct_dependency():
    wanted = declared()
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    assert pinned == wanted
