"""The operators: each yields every mutant of one kind of a module's syntax tree.

Left alone are what no test of behaviour could see: docstrings, annotations, type variables and the
arguments of types (`list[bytes]()`), the texts and fields of raised errors (that an error is raised
is not), `if TYPE_CHECKING`, `__all__`, `zip`'s `strict`, `del` of names, the order of what a
smallest or largest is taken of.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
"""Comparisons: the boundary moved, and the opposite."""

COMPUTED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.MatMult: ast.Mult,
}

SYMMETRIC = {"min", "max", "minimum", "maximum"}
"""Functions whose arguments have no order."""

GENERIC = {"Counter", "deque", "dict", "frozenset", "list", "set", "tuple"}
"""Types whose subscripts are annotations, wherever they stand."""

OPERATORS = {
    "comparison": "another comparison: the boundary moved, or the opposite",
    "connective": "`and` for `or`, and the other way round",
    "condition": "the opposite of a condition of `if`, `while`, `x if c else y`, a comprehension",
    "not": "a `not` taken away",
    "constant": "an integer one more or one less, a float doubled, True for False",
    "index": "an index or a bound of a slice one more",
    "arithmetic": "another arithmetical or bitwise operation",
    "return": "None returned",
    "statement": "a call, an augmented assignment, a jump, a `del` of an item left out",
    "raise": "an error not raised",
    "arguments": "two neighbouring arguments swapped",
}
"""Name of each operator, and what it does."""


Way = tuple[tuple[str, int | None], ...]
"""From a module's tree to a node: fields, and positions in those that are lists."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module."""

    module: str
    operator: str
    scope: str
    """Dotted name of the function or class around the change; empty outside of all."""
    line: int
    before: str
    """The changed expression or statement, unparsed, and what becomes of it."""
    after: str
    occurrence: int
    """How many equal changes of the same scope stand before this one."""
    way: Way
    changed: ast.AST

    @property
    def name(self) -> str:
        """Identifies the mutant as long as its scope keeps what is changed, on any line."""
        digest = hashlib.sha256(f"{self.before} -> {self.after}".encode()).hexdigest()[:8]
        return f"{self.module}:{self.scope}:{self.operator}:{digest}:{self.occurrence}"

    def tree(self, source: str) -> ast.Module:
        """The module's syntax tree with this change."""
        whole = ast.parse(source)
        node: Any = whole
        for field, at in self.way[:-1]:
            node = getattr(node, field) if at is None else getattr(node, field)[at]
        field, at = self.way[-1]
        if at is None:
            old = getattr(node, field)
            setattr(node, field, ast.copy_location(self.changed, old))
        else:
            items = getattr(node, field)
            items[at] = ast.copy_location(self.changed, items[at])
        return ast.fix_missing_locations(whole)


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """All mutants of a module's source, in the order of their lines."""
    seen: Counter[tuple[str, ...]] = Counter()
    for way, scope, node in _places(ast.parse(source), (), ""):
        for operator, changed in _changes(node):
            before, after = ast.unparse(node), ast.unparse(ast.fix_missing_locations(changed))
            if before == after:
                continue
            equal = (scope, operator, before, after)
            line = getattr(node, "lineno", 0)
            yield Mutant(module, operator, scope, line, before, after, seen[equal], way, changed)
            seen[equal] += 1


def _places(node: ast.AST, way: Way, scope: str) -> Iterator[tuple[Way, str, ast.AST]]:
    """Every node that may be changed, with the way to it and its scope."""
    if way:
        yield way, scope, node
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        scope = f"{scope}.{node.name}".lstrip(".")
    for name, value in ast.iter_fields(node):
        if _left_alone(node, name):
            continue
        for at, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not _without_behaviour(child):
                yield from _places(child, (*way, (name, at)), scope)


def _left_alone(node: ast.AST, field: str) -> bool:
    """Whether a field holds annotations, decorators or what an error says."""
    if field in ("annotation", "returns", "decorator_list", "ctx", "bases", "op", "ops"):
        return True
    return isinstance(node, ast.Raise)


def _without_behaviour(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.keyword(arg="strict"):  # of zip: our own lengths, checked once more
            return True
        case ast.Delete(targets=targets) if all(isinstance(x, ast.Name) for x in targets):
            return True  # names that are not used
        case ast.Import() | ast.ImportFrom() | ast.JoinedStr():
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
            return True
        case ast.Subscript(value=ast.Name(id=name)) if name in GENERIC:
            return True
    return False


def _changes(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """What each operator makes of a node."""
    yield from _of_expressions(node)
    yield from _of_statements(node)
    test = getattr(node, "test", None)
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not _has_an_opposite(test):
        yield "condition", _with(node, test=_opposite(test))
    if isinstance(node, ast.comprehension):
        for at, test in enumerate(node.ifs):
            if _has_an_opposite(test):
                continue
            yield "condition", _with(node, ifs=_replaced(node.ifs, at, _opposite(test)))


def _of_expressions(node: ast.AST) -> Iterator[tuple[str, Any]]:
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                for other in COMPARED[type(op)]:
                    yield "comparison", _with(node, ops=_replaced(ops, at, other()))
        case ast.BoolOp(op=op):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield "connective", _with(node, op=other)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not", operand
        case ast.Constant(value=bool() as value):
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield "constant", ast.Constant(value + 1)
            yield "constant", ast.Constant(value - 1)
        case ast.Constant(value=float() as value):
            yield "constant", ast.Constant(value * 2 if value else 1.0)
        case ast.Subscript(slice=ast.Slice(lower=lower, upper=upper) as cut):
            if lower is not None:
                yield "index", _with(node, slice=_with(cut, lower=_next(lower)))
            if upper is not None:
                yield "index", _with(node, slice=_with(cut, upper=_next(upper)))
        case ast.Subscript(slice=ast.Name() | ast.BinOp() as index):
            yield "index", _with(node, slice=_next(index))
        case ast.BinOp(op=op):
            yield "arithmetic", _with(node, op=COMPUTED[type(op)]())
        case ast.Call(args=arguments) if _called(node) not in SYMMETRIC:
            for at, (first, second) in enumerate(pairwise(arguments)):
                if not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
                    swapped = [*arguments[:at], second, first, *arguments[at + 2 :]]
                    yield "arguments", _with(node, args=swapped)


def _of_statements(node: ast.AST) -> Iterator[tuple[str, Any]]:
    match node:
        case ast.AugAssign(op=op):
            yield "arithmetic", _with(node, op=COMPUTED[type(op)]())
            yield "statement", ast.Pass()
        case ast.Return(value=ast.expr() as value):
            if not (isinstance(value, ast.Constant) and value.value is None):
                yield "return", ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Continue() | ast.Break() | ast.Delete():
            yield "statement", ast.Pass()
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield "statement", ast.Pass()
        case ast.Raise():
            yield "raise", ast.Pass()


def _called(call: ast.Call) -> str:
    """The last name of what is called."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _with(node: Any, **fields: Any) -> Any:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _replaced(items: list[Any], at: int, new: Any) -> list[Any]:
    return [*items[:at], new, *items[at + 1 :]]


def _next(index: Any) -> Any:
    return ast.BinOp(index, ast.Add(), ast.Constant(1))


def _opposite(test: Any) -> Any:
    return ast.UnaryOp(ast.Not(), test)


def _has_an_opposite(test: Any) -> bool:
    """Whether another operator makes the opposite: of one comparison, of a `not`."""
    if isinstance(test, ast.Compare):
        return len(test.ops) == 1
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
