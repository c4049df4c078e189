"""The operators make the changes that they name; the table names modules and tests that exist."""

from __future__ import annotations

import ast
import json

import pytest

from assurance.mutation.results import EQUIVALENT
from assurance.mutation.operators import OPERATORS, mutants
from assurance.mutation.table import ROOT, TESTS, source

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
@a(1)
def f(b: c[1]) -> d[2]:
    """Not 3."""
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
        found = {(m.scope, m.before, m.after) for m in mutants(module, source(module).read_text())}
        for each in listed:
            if each["module"] == module:
                assert (each["scope"], each["before"], each["after"]) in found, each
                assert len(each["reason"].split()) >= 4
