"""Choices from the rows of one claimed product: what is chosen from is found backwards.

See `near_ties` for what keeps the order of a row, and what else may stand in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from verifiable.check.freedom.elementwise import Glue, between
from verifiable.check.freedom.leeway import LastProduct, heads
from verifiable.check.specification import Specification
from verifiable.claims.claim import Claim
from verifiable.jaxpr.blocks import Atom, Equation, Literal, Var
from verifiable.jaxpr.graph import Graph

_MOVES = frozenset(
    "convert_element_type copy dynamic_slice optimization_barrier reshape slice squeeze "
    "stop_gradient".split()
)
_RISING = frozenset("cbrt erf exp exp2 expm1 log log1p log2 logistic sqrt tanh".split())
_ALONG = frozenset({"add", "sub", "mul", "div"})
_NUMBERS = {"argmax": 1, "argmin": 1}


class Choice(NamedTuple):
    """A choice from the rows of a claim.

    Attributes:
      head: the claimed product.
      equation: that chooses.
      number: how many elements are chosen.
      largest: whether the largest are, else the smallest.
      glue: from the product to what is chosen from; None if that keeps the order of its rows.
      axis: along which is chosen.
      ordered: whether the choice is the order of the chosen elements, not which are chosen.
      narrowed: whether a cast to fewer digits makes equals of what differs in the product.
    """

    head: LastProduct
    equation: Equation
    number: int
    largest: bool
    glue: Glue | None = None
    axis: int = -1
    ordered: bool = False
    narrowed: bool = False

    @property
    def claim(self) -> int:
        """Index of the product."""
        return self.head.claim.index


def choices(program: Specification) -> Iterator[Choice]:
    """The choices of a program that are made from claimed products with parameters."""
    graph = Graph.of(program.function.block)
    every = list(heads(program))
    by_claim = {head.claim: head for head in every}
    for equation in program.function.block.walk():
        count = _NUMBERS.get(equation.kind, equation.params.get("k", 0))
        if equation.kind not in {*_NUMBERS, "top_k"} or not count:
            continue
        operand, largest = equation.inputs[0], equation.kind != "argmin"
        last = len(operand.shape) - 1
        axis = equation.params.get("axes", (equation.params.get("axis", last),))[0] % (last + 1)
        source, narrowed = _source(operand, graph, program) if axis == last else (None, False)
        head = None if source is None else by_claim.get(source)
        plain = head is not None and head.alone and head.form.near == 0
        if plain and head is not None and operand.shape[-1] == head.form.columns:
            if head.form.columns > count:
                yield Choice(head, equation, count, largest, narrowed=narrowed)
            continue
        for head in every:
            block = head.block
            if block is None or equation not in block.equations:
                continue
            glue = between(block, head.claim.output, operand, program.analysis.by_equation)
            if glue is not None and operand.shape[axis] > count:
                yield Choice(head, equation, count, largest, glue, axis)


def _source(atom: Atom, graph: Graph, program: Specification) -> tuple[Claim | None, bool]:
    """The claim whose rows a value has in the same order, and whether these are narrowed."""
    narrowed = False
    while isinstance(atom, Var):
        equation = graph.producers.get(atom)
        if equation is None:
            return None, False
        claim = program.analysis.by_equation.get(equation)
        if claim is not None and claim.form.contraction is not None:
            return claim, narrowed
        if equation.kind in _MOVES | _RISING:
            if atom.shape[-1:] != equation.inputs[0].shape[-1:]:
                return None, False  # other columns
            given = equation.inputs[0]
            narrowed |= jnp.promote_types(given.dtype, atom.dtype) != atom.dtype
            whole = jnp.issubdtype(given.dtype, jnp.integer) and given.dtype != atom.dtype
            narrowed |= whole and given.dtype.itemsize >= atom.dtype.itemsize
            atom = given
        elif equation.kind == "scan":
            place = equation.outputs.index(atom)
            if place < equation.params["num_carry"]:
                return None, False
            atom = equation.bodies[0].outputs[place]
        elif equation.kind in _ALONG:
            first, second = equation.inputs
            if _whole_rows(second, graph) and not _negative(second):
                atom = first
            elif equation.kind not in ("add", "mul") or _negative(first):
                return None, False
            elif _whole_rows(first, graph):
                atom = second
            else:
                return None, False
        else:
            return None, False
    return None, False


def _whole_rows(atom: Atom, graph: Graph) -> bool:
    """Whether a value is the same for all columns of a row."""
    if isinstance(atom, Literal) or not atom.shape or atom.shape[-1] == 1:
        return True
    equation = graph.producers.get(atom)
    if equation is None or equation.kind != "broadcast_in_dim":
        return False
    dimensions = equation.params["broadcast_dimensions"]
    last = len(atom.shape) - 1
    return last not in dimensions or equation.inputs[0].shape[dimensions.index(last)] == 1


def _negative(atom: Atom) -> bool:
    return isinstance(atom, Literal) and bool(np.all(np.asarray(atom.value) < 0))
