"""Mutation testing of the numerics: `python -m campaigns.mutation [--sample 240] [--seed 0] [--output FILE]`.

Operators, comparisons, constants, conditions and calls of operators/, spectra/ and measurement/metrics.py are changed
one at a time, and the tests of these must notice. A change is killed where a test fails or runs for too long. All
changes would take days, so a random sample is drawn, and the share that is killed comes with its binomial interval of
95 % (Clopper and
Pearson). Annotations, types that are cast to, and text for people (messages, docstrings, what contains a blank) are not
changed. Run it from a checkout that nobody edits
meanwhile. With --output, what is finished is kept, and the same command goes on; --again N makes the mutants of the
listed numbers once more. Exits with 1 if fewer than 85 % are killed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaigns import ROOT

SOURCE, TESTS = ROOT / "src" / "statesize", ROOT / "tests"
ENOUGH = 0.85
# Processor time; all tests of the numerics take about one minute.
SECONDS, COMPILING, WALL = 150, 240, 1500
MEMORY = 8 * 2**30

_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_PAIRS = ("min max", "amin amax", "minimum maximum", "any all", "floor ceil", "argmin argmax", "zeros ones")
_NAMES = {one: other for pair in map(str.split, _PAIRS) for one, other in (pair, reversed(pair))}


@dataclass(frozen=True)
class Mutation:
    """One change.

    Attributes:
        line: Where.
        change: What, in words.
        apply: Makes it in the tree.
    """

    line: int
    change: str
    apply: Callable[[], None]


def mutations(tree: ast.AST) -> list[Mutation]:
    """All changes of a module, in the order of its text.

    Args:
        tree: The module.

    Returns:
        The changes; each acts on this tree.
    """
    return [mutation for node in _code(tree) for mutation in _of(node)]


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are run and whose values matter: no annotations, docstrings, messages or decorators."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    typing = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"cast", "TypeVar"}
    for name, value in ast.iter_fields(node):
        if typing and name == "args" and isinstance(node, ast.Call):
            # The first is a type, or its name.
            value = node.args[1:]
        if name in {"annotation", "returns", "decorator_list", "type_params"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _code(child)


def _of(node: ast.AST) -> Iterator[Mutation]:
    def change(words: str, target: object, name: str, value: object, index: int | None = None) -> Mutation:
        def apply() -> None:
            if index is None:
                setattr(target, name, value)
            else:
                getattr(target, name)[index] = value

        return Mutation(getattr(node, "lineno", 0), words, apply)

    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _ARITHMETIC:
        other = _ARITHMETIC[type(node.op)]
        yield change(f"{type(node.op).__name__} to {other.__name__}", node, "op", other())
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            other_comparison = _COMPARISONS[type(operator)]
            words = f"{type(operator).__name__} to {other_comparison.__name__}"
            yield change(words, node, "ops", other_comparison(), index)
    if isinstance(node, ast.BoolOp):
        other_logic = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield change(f"{type(node.op).__name__} to {type(other_logic).__name__}", node, "op", other_logic)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield change("minus to plus", node, "op", ast.UAdd())
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield change("condition to its opposite", node, "test", ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.Constant):
        value = _other(node.value)
        if value is not None:
            yield change(f"{node.value!r} to {value!r}", node, "value", value)
    if isinstance(node, ast.Call):
        name = "attr" if isinstance(node.func, ast.Attribute) else "id"
        called = getattr(node.func, name, "")
        if called in _NAMES:
            yield change(f"{called} to {_NAMES[called]}", node.func, name, _NAMES[called])
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield change("call left out", node, "value", ast.Constant(None))


def _other(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 2 if value else 1.0
    return f"{value}X" if isinstance(value, str) and " " not in value.strip() else None


@dataclass(frozen=True)
class Mutant:
    """A change of a file.

    Attributes:
        number: Of all mutants.
        file: Path in src/statesize.
        index: Of the changes of that file.
    """

    number: int
    file: str
    index: int

    def tree(self) -> tuple[ast.Module, Mutation]:
        """The changed module, and the change."""
        tree = ast.parse((SOURCE / self.file).read_text(encoding="utf-8"))
        mutation = mutations(tree)[self.index]
        mutation.apply()
        return ast.fix_missing_locations(tree), mutation


def every_mutant() -> list[Mutant]:
    """All mutants of the numerics."""
    numerics = [*SOURCE.glob("operators/*.py"), *SOURCE.glob("spectra/**/*.py"), SOURCE / "measurement/metrics.py"]
    files = sorted(numerics)
    found: list[Mutant] = []
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        name = file.relative_to(SOURCE).as_posix()
        found += [Mutant(len(found) + index, name, index) for index in range(len(mutations(tree)))]
    return found


def tests_of(file: str) -> list[str]:
    """The tests that are asked about a file: its own, those that use it, and those of all engines and operators."""
    use = f"{Path(file).stem} import"
    own = sorted((TESTS / file).parent.glob(f"test_{Path(file).stem}.py"))
    using = [path for path in sorted(TESTS.glob("spectra/**/test_*.py")) if use in path.read_text(encoding="utf-8")]
    usual = [
        TESTS / "measurement" / "test_measurement.py",
        TESTS / "spectra" / "test_known.py",
        TESTS / "campaigns" / "test_fuzz.py",
        TESTS / "measurement" / "test_metrics.py",
        TESTS / "operators",
    ]
    return [*map(str, dict.fromkeys([*own, *using, *usual]))]


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives one module of the package from a tree in the place of its file."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        spec = importlib.util.spec_from_loader(fullname, self, origin=str(self.path))
        if spec is not None:
            spec.has_location = True
        return spec

    def get_source(self, fullname: str) -> str:
        return self.path.read_text(encoding="utf-8")

    def get_code(self, fullname: str) -> Any:
        return compile(self.tree, str(self.path), "exec")


def _child(mutant: Mutant | None, compiled: bool, scratch: str) -> int:
    """Run the tests on a mutant, in a process of its own; pytest's exit code."""
    import numba
    import pytest

    seconds = COMPILING if compiled else SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    if compiled:
        # numba's own cache does not see that a constant was changed.
        numba.config.CACHE_DIR = scratch
    if mutant is not None:
        module = "statesize." + mutant.file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        sys.meta_path.insert(0, _Changed(module, SOURCE / mutant.file, mutant.tree()[0]))
    os.chdir(ROOT)
    file = "measurement/metrics.py" if mutant is None else mutant.file
    options = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "--deselect",
        "tests/campaigns/test_fuzz.py::test_the_command_writes_what_it_found_and_goes_on_from_there",
    ]
    return int(pytest.main([*options, f"--basetemp={scratch}/temporary", *tests_of(file)]))


