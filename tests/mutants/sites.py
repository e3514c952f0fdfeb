"""Small changes of code: other operators, constants ± 1, deleted statements, swapped arguments."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_OTHER_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
# what stands in their arguments is a type or a text
_UNCHANGED_CALLS = {"isinstance", "issubclass", "cast", "TypeVar", "getattr", "hasattr", "print",
                    "warn", "debug", "info", "warning", "error", "exception"}  # fmt: skip
_UNCHANGED_FIELDS = {"annotation", "returns", "decorator_list", "bases"}


@dataclass(frozen=True)
class Site:
    """A place that can be changed: bytes `start` to `end` of a file, and what may replace them."""

    file: str
    lines: tuple[int, ...]  # lines of the place, and then the first one of its statement
    start: int
    end: int
    changes: tuple[str, ...]
    in_function: bool  # otherwise the place is executed by an import


@dataclass(frozen=True)
class Mutant:
    """One change of one site."""

    site: Site
    before: str
    after: str

    def __str__(self) -> str:
        change = f"{self.before} → {self.after}"
        return f"{self.site.file}:{self.site.lines[0]}  {' '.join(change.split())}"


def sites(root: Path, file: str) -> Iterator[Site]:
    """The places of a file that can be changed, without texts, types and checks of our own bugs."""
    source = (root / file).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def visit(node: ast.AST, statement: ast.stmt | None, in_function: bool) -> Iterator[Site]:
        statement = node if isinstance(node, ast.stmt) else statement
        if statement and (changes := tuple(_changes(node))):
            lines = (*range(node.lineno, node.end_lineno + 1), statement.lineno)
            start, end = (
                starts[row - 1] + column
                for row, column in (
                    (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
                )
            )  # fmt: skip
            yield Site(file, lines, start, end, changes, in_function)
        for field, child in _children(node):
            yield from visit(child, statement, in_function or _is_body(node, field))

    return visit(ast.parse(source), None, False)


def _is_body(node: ast.AST, field: str) -> bool:
    return field == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The parts of a node in which behaviour stands, with the names of their fields."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr):
        return
    if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Call) and _name(node.func) in _UNCHANGED_CALLS:
        return
    skipped = _UNCHANGED_FIELDS | ({"keywords"} if isinstance(node, ast.ClassDef) else set())
    for field, value in ast.iter_fields(node):
        if field not in skipped:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield field, child


def _changes(node: ast.AST) -> Iterator[str]:  # noqa: C901, PLR0912 - one case for each kind
    """Sources that may replace a node."""
    match node:
        case ast.Compare():
            for i, operator in enumerate(node.ops):
                for other in _COMPARISONS[type(operator)]:
                    ops = [*node.ops[:i], other(), *node.ops[i + 1 :]]
                    yield _text(ast.Compare(node.left, ops, node.comparators))
        case ast.BinOp() if type(node.op) in _OPERATORS and not _is_of_texts(node):
            yield _text(ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right))
        case ast.BoolOp():
            other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield _text(ast.BoolOp(other_op, node.values))
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield _text(node.operand)
        case ast.Constant(value=bool()):
            yield str(not node.value)
        case ast.Constant(value=int() | float()):
            yield from (f"({node.value + step})" for step in (1, -1))
        case ast.IfExp():
            yield _text(ast.IfExp(node.test, node.orelse, node.body))
        case ast.Call() if _name(node.func) not in _UNCHANGED_CALLS:
            yield from _changed_calls(node)
        case ast.Expr(value=ast.Call() as call) if _name(call.func) not in _UNCHANGED_CALLS:
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.Raise():
            yield "pass"
        case ast.Continue() | ast.Break():
            yield "pass"
        case ast.AugAssign():
            yield "pass"
            if type(node.op) in _OPERATORS:
                changed = ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value)
                yield ast.unparse(changed)
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield "return None"


def _changed_calls(node: ast.Call) -> Iterator[str]:
    if _name(node.func) in _OTHER_FUNCTIONS and isinstance(node.func, ast.Name):
        other = ast.Name(_OTHER_FUNCTIONS[node.func.id])
        yield ast.unparse(ast.Call(other, node.args, node.keywords))
    elif len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args[:2]):
        first, second, *others = node.args
        if ast.dump(first) != ast.dump(second):
            yield ast.unparse(ast.Call(node.func, [second, first, *others], node.keywords))


def _is_of_texts(node: ast.BinOp) -> bool:
    """Whether an operand is a text in the source: a message, or a path."""
    sides = (node.left, node.right)
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        or (isinstance(side, ast.BinOp) and _is_of_texts(side))
        or _is_none(side)
        for side in sides
    )


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _name(node: ast.expr) -> str:
    """The last part of a dotted name, or nothing."""
    return getattr(node, "id", "") or getattr(node, "attr", "")


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def draw_mutants(root: Path, rooms: Sequence[str], number: int, seed: int) -> list[Mutant]:
    """Some mutants of the rooms, each at a place of its own; the same ones for the same seed."""
    rng = random.Random(seed)
    files = [
        path.relative_to(root) for room in rooms for path in sorted((root / room).glob("*.py"))
    ]
    places = [site for file in files for site in sites(root, file.as_posix())]
    mutants = []
    for site in rng.sample(places, min(number, len(places))):
        before = (root / site.file).read_bytes()[site.start : site.end].decode()
        mutants.append(Mutant(site, before, rng.choice(site.changes)))
    return mutants
