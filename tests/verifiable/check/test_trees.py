"""Leaves of arguments: their names, and which are arrays that JAX can hold."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from verifiable.check import trees


@jax.tree_util.register_pytree_with_keys_class
class Named:
    """A tree of the caller's own, whose keys are of a type that JAX does not know."""

    def __init__(self, left: Any, right: Any) -> None:
        self.parts = left, right

    def tree_flatten_with_keys(self) -> Any:
        return tuple(zip(("left", "right"), self.parts, strict=True)), None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> Named:
        return cls(*children)


def test_paths_have_the_keys_of_the_callers_own_trees():
    leaves = jax.tree_util.tree_leaves_with_path({"a": [Named(1.0, 2.0)]})
    assert [trees.entries(path) for path, _ in leaves] == [
        ["a", 0, "left"],
        ["a", 0, "right"],
    ]


def test_random_keys_are_no_parameters():
    tree = {"rngs": jax.random.key(0)}
    with pytest.raises(TypeError, match=r"params\['rngs'\] has type key<fry>.*nnx.Param"):
        trees.abstract("params", tree)
    assert trees.abstract("inputs", tree)["rngs"].shape == ()


@pytest.mark.parametrize("dtype", ["U3", "datetime64[s]", object, np.longdouble])
def test_an_array_that_jax_cannot_hold_is_named(dtype: Any):
    with pytest.raises(TypeError, match=r"x\['ids'\] is an array that JAX cannot hold"):
        trees.abstract("x", {"ids": np.zeros(2, dtype)})
