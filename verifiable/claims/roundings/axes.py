"""Along which axes the rows of a rounded value lie.

What a device gains from freedom in a value A it gains in the product that reads it,

    C_ij = sum_k A_ik B_kj,        so  |dC_ij| <= norm(dA_i) norm(B_j).

A row is what the product sums over, however the value lies in memory: features of a token in
(features, tokens) as in (tokens, features), channels of a pixel in NCHW as in NHWC. Rows along
another axis would hold each feature over all tokens, and leave it to the device to spend all of the
freedom on one token.

`ways` follows a value through what moves it, and through arithmetic on elements, to the products
that read it, and says what each sums over. `lying` follows the rows of a value back through the
glue before it: the axes along which what it is computed from lies in the same rows, none where one
number serves the whole row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from verifiable.claims.products.product import CHOICES, CONTRACTIONS
from verifiable.jaxpr.blocks import Array, Atom, Equation, Var
from verifiable.jaxpr.effects import SPREADS
from verifiable.jaxpr.graph import Graph

Axes = tuple[int, ...]
LAST: Axes = (-1,)
SHORT = 16  # elements, of which a row may have one at the end of its slack (`rounding.row_limit`)

_RESHAPES = SPREADS - {"broadcast_in_dim"}
_Places = tuple[frozenset[int], ...]  # for each axis, those of the value that it runs over


def in_rows(x: Any, axes: Axes) -> Any:
    """A numpy or JAX array as (rows, elements); the rows in order of the other axes."""
    rank = len(x.shape)
    if not rank:
        return x.reshape(1, 1)
    along = [a % rank for a in axes]
    others = [a for a in range(rank) if a not in along]
    rows, width = (math.prod(x.shape[a] for a in group) for group in (others, along))
    order = [*others, *along]
    return (x if order == sorted(order) else x.transpose(order)).reshape(rows, width)


def row_length(shape: tuple[int, ...], axes: Axes) -> int:
    """How many elements the rows have that `in_rows` makes of an array of a shape."""
    return math.prod(shape[a] for a in axes) if shape else 1


def from_rows(rows: Array, shape: tuple[int, ...], axes: Axes) -> Array:
    """The array of a shape that `in_rows` makes rows of."""
    along = [a % len(shape) for a in axes] if shape else []
    order = [*(a for a in range(len(shape)) if a not in along), *along]
    return rows.reshape([shape[a] for a in order]).transpose(np.argsort(order).tolist())


def places(shape: tuple[int, ...], axes: Axes) -> np.ndarray[Any, Any]:
    """Of each row, where its elements are in the flattened array: (rows, elements)."""
    return in_rows(np.arange(math.prod(shape)).reshape(shape), axes)


def ways(value: Var, graph: Graph) -> tuple[bool, tuple[Axes, ...]]:
    """Whether something is chosen from the next product, and the ways in which rows lie.

    Each way is tested. The first says what a row is whose mean square the slack of an element
    depends on: what the product sums over that something is chosen from, else the last axis.

    Args:
      value: a rounded value.
      graph: of the function.
    """
    shape, chosen = value.shape, graph.reaching(CHOICES, CONTRACTIONS)
    decides, summed = False, dict[bool, list[Axes]]({True: [], False: []})
    for product, axes, direct in _products(value, graph):
        chooses = direct and not chosen.isdisjoint(product.outputs)
        decides |= chooses
        along = tuple(a for a in sorted(axes) if shape[a] > 1)
        if along and along[-1] == len(shape) - 1 and shape[-1] >= SHORT:
            along = LAST
        if along:
            summed[chooses].append(LAST if along == (len(shape) - 1,) else along)
    first = summed[True] or [LAST]
    return decides, tuple(dict.fromkeys([*first, *summed[False]]))


def lying(
    equations: Sequence[Equation], value: Atom, axes: Axes
) -> dict[Var, frozenset[int]] | None:
    """The axes of each variable before a value that lie along its rows; None if rows are mixed.

    Args:
      equations: in order, of one output each, all of which the value depends on.
      value: whose rows lie along `axes`.
      axes: see `value`.
    """
    if not isinstance(value, Var):
        return None
    found = {value: _long({a % max(len(value.shape), 1) for a in axes}, value)}
    for equation in reversed(equations):
        [out] = equation.outputs
        for place, atom in enumerate(equation.inputs):
            if not isinstance(atom, Var):
                continue
            before = _before(equation, place, found[out])
            if before is None or found.setdefault(atom, _long(before, atom)) != _long(before, atom):
                return None
    return found


def span(atom: Atom, axes: frozenset[int]) -> int:
    """How many elements a value has along some of its axes."""
    return math.prod(atom.shape[a] for a in axes)


def _long(axes: set[int], atom: Atom) -> frozenset[int]:
    return frozenset(a for a in axes if a < len(atom.shape) and atom.shape[a] != 1)


def _before(equation: Equation, place: int, axes: frozenset[int]) -> set[int] | None:
    """The axes of an input along which rows of the output lie; None if it mixes them."""
    atom, [out] = equation.inputs[place], equation.outputs
    kind, params = equation.kind, equation.params
    if kind == "transpose":
        return {params["permutation"][a] for a in axes}
    if kind == "broadcast_in_dim":
        back = {i for i, a in enumerate(params["broadcast_dimensions"]) if a in axes}
        return back if span(atom, frozenset(back)) in (1, span(out, axes)) else None
    if kind in _RESHAPES:
        found: set[int] = set()
        for ins, outs in groups(atom.shape, out.shape):
            own = {a for a in outs if out.shape[a] != 1}
            if axes & own and not own <= axes:
                return None
            found |= set(ins) if axes & own else set()
        return found
    if kind.startswith("reduce_"):
        return None if axes else set(params["axes"])
    if not atom.shape or len(atom.shape) == len(out.shape):
        return set(axes) if atom.shape else set()
    return None


def groups(
    before: tuple[int, ...], after: tuple[int, ...]
) -> Iterator[tuple[list[int], list[int]]]:
    """The axes that a reshape splits and joins: smallest groups with equal numbers of elements."""
    ins, outs, i, j, left, right = list[int](), list[int](), 0, 0, 1, 1
    while i < len(before) or j < len(after):
        if j == len(after) or (left <= right and i < len(before)):
            ins.append(i)
            left, i = left * before[i], i + 1
        else:
            outs.append(j)
            right, j = right * after[j], j + 1
        if left == right and ins and outs:
            yield ins, outs
            ins, outs, left, right = [], [], 1, 1
    if ins or outs:
        yield ins, outs


def _products(value: Var, graph: Graph) -> Iterator[tuple[Equation, frozenset[int], bool]]:
    """Products that a value reaches with no other in between, what they sum over of it, and whether
    they are not inside of a loop around which it is."""
    start = tuple(frozenset({a}) for a in range(len(value.shape)))
    seen: set[tuple[Var, _Places, bool]] = set()
    left: list[tuple[Var, _Places, bool]] = [(value, start, True)]
    while left:
        item = left.pop()
        if item in seen:
            continue
        seen.add(item)
        variable, lies, direct = item
        for reader in graph.readers.get(variable, ()):
            if reader is None:
                continue
            reads = [i for i, a in enumerate(reader.inputs) if a is variable]
            for place in reads:
                if reader.kind in CONTRACTIONS:
                    axes = (lies[a] for a in _summed(reader, place))
                    yield reader, frozenset[int]().union(*axes), direct
                    continue
                if reader.kind == "scan":
                    inner = reader.bodies[0].inputs[place]
                    dropped = len(lies) - len(inner.shape)
                    left.append((inner, lies[dropped:], False))
                left += [(v, _after(reader, place, lies, v), direct) for v in reader.outputs]


def _summed(product: Equation, place: int) -> tuple[int, ...]:
    """The axes of an operand that a product sums over; of an image, its channels."""
    if product.kind == "conv_general_dilated":
        numbers = product.params["dimension_numbers"]
        left, right = numbers.lhs_spec, numbers.rhs_spec
        return (left[1],) if place == 0 else tuple(right[1:])
    if place > 1:
        return ()
    if product.kind == "ragged_dot_general":
        numbers = product.params["ragged_dot_dimension_numbers"]
        return tuple(numbers.dot_dimension_numbers[0][place])
    return tuple(product.params["dimension_numbers"][0][place])


def _after(equation: Equation, place: int, lies: _Places, out: Var) -> _Places:
    """What the axes of an output run over; nothing of what is not known."""
    kind, params, before = equation.kind, equation.params, equation.inputs[place].shape
    nowhere = frozenset[int]()
    if kind == "transpose":
        return tuple(lies[a] for a in params["permutation"])
    if kind == "broadcast_in_dim":
        at = dict(zip(params["broadcast_dimensions"], lies, strict=True))
        return tuple(at.get(a, nowhere) for a in range(len(out.shape)))
    if kind in _RESHAPES:
        found = [nowhere] * len(out.shape)
        for ins, outs in groups(before, out.shape):
            for a in outs:
                found[a] = nowhere.union(*(lies[i] for i in ins))
        return tuple(found)
    gone = params.get("axes", ()) if kind.startswith(("reduce_", "arg")) else ()
    kept = tuple(x for a, x in enumerate(lies) if a not in gone)
    same = not equation.bodies and len(kept) == len(out.shape)
    return kept if same else (nowhere,) * len(out.shape)
