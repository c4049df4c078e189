"""The operators make the changes that they name; the table names modules and tests that exist."""

from __future__ import annotations

import ast
import json
from types import ModuleType
from typing import Any

import pytest

from assurance.mutation.operators import OPERATORS, mutants
from assurance.mutation.probes import NAME, Probes, Reached
from assurance.mutation.record import FileRecord, in_order
from assurance.mutation.record import TestRecord as Record
from assurance.mutation.results import EQUIVALENT, IDENTIFIED, interval
from assurance.mutation.table import ROOT, TESTS, source
from assurance.mutation.warm import Functions, NeedsImportError

# Of each operator: a function's body, and all that may stand in its place.
CHANGES = {
    "comparison": ("return a < b", {"return a <= b", "return a >= b"}),
    "connective": ("return a and b", {"return a or b"}),
    "condition": ("if a:\n    b()", {"if not a:\n    b()"}),
    "not": ("return not a", {"return a"}),
    "constant": ("return 3", {"return 4", "return 2"}),
    "index": ("return a[b:c]", {"return a[b + 1:c]", "return a[b:c + 1]"}),
    "arithmetic": ("return a - b", {"return a + b"}),
    "return": ("return a", {"return None"}),
    "statement": ("a(b)", {"pass"}),
    "raise": ("raise a(1 < 2)", {"pass"}),
    "arguments": ("return f(a, b, c)", {"return f(b, a, c)", "return f(a, c, b)"}),
}


def function(body: str) -> str:
    return ast.unparse(ast.parse("def f(a, b, c):\n    " + body.replace("\n", "\n    ")))


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_makes_the_changes_that_it_names(operator: str):
    before, after = CHANGES[operator]
    text = function(before)
    made = [m for m in mutants("m", text) if m.operator == operator]
    assert {ast.unparse(m.tree(text)) for m in made} == {function(x) for x in after}
    assert all(m.scope == "f" and m.module == "m" for m in made)


def test_what_has_no_behaviour_is_left_alone():
    text = '''
"""1 < 2."""
__all__ = [str(1 < 2)]
if TYPE_CHECKING:
    import a
x: tuple[1, 2] = f"{1}"
S = TypeVar("S", a, b)
g = frozenset[a]
@a(1)
def f(b: c[1]) -> d[2]:
    """Not 3."""
    del b
    d = min(b, c), np.maximum(b, c)
    for _ in zip(a, strict=True): e
'''
    assert [m.after for m in mutants("m", text)] == []


def test_names_of_mutants_are_those_of_their_scopes_and_not_of_lines():
    text = "def f(a):\n    return [a < 1, a < 1]\n"
    first = [m.name for m in mutants("m", text)]
    assert len(set(first)) == len(first)
    assert [m.name for m in mutants("m", "import a\n\n" + text)] == first


def test_every_module_and_test_file_of_the_table_exists():
    for module, files in TESTS.items():
        assert source(module).exists()
        for file in files:
            assert (ROOT / file.partition("::")[0]).exists()


def test_equivalent_mutants_are_mutants_of_today_and_have_reasons():
    listed = json.loads(EQUIVALENT.read_text())
    for module in {each["module"] for each in listed}:
        changes = mutants(module, source(module).read_text())
        found = {tuple(getattr(m, key) for key in IDENTIFIED) for m in changes}
        for each in listed:
            if each["module"] == module:
                assert tuple(each[key] for key in IDENTIFIED) in found, each
                assert len(each["reason"].split()) >= 4


MARKED = '''
"""A module."""
from __future__ import annotations
table = {}
def f(x):
    """A function."""
    try:
        if x > 1:
            return "large"
        elif x < 0:
            raise ValueError
    except ValueError:
        return "negative"
    match x:
        case 0:
            return "zero"
        case _:
            return [x for _ in table]
'''


def reached_by(*arguments: int) -> list[str]:
    """The statements of MARKED that calls reach, after its import."""
    probes = Probes({"m": MARKED})
    reached = Reached(probes.size)
    names: dict[str, Any] = {NAME: reached.memory}
    exec(compile(probes.tree("m"), "m", "exec"), names)  # noqa: S102
    assert names["f"].__doc__ == "A function."
    reached.take()
    for argument in arguments:
        names["f"](argument)
    found = set(reached.take())
    texts: list[str] = []
    for way, number in probes.numbers["m"].items():
        node: Any = ast.parse(MARKED)
        for field, at in way:
            node = getattr(node, field) if at is None else getattr(node, field)[at]
        if number in found:
            texts.append(ast.unparse(node).splitlines()[0])
    return texts


