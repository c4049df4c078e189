"""Every rule by itself: cut inputs, resized parameters, and the same piece of the output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable.check.tiling import evaluate, rules
from verifiable.check.tiling.rules import Cut
from verifiable.jaxpr import from_jax, interpret
from verifiable.jaxpr.blocks import Equation, Var

RNG = np.random.default_rng(11)
A = RNG.standard_normal((4, 6, 8)).astype(np.float32)
B = RNG.standard_normal((4, 8, 6)).astype(np.float32)
RULED = {
    "add": (lambda a: a + a[:, :1], A),
    "select_n": (lambda a: jnp.where(a > 0, a, 0.0), A),
    "broadcast_in_dim": (lambda a: lax.broadcast_in_dim(a, (2, 4, 6, 8), (1, 2, 3)), A),
    "reshape merges": (lambda a: a.reshape(4, 48), A),
    "reshape splits": (lambda a: a.reshape(4, 6, 2, 4), A),
    "reshape mixes": (lambda a: a.reshape(8, 6, 4), A),
    "reshape in another order": (lambda a: lax.reshape(a, (4, 48), (0, 2, 1)), A),
    "rev": (lambda a: lax.rev(a, (1,)), A),
    "stack": (lambda a: jnp.stack([a, a], axis=1), A),
    "squeeze": (lambda a: lax.squeeze(lax.expand_dims(a, (1,)), (1,)), A),
    "transpose": (lambda a: a.transpose(2, 0, 1), A),
    "reduce_sum": (lambda a: a.sum(1), A),
    "reduce_max": (lambda a: a.max((0, 2)), A),
    "argmax": (lambda a: lax.argmax(a, 1, jnp.int32), A),
    "cumsum": (lambda a: lax.cumsum(a, axis=1), A),
    "concatenate": (lambda a: lax.concatenate([a, a], 1), A),
    "slice": (lambda a: lax.slice(a, (0, 1, 0), (4, 5, 8), (1, 2, 1)), A),
    "split": (lambda a: lax.split(a, (2, 4), axis=1)[1], A),
    "split in three": (lambda a: lax.split(a, (1, 2, 3), axis=1), A),
    "dot_general": (lambda a: lax.dot_general(a, B, (((2,), (1,)), ((0,), (0,)))), A),
    "dot_general outer": (lambda a: lax.dot_general(a, B, (((1,), (2,)), ((), ()))), A),
    "iota": (lambda a: lax.broadcasted_iota(jnp.int32, (4, 6, 8), 1) + lax.abs(a) * 0, A),
}


def pieces(length):
    """Cuts of an axis, and pieces of them: from each start the shortest and the longest."""
    for unit in (1, 2, 4, 8):
        for offset in range(0, length, unit):
            last = (length - offset) // unit
            for start in range(last):
                for size in {1, last - start}:
                    yield unit, offset, start, size


def piece_of(value, cut, start, size):
    first, count = cut.bounds(start, size)
    return np.take(value, range(first, first + count), cut.axis)


def steps_of(fn, *inputs):
    function, _ = from_jax.trace(fn, *inputs)
    env: dict[Any, Any] = dict(
        zip(function.block.inputs, [*function.constants, *inputs], strict=True)
    )
    interpret.evaluate(function.block, env)
    return function.block.equations, env


def known(env, atoms):
    return [np.asarray(x) for x in interpret.read_all(env, atoms)]


@pytest.mark.parametrize("name", RULED)
def test_rules(name):
    fn, x = RULED[name]
    equations, env = steps_of(fn, x)
    pieces_of: list[Any] = []
    operands: list[Any] = []
    expected: list[Any] = []
    for equation in equations:
        rule = rules.RULES[equation.kind]
        for i, v in enumerate(equation.outputs):
            for axis, length in enumerate(v.shape):
                for unit, offset, start, size in pieces(length):
                    cut = Cut(axis, unit, offset)
                    sources = rule(equation, i, cut)
                    if sources is None:
                        continue
                    pieces_of.append((equation, i, cut, start, size))
                    operands.append(
                        [
                            value if c is None else piece_of(value, c, start, size)
                            for value, c in zip(known(env, equation.inputs), sources, strict=True)
                        ]
                    )
                    expected.append(piece_of(np.asarray(env[v]), cut, start, size))

    @jax.jit
    def run(operands):
        return [evaluate.evaluate(*p, v) for p, v in zip(pieces_of, operands, strict=True)]

    for result, want in zip(run(operands), expected, strict=True):
        np.testing.assert_allclose(result, want, rtol=1e-5, atol=1e-6)
    assert expected or name in ("reshape mixes", "reshape in another order")


def test_axes_that_a_primitive_mixes_are_not_cut():
    def rule(fn, axis, unit=1):
        equations, _ = steps_of(fn, A)
        equation: Equation = equations[-1]
        return rules.RULES[equation.kind](equation, 0, Cut(axis, unit))

    assert rule(lambda a: lax.cumsum(a, axis=1), 1) is None
    assert rule(lambda a: lax.concatenate([a, a], 1), 1) is None
    assert rule(lambda a: lax.slice(a, (0, 0, 0), (4, 6, 8), (1, 2, 1)), 1) is None
    assert rule(lambda a: lax.rev(a, (1,)), 1) is None
    assert rule(lambda a: jnp.stack([a, a], axis=1), 1) is None
    assert rule(lambda a: a.reshape(8, 6, 4), 0) is None
    assert rule(lambda a: a.reshape(4, 48), 1) is None
    assert rule(lambda a: a.reshape(4, 48), 1, unit=4) is None
    assert rule(lambda a: a.reshape(4, 48), 1, unit=16) == (Cut(1, 2),)
    assert rule(lambda a: a.reshape(24, 2, 4), 1) == (Cut(2, 4),)
    assert rule(lambda a: a.reshape(4, 3, 16), 1) == (Cut(1, 2),)


def test_merged_axes_say_how_far_a_unit_has_to_grow():
    def merged(shape, cut):
        equations, _ = steps_of(lambda a: a.reshape(shape), A)
        return rules.merged(equations[-1], cut)

    assert merged((4, 48), Cut(1)) == 8
    assert merged((4, 48), Cut(1, 2)) == 4
    assert merged((4, 48), Cut(1, 3)) == 8
    assert merged((4, 48), Cut(1, 16)) == merged((4, 48), Cut(0)) == 1
    assert merged((8, 6, 4), Cut(0)) == 2
    assert merged((4, 6, 2, 4), Cut(2)) == 1


def test_products_read_operands_as_they_were_before_transposing():
    def product(a, b):
        return lax.dot_general(
            a.transpose(0, 2, 1), b.transpose(0, 2, 1), (((1,), (2,)), ((0,), (0,)))
        )

    def by_one(a, b):
        return lax.dot_general(a.transpose(1, 0, 2), b, (((2,), (1,)), ((1,), (0,))))

    def by_other(a, b):
        return lax.dot_general(a.transpose(1, 0, 2), b, (((2,), (1,)), ((0,), (2,))))

    def freely(a, b):
        return lax.dot_general(a.transpose(1, 0, 2), b, (((2,), (1,)), ((), ())))

    for fn, read in (
        (product, [1, 1]),
        (by_one, [1, 0]),
        (by_other, [0, 0]),
        (freely, [0, 0]),
    ):
        equations, env = steps_of(fn, A, B)
        makers = {v: e for e in equations for v in e.outputs}
        turned = rules.untransposed(equations[-1], makers)
        moved = zip(turned.inputs, equations[-1].inputs, strict=True)
        assert [int(a is not b) for a, b in moved] == read
        [result] = interpret.apply(turned, interpret.read_all(env, turned.inputs))
        np.testing.assert_allclose(result, env[equations[-1].outputs[0]], rtol=1e-5, atol=1e-5)
        assert rules.untransposed(equations[-1], {}).inputs == equations[-1].inputs


OTHERS = {
    "operands of other ranks": (lambda a: a + 1.0, lambda v: (Var((6,), v.dtype), v)),
    "a reduction of two": (lambda a: a.sum(1), lambda v: (v, v)),
    "a shape that is computed": (
        lambda a: lax.broadcast_in_dim(a, (2, 4, 6, 8), (1, 2, 3)),
        lambda v: (v, Var((), np.dtype(np.int32))),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_no_rule_foresees_is_needed_whole(name):
    """JAX makes no such equations today."""
    fn, inputs = OTHERS[name]
    [equation] = from_jax.trace(fn, A)[0].block.equations
    [output] = equation.outputs
    assert rules.step(equation, output, Cut(1)) is not None
    other = replace(equation, inputs=inputs(equation.inputs[0]))
    assert rules.step(other, output, Cut(1)) is None
