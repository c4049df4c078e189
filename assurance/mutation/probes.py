"""Which statements of the modules that judge does a test reach?

Each statement of a module gets a number, and a copy of the module marks the number in memory that
forks share before it executes the statement.
"""

from __future__ import annotations

import ast
import mmap
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from assurance.mutation.operators import Way

NAME = "__reached__"
"""What the marked copies call the memory."""


class Probes:
    """Numbers the statements of modules."""

    def __init__(self, sources: Mapping[str, str]):
        """Of sources by the names of their modules."""
        self.sources = dict(sources)

    @cached_property
    def numbers(self) -> dict[str, dict[Way, int]]:
        """The number of each statement, by its module and by the way to it."""
        found: dict[str, dict[Way, int]] = {}
        size = 0
        for module, source in self.sources.items():
            ways = [way for way, _ in _statements(ast.parse(source), ())]
            found[module] = {way: size + at for at, way in enumerate(ways)}
            size += len(ways)
        return found

    @property
    def size(self) -> int:
        """How many statements there are."""
        return sum(map(len, self.numbers.values()))

    def of(self, module: str, way: Way) -> int:
        """The number of the innermost statement around a node."""
        numbers = self.numbers[module]
        return next(numbers[way[:size]] for size in range(len(way), 0, -1) if way[:size] in numbers)

    def tree(self, module: str) -> ast.Module:
        """The module's syntax tree, with a mark before each statement."""
        whole = ast.parse(self.sources[module])
        lists: dict[int, tuple[list[ast.stmt], list[ast.stmt]]] = {}
        for way, items in _statements(whole, ()):
            old, new = lists.setdefault(id(items), (items, list(items)))
            statement = old[way[-1][1] or 0]
            mark = ast.parse(f"{NAME}[{self.numbers[module][way]}] = 1").body[0]
            for node in ast.walk(mark):
                ast.copy_location(node, statement)
            new.insert(next(i for i, x in enumerate(new) if x is statement), mark)
        for old, new in lists.values():
            old[:] = new
        return ast.fix_missing_locations(whole)


class Reached:
    """The memory that marked copies write to, in a process and in its forks."""

    def __init__(self, size: int):
        """Of so many statements."""
        self.memory = mmap.mmap(-1, max(size, 1))

    def take(self) -> list[int]:
        """The numbers of all statements reached since the last time."""
        found = [at for at, mark in enumerate(self.memory[:]) if mark]
        self.memory[:] = bytes(len(self.memory))
        return found


def _statements(node: ast.AST, way: Way) -> Iterator[tuple[Way, Any]]:
    """The way to each statement that may be marked, and the list that it is in."""
    for name, value in ast.iter_fields(node):
        if not isinstance(value, list):
            continue
        for at, child in enumerate(value):
            here: Way = (*way, (name, at))
            if isinstance(child, ast.stmt) and not _comes_first(child):
                yield here, value
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                yield from _statements(child, here)


def _comes_first(statement: ast.stmt) -> bool:
    """Whether Python wants a statement before all others."""
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "__future__"
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