def test_marks_tell_which_statements_a_call_reaches():
    assert reached_by() == []
    assert reached_by(2) == ["try:", "if x > 1:", "return 'large'"]
    assert reached_by(-1) == [
        *("try:", "if x > 1:", "if x < 0:", "raise ValueError", "return 'negative'"),
    ]
    assert reached_by(0, 1) == [
        *("try:", "if x > 1:", "if x < 0:", "match x:", "return 'zero'"),
        "return [x for _ in table]",
    ]


def test_every_mutant_belongs_to_the_innermost_statement_around_it():
    probes = Probes({"m": MARKED})
    numbers = probes.numbers["m"]
    for mutant in mutants("m", MARKED):
        way = next(way for way, number in numbers.items() if number == probes.of("m", mutant.way))
        assert mutant.way[: len(way)] == way
        assert not any(
            mutant.way[:size] in numbers for size in range(len(way) + 1, 1 + len(mutant.way))
        )


def names_of(tests: list[Record]) -> list[str]:
    return [test.name for test in tests]


def test_a_mutant_runs_the_tests_that_reach_it_and_those_after_them():
    slow, quick = Record("slow", 60.0, [1]), Record("quick", 0.01, [1, 2])
    before, after = Record("before", 0.01, [3]), Record("after", 0.01, [])
    used = FileRecord("used", tests=[before, slow, quick, after], imported=[9])
    other = FileRecord("other", tests=[Record("other", 0.01, [3])])
    assert names_of(in_order([other, used], 1)) == ["quick", "slow", "after"]
    assert names_of(in_order([other, used], 2)) == ["quick", "after"]
    assert names_of(in_order([other, used], 7)) == []
    assert names_of(in_order([other, used], 9, [2])) == ["quick", "before", "after", "slow"]
    assert set(names_of(in_order([other, used], None))) == {
        *("other", "before", "slow", "quick", "after"),
    }
    used.failed = ["quick"]
    assert names_of(in_order([other, used], 1)) == ["slow", "after"]


FUNCTIONS = """
from functools import cache
class C:
    @cache
    def f(self):
        return 1
    def g(self):
        def inner(): return self, 2
        return inner()
    def h(self, a, b):
        return lambda: (a, b)
def make():
    def made(): return 3
    return made
made = make()
"""


def changed(before: str, after: str) -> ModuleType:
    """FUNCTIONS, imported, and then changed."""
    module = ModuleType("m")
    path = str(source("m"))
    exec(compile(FUNCTIONS, path, "exec"), vars(module))  # noqa: S102
    assert before in FUNCTIONS
    Functions(["m"]).change("m", ast.parse(FUNCTIONS.replace(before, after)))
    return module


def test_functions_get_new_code_wherever_they_are_referred_to():
    assert changed("return 1", "return -1").C().f() == -1
    assert changed("self, 2", "self, -2").C().g()[1] == -2
    assert changed("return 3", "return -3").made() == -3
    assert changed("return inner()", "return None").C().g() is None
    assert changed("(a, b)", "(b, a)").C().h(1, 2)() == (2, 1)


def test_code_with_other_free_variables_asks_for_an_import():
    text = "def outer(a):\n    def inner(): return a\n    return inner\nf = outer(1)\n"
    module: dict[str, Any] = {}
    exec(compile(text, str(source("m")), "exec"), module)  # noqa: S102
    with pytest.raises(NeedsImportError):
        Functions(["m"]).change("m", ast.parse(text.replace("return a", "return None")))
    assert module["f"]() == 1


def test_interval_of_a_share_is_clopper_and_pearsons():
    # Tables of the exact interval, for example of Clopper and Pearson, Biometrika 26 (1934).
    assert interval(0, 0) is None
    assert interval(10, 10) == [0.6915, 1.0]
    assert interval(8, 10) == [0.4439, 0.9748]
    assert interval(0, 10) == [0.0, 0.3085]
