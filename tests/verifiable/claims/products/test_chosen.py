"""Products with chosen matrices: which operand meets which matrix, in any order of dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.programs import FEW
from verifiable import program
from verifiable.claims.products.chosen import ChosenProduct
from verifiable.claims.products.ragged import group_of
from verifiable.jaxpr import interpret

RNG = np.random.default_rng(16)
EXPERTS, D, F, ROWS = 3, 32, 24, 6


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


W, X, LAYERS = normal(EXPERTS, D, F), normal(ROWS, D), normal(2, EXPERTS, D, F)
ONE = np.array([2, 0, 1, 1, 0, 2], np.int32)
TWO = np.stack([ONE, ONE[::-1]], 1)
BEYOND = np.array([2, 0, 7, 1, -9, 2], np.int32)
SIZES = np.array([3, 0, 2], np.int32)


def rows(x: Any, w: Any) -> Any:
    return jnp.einsum("td,tdf->tf", x, w)


def chosen_by(mode: str, **fill: Any) -> Callable[..., Any]:
    return lambda p, x, i: rows(x, p.at[i].get(mode=mode, **fill))


def sliced(p: Any, x: Any, i: Any) -> Any:
    return x @ lax.dynamic_slice(p, (i[2], 0, 0), (1, D, F))[0]


def mapped(p: Any, x: Any, i: Any) -> Any:
    return jax.vmap(lambda x, i: x @ p[i])(x, i)


def parts(p: Any, x: Any, i: Any) -> Any:
    """Each layer has a part of every expert, and its own rows."""
    return jnp.einsum("lsd,lsdf->lsf", x, p[:, i])


def groups(p: Any, x: Any, i: Any) -> Any:
    return jax.vmap(lax.ragged_dot)(x, p, i)


def inner(p: Any, x: Any, i: Any) -> Any:
    """The groups divide the second of three dimensions of rows."""
    numbers = lax.RaggedDotDimensionNumbers((((3,), (1,)), ((), ())), (1,), (0,))
    return lax.ragged_dot_general(x, p, i, numbers)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a matrix each": (lambda p, x, i: rows(x, p[i]), (W, X, ONE)),
    "two each": (lambda p, x, i: jnp.einsum("td,tkdf->tkf", x, p[i]), (W, X, TWO)),
    "rows of their own for two": (
        lambda p, x, i: jnp.einsum("tkdf,tkd->kft", p[i], x),
        (W, normal(ROWS, 2, D), TWO),
    ),
    "several rows each": (
        lambda p, x, i: jnp.einsum("tsd,tdf->sft", x, p[i]),
        (W, normal(ROWS, 5, D), ONE),
    ),
    "transposed": (lambda p, x, i: jnp.einsum("tf,tdf->td", x[:, :F], p[i]), (W, X, ONE)),
    "along another axis": (
        lambda p, x, i: rows(x, jnp.moveaxis(jnp.take(p, i, axis=1, mode="clip"), 1, 0)),
        (W.transpose(1, 0, 2).copy(), X, ONE),
    ),
    "mapped": (mapped, (W, X, ONE)),
    "one for all": (sliced, (W, X, ONE)),
    "one beyond the stack for all": (sliced, (W, X, BEYOND)),
    "parts": (parts, (LAYERS, normal(2, ROWS, D), ONE)),
    "layers mapped": (
        lambda p, x, i: jnp.einsum("ltd,ltdf->ltf", x, jax.vmap(lambda w, i: w[i])(p, i)),
        (LAYERS, normal(2, ROWS, D), np.stack([ONE, ONE[::-1]])),
    ),
    "cast": (
        lambda p, x, i: rows(x.astype(jnp.float16), p[i].astype(jnp.float16)).astype(jnp.float32),
        (W, X, ONE),
    ),
    "integers": (
        lambda p, x, i: rows(x.astype(jnp.int32), p[i].astype(jnp.int32)),
        ((W * 40).astype(np.int8), (X * 40).astype(np.int8), ONE),
    ),
    "clipped": (chosen_by("clip"), (W, X, BEYOND)),
    "filled with zeros": (chosen_by("fill", fill_value=0), (W, X, BEYOND)),
    "filled with NaN": (chosen_by("fill"), (W, X, BEYOND)),
    "integers, filled": (
        lambda p, x, i: jnp.matmul(
            x[:, None].astype(jnp.int32), p.at[i].get(mode="fill").astype(jnp.int32)
        ),
        ((W * 40).astype(np.int8), (X * 40).astype(np.int8), BEYOND),
    ),
    "promised": (chosen_by("promise_in_bounds"), (W, X, BEYOND)),
    "groups of rows, mapped": (
        groups,
        (LAYERS, normal(2, ROWS, D), np.stack([SIZES, SIZES[::-1]])),
    ),
    "groups of rows that have rows": (inner, (W, normal(2, ROWS, 3, D), SIZES)),
}


@pytest.mark.parametrize("name", CASES)
def test_each_row_meets_its_matrix(name: str):
    """The form makes operands, from the stack and the indices, whose product is the output."""
    fn, (p, x, i) = CASES[name]
    compiled = program.compile(fn, p, x, i, policy=FEW)
    claim = next(c for c in compiled.claims if isinstance(c.form, ChosenProduct))
    form, equation = claim.form, claim.equation
    env = dict(
        zip(compiled.function.block.inputs, (*compiled.function.constants, p, x, i), strict=True)
    )
    for e in compiled.function.block.equations:
        interpret.replay(e, env)
    out = interpret.read(env, claim.output)
    operands = [jnp.asarray(v) for v in interpret.read_all(env, claim.operands)]
    with jax.enable_x64(True):
        near, far = form.room_operands(operands, p)
        seen = form.seen(out).astype(np.float64)
        near = near.astype(np.float64)
        found = np.einsum("pmk,pkn->pmn", near, far.astype(np.float64))
        np.testing.assert_allclose(found, seen, rtol=1e-2, atol=2e-2)
        np.testing.assert_array_equal(form.unseen(form.seen(out)), out)
        inputs = form.inputs(operands, jnp.asarray(p))
        assert [v.shape for v in inputs] == [a.shape for a in equation.inputs]
        defined = np.asarray(form.chosen(operands).defined)
    again = interpret.apply(equation, inputs)[0]
    np.testing.assert_allclose(
        np.asarray(again, np.float64), np.asarray(out, np.float64), rtol=1e-2, atol=2e-2
    )
    assert defined.all() == (name != "promised")
    # Nothing of the stack is in the key but its projection.
    assert claim.far not in compiled.analysis.frame.kept


@pytest.mark.parametrize(
    ("sizes", "dtype", "defined"),
    [
        ((3, 0, 2), np.int32, True),
        ((6, 0, 0), np.uint8, True),
        ((3, 3, 1), np.int32, False),
        ((8, -4, 2), np.int32, False),
        ((2**31 - 1, 2**31 - 1, 8), np.int32, False),
        ((255, 255, 6), np.uint8, False),
        ((2**63 - 1, 2**63 - 1, 8), np.int64, False),
    ],
)
def test_sizes_of_groups_are_defined(sizes: Any, dtype: Any, defined: bool):
    """None is negative, and together they are no more than the rows: no type wraps."""
    with jax.enable_x64(True):
        group, found = group_of(jnp.asarray(np.array(sizes, dtype)), ROWS, (2,))
    assert group.shape == (2, ROWS) and list(map(bool, found)) == [defined] * 2
    if defined:
        expected = np.repeat(np.arange(4), (*sizes, ROWS - sum(sizes)))
        np.testing.assert_array_equal(group[0], expected)
