"""Places in the source where a small fault can be planted."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is not": "is", "not in": "in"}
_ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "//"}


@dataclass(frozen=True)
class Mutation:
    """A text of a file, found again by the line that holds it, and what stands there instead."""

    file: str
    number: int  # line, from 1, when the fault was drawn
    line: str
    old: str
    new: str
    column: int

    def apply(self, root: Path) -> bool:
        """Plant the fault under a root; False where its line is gone."""
        path = root / self.file
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        same = [number for number, line in enumerate(lines, 1) if line.rstrip("\n") == self.line]
        if not same:
            return False
        nearest = min(same, key=lambda number: abs(number - self.number)) - 1
        end = self.column + len(self.old)
        lines[nearest] = f"{self.line[: self.column]}{self.new}{self.line[end:]}\n"
        path.write_text("".join(lines), encoding="utf-8")
        return True


def draw(root: Path, count: int, seed: int) -> list[Mutation]:
    """Draw mutations of `root`/src by seed: files and lines in proportion to lines, at most one a line."""
    files = sorted(path for path in (root / "src").rglob("*.py"))
    sites = [site for path in files for site in _one_a_line(path, root)]
    return sorted(random.Random(seed).sample(sites, count), key=lambda site: (site.file, site.number))  # noqa: S311


def _one_a_line(path: Path, root: Path) -> list[Mutation]:
    text = path.read_text(encoding="utf-8")
    lines, file = text.splitlines(), str(path.relative_to(root))
    by_line: dict[int, list[Mutation]] = {}
    for number, column, old, new in _places(ast.parse(text), text):
        by_line.setdefault(number, []).append(Mutation(file, number, lines[number - 1], old, new, column))
    return [random.Random(f"{file}:{number}").choice(same) for number, same in by_line.items()]  # noqa: S311


def _places(tree: ast.Module, text: str) -> Iterator[tuple[int, int, str, str]]:
    """Line, column, old and new text of each place; columns of lines that are ASCII up to there."""
    lines = text.splitlines()
    notes = {id(inner) for node in ast.walk(tree) for note in _annotations(node) for inner in ast.walk(note)}
    for node in ast.walk(tree):
        if id(node) in notes:
            continue
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            yield from _between(lines, node.left, node.comparators[0], _COMPARISONS)
        elif isinstance(node, ast.BinOp):
            yield from _between(lines, node.left, node.right, _ARITHMETIC)
        elif isinstance(node, ast.BoolOp):
            pair = {"and": "or"} if isinstance(node.op, ast.And) else {"or": "and"}
            yield from _between(lines, node.values[0], node.values[1], pair)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and _ascii(lines, node):
            yield node.lineno, node.col_offset, "not ", ""
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float) and _ascii(lines, node):
            old = lines[node.lineno - 1][node.col_offset : node.end_col_offset]
            yield node.lineno, node.col_offset, old, f"({old} + 1)" if type(node.value) is int else f"({old} * 1000)"
        elif isinstance(node, (ast.AugAssign, ast.Expr, ast.Raise)) and node.lineno == node.end_lineno:
            old = lines[node.lineno - 1][node.col_offset :]
            if not isinstance(getattr(node, "value", None), (ast.Constant, ast.Yield, ast.YieldFrom)):
                yield node.lineno, node.col_offset, old, "pass"


def _annotations(node: ast.AST) -> list[ast.AST]:
    return [one for one in (getattr(node, "annotation", None), getattr(node, "returns", None)) if one is not None]


def _ascii(lines: list[str], node: ast.expr) -> bool:
    """Whether columns in bytes are those in characters."""
    return lines[node.lineno - 1].isascii() and node.lineno == node.end_lineno


def _between(
    lines: list[str], left: ast.expr, right: ast.expr, swaps: dict[str, str]
) -> Iterator[tuple[int, int, str, str]]:
    if left.end_lineno != right.lineno or not lines[right.lineno - 1].isascii():
        return
    first = left.end_col_offset or 0
    sign = lines[right.lineno - 1][first : right.col_offset].strip("() ")
    if sign in swaps:
        column = lines[right.lineno - 1].index(sign, first)
        yield right.lineno, column, sign, swaps[sign]
