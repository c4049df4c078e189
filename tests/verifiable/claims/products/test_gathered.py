"""Which products with gathered matrices are claims: those whose matrices are whole, and known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable import program
from verifiable.claims.products.gathered import GatheredProduct
from verifiable.policy import Policy

ROWS, WIDTH, EXPERTS = 32, 64, 4
X = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
INDEX = jax.ShapeDtypeStruct((ROWS,), jnp.int32)
STACK = jax.ShapeDtypeStruct((EXPERTS, WIDTH, WIDTH), jnp.float32)
BYTES = jax.ShapeDtypeStruct(STACK.shape, jnp.int8)


def times(matrices: Callable[[Any, Any], Any], form: str = "td,tdf->tf") -> Callable[..., Any]:
    return lambda w, x, index: jnp.einsum(form, x, matrices(w, index))


def filled(w: Any, index: Any, fill: Any = None) -> Any:
    """With what JAX fills by default, unless it is given."""
    dims = lax.GatherDimensionNumbers(
        offset_dims=(1, 2), collapsed_slice_dims=(0,), start_index_map=(0,)
    )
    sizes = (1, *w.shape[1:])
    return lax.gather(w, index[:, None], dims, sizes, mode="fill", fill_value=fill)


def integers(fill: int | None) -> Callable[..., Any]:
    def fn(w: Any, x: Any, index: Any) -> Any:
        found = filled(w, index, fill)
        dims = (((1,), (1,)), ((0,), (0,)))
        levels = jnp.clip(jnp.round(x), -127, 127).astype(jnp.int8)
        return lax.dot_general(levels, found, dims, preferred_element_type=jnp.int32)

    return fn


def one(w: Any, x: Any, index: Any) -> Any:
    return jnp.tanh(x) @ lax.dynamic_index_in_dim(w, index[0], keepdims=False)


CASES: dict[str, tuple[Callable[..., Any], bool]] = {
    "by row": (times(lambda w, i: w[i]), True),
    "one for all rows": (one, True),
    "not a number beyond the stack": (times(filled), True),
    "zero beyond the stack": (
        times(lambda w, i: w.at[i].get(mode="fill", fill_value=0.0)),
        True,
    ),
    "a weight beyond the stack": (
        times(lambda w, i: w.at[i].get(mode="fill", fill_value=2.0)),
        False,
    ),
    "the least integer beyond the stack": (integers(None), True),
    "an integer beyond the stack": (integers(3), True),
    "parts of matrices": (
        lambda w, x, i: jnp.tanh(x)[:, :32] @ lax.dynamic_slice(w, (i[0], 8, 0), (1, 32, 64))[0],
        False,
    ),
    "other dimensions": (
        lambda w, x, i: jnp.einsum("td,tdf->tf", x[:, :32], w[i].reshape(ROWS, 32, 128)),
        False,
    ),
    "rounded matrices": (times(lambda w, i: jnp.tanh(w[i])), False),
    "a sum over the rows": (times(lambda w, i: w[i], "td,tdf->f"), False),
    "levels by what may be no number": (
        lambda w, x, i: lax.dot_general(
            jnp.round(x).astype(jnp.int8),
            filled(w, i),
            (((1,), (1,)), ((0,), (0,))),
            preferred_element_type=jnp.float32,
        ),
        False,
    ),
    "integers that may wrap": (
        lambda w, x, i: lax.dot_general(
            x.astype(jnp.int32), w[i].astype(jnp.int32), (((1,), (1,)), ((0,), (0,)))
        ),
        False,
    ),
    "matrices of the job": (
        lambda w, x, i: jnp.einsum("td,tdf->tf", x, (x[:4, :, None] * w)[i]),
        False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_whole_known_matrices_make_a_claim(name: str):
    fn, claimed = CASES[name]
    stack = BYTES if "integer" in name else STACK
    compiled = program.compile(fn, stack, X, INDEX, policy=Policy(draws=2), self_test=False)
    forms = [claim.form for claim in compiled.claims if claim.work]
    assert any(isinstance(form, GatheredProduct) for form in forms) is claimed
    if claimed and "beyond" in name:
        fill = next(form.filling for form in forms if isinstance(form, GatheredProduct))
        expected = {"not a": None, "zero": 0.0, "the least": -128, "an integer": 3}
        [value] = [v for word, v in expected.items() if name.startswith(word)]
        assert fill == value or (fill is not None and np.isnan(fill) and value is None)