def outcome(mutant: Mutant | None) -> tuple[str, float]:
    """What became of a mutant: killed, by time or memory, or survived; and the processor time that it took."""
    text = "" if mutant is None else (SOURCE / mutant.file).read_text(encoding="utf-8")
    compiled = "njit" in text or "compile_lanes" in text
    scratch = tempfile.mkdtemp(prefix="mutant-")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if child == 0:
        os.setsid()
        code = 70
        try:
            code = _child(mutant, compiled, scratch)
        finally:
            os._exit(code)
    end, status = time.monotonic() + WALL, None
    while status is None:
        done, ended = os.waitpid(child, os.WNOHANG)
        if done:
            status = ended
        elif time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        else:
            time.sleep(0.05)
    shutil.rmtree(scratch, ignore_errors=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if os.WIFSIGNALED(status):
        return "killed by time or memory", spent
    return ("survived" if os.WEXITSTATUS(status) == 0 else "killed"), spent


def interval(killed: int, total: int) -> tuple[float, float]:
    """The interval of 95 % of a share, by Clopper and Pearson."""
    from scipy.stats import binomtest

    found = binomtest(killed, total).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)


def _warm_up() -> None:
    """Imports what is not mutated, so that each child begins with it."""
    for name in (
        "torch",
        "numpy",
        "scipy.linalg",
        "scipy.stats",
        "numba",
        "pytest",
        "mpmath",
        "xarray",
        "pandas",
    ):
        importlib.import_module(name)
    sys.path.insert(0, str(SOURCE.parent))
    # It would be the process that tests are run in.
    sys.dont_write_bytecode = True


def main() -> int:
    """Make mutants, run the tests on them, and write what survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slice", type=float, default=1e9, help="seconds after which no more mutants are begun")
    parser.add_argument("--again", type=int, nargs="*", default=[])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    os.environ |= {"CI": "true", "OMP_NUM_THREADS": "1"}
    every = every_mutant()
    chosen = random.Random(given.seed).sample(every, min(given.sample, len(every)))  # noqa: S311
    kept = given.output is not None and given.output.exists()
    rows: dict[int, dict[str, Any]] = {}
    if kept:
        rows = {row["number"]: row for row in json.loads(given.output.read_text(encoding="utf-8"))["mutants"]}
    _warm_up()
    start = time.monotonic()
    if not rows and outcome(None)[0] != "survived":
        print("the tests fail without any change", file=sys.stderr)
        return 1
    for mutant in chosen:
        if time.monotonic() - start > given.slice:
            break
        if mutant.number in rows and mutant.number not in given.again:
            continue
        mutation = mutant.tree()[1]
        became, seconds = outcome(mutant)
        place = {"number": mutant.number, "file": mutant.file, "line": mutation.line, "change": mutation.change}
        rows[mutant.number] = {**place, "outcome": became, "seconds": round(seconds, 1)}
        print(f"{len(rows):4} {mutant.file}:{mutation.line} {mutation.change}: {became} ({seconds:.0f} s)", flush=True)
        if given.output is not None:
            _write(given.output, list(rows.values()), len(every), given.seed)
    killed = sum(row["outcome"] != "survived" for row in rows.values())
    low, high = interval(killed, len(rows))
    print(f"{killed} of {len(rows)} killed, {killed / len(rows):.1%} [{low:.1%}, {high:.1%}], out of {len(every)}")
    return 0 if killed >= ENOUGH * len(rows) else 1


def _write(path: Path, rows: list[dict[str, Any]], every: int, seed: int) -> None:
    from importlib.metadata import version

    killed = sum(row["outcome"] != "survived" for row in rows)
    document = {
        "schema": 1,
        "seed": seed,
        "mutants": rows,
        "every": every,
        "made": len(rows),
        "killed": killed,
        "interval": list(interval(killed, len(rows))),
        "versions": {"python": sys.version.split()[0]} | {name: version(name) for name in ("torch", "numpy", "pytest")},
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
