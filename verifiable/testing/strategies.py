"""Strategies of hypothesis: programs, honest devices, traces, openings, hostile bytes and objects.

    from verifiable.testing import strategies as vst

    @given(vst.small_programs())
    def test_something(small):
        program = small.compile()

Compiling a program takes seconds, so tests draw few of them, or one, and many runs of it. Every
array is drawn as a seed, so that what hypothesis stores and shrinks is small. Extra `testing`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis.extra.numpy as npst
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

from verifiable import program as programs
from verifiable.policy import Policy
from verifiable.program import Program
from verifiable.testing import cheats, hostile
from verifiable.testing.cheat import Cheat
from verifiable.testing.devices import NAMES, Answer, Device
from verifiable.trace import AuditPlan, Committed, Trace

ROWS, WIDTH = 8, 32
"""Shape of what the layers of a small program pass on."""

FEW = Policy(draws=4)
"""At this width, more draws would cost more than the products, which would be no claims then."""

DTYPES = ("bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64", "complex64")
"""Types of drawn arrays, all of which have canonical bytes."""

seeds = functools.partial(st.binary, min_size=32, max_size=32)
"""32 bytes: nonces, seeds of audits, digests, secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallProgram:
    """A drawn function with parameters and inputs.

    Attributes:
      layers: names of its layers, of `LAYERS`.
      fn: the function `(params, x)`.
      params: a list of the parameters of each layer.
      inputs: x, of shape (8, 32), float32.
    """

    layers: tuple[str, ...]
    fn: Callable[..., Any] = field(repr=False)
    params: Any = field(repr=False)
    inputs: tuple[Any, ...] = field(repr=False)

    def compile(self, policy: Policy = FEW, **options: Any) -> Program:
        """Compile it; takes seconds. Options are those of `verifiable.compile`."""
        return programs.compile(self.fn, self.params, *self.inputs, policy=policy, **options)


Layer = tuple[tuple[int, ...], Callable[[Any, Any], Any]]


def _dense(w: Any, x: Any) -> Any:
    return x @ w


def _gelu(w: Any, x: Any) -> Any:
    return jax.nn.gelu(x @ w)


def _residual(w: Any, x: Any) -> Any:
    return x + jnp.tanh(x @ w)


def _normalised(w: Any, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return (centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-3)) @ w


def _gated(w: Any, x: Any) -> Any:
    return jnp.where(jnp.tanh(x @ w) > 0, x, 0.1 * x)


def _attention(w: Any, x: Any) -> Any:
    return jax.nn.softmax(x @ w @ x.T / np.sqrt(WIDTH)) @ x


def _looped(w: Any, x: Any) -> Any:
    return lax.scan(lambda carry, one: (jnp.tanh(carry @ one), None), x, w)[0]


def _narrow(w: Any, x: Any) -> Any:
    half = jnp.bfloat16
    return jnp.dot(x.astype(half), w.astype(half), preferred_element_type=jnp.float32)


def _quantised(w: Any, x: Any) -> Any:
    scale = jnp.max(jnp.abs(x)) / 127 + 1e-6
    levels = jnp.clip(jnp.round(x / scale), -127, 127).astype(jnp.int8)
    weights = jnp.clip(jnp.round(w * 64), -127, 127).astype(jnp.int8)
    product = lax.dot_general(
        levels, weights, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32
    )
    return product * (scale / 64)


_SQUARE = (WIDTH, WIDTH)
LAYERS: dict[str, Layer] = {
    "dense": (_SQUARE, _dense),
    "gelu": (_SQUARE, _gelu),
    "residual": (_SQUARE, _residual),
    "layer norm": (_SQUARE, _normalised),
    "comparison": (_SQUARE, _gated),
    "attention": (_SQUARE, _attention),
    "scan": ((2, *_SQUARE), _looped),
    "bfloat16": (_SQUARE, _narrow),
    "int8": (_SQUARE, _quantised),
}
"""What small programs are made of: the shape of a layer's parameters, and its function."""


def small_programs(
    *, layers: Sequence[str] = tuple(LAYERS), most: int = 3
) -> st.SearchStrategy[SmallProgram]:
    """Programs of one to three layers, with a float answer, and sometimes a choice beside it.

    Args:
      layers: names that layers are drawn from.
      most: the most layers.
    """
    names = st.lists(st.sampled_from(list(layers)), min_size=1, max_size=most).map(tuple)
    return st.builds(_small_program, names, chooses=st.booleans(), seed=st.integers(0, 2**32 - 1))


def _small_program(names: tuple[str, ...], *, chooses: bool, seed: int) -> SmallProgram:
    rng = np.random.default_rng(seed)

    def fn(params: Any, x: Any) -> Any:
        for name, w in zip(names, params, strict=True):
            x = LAYERS[name][1](w, x)
        return (x, jnp.argmax(x, -1)) if chooses else x

    params = [
        jnp.asarray(rng.standard_normal(LAYERS[name][0]) / np.sqrt(WIDTH), jnp.float32)
        for name in names
    ]
    x = jnp.asarray(rng.standard_normal((ROWS, WIDTH)), jnp.float32)
    return SmallProgram(layers=names, fn=fn, params=params, inputs=(x,))


def values_like(abstract: Any) -> st.SearchStrategy[Any]:
    """Pytrees of arrays like others: parameters or inputs of a program, drawn anew.

    Floats are normal, divided by the square root of the last dimension but one; integers are from 0
    to 3, so that they are valid as indices of most tables.

    Args:
      abstract: a pytree of arrays or `ShapeDtypeStruct`s, such as `Program.params` or a member of
        `Program.inputs`.
    """

    def drawn(seed: int) -> Any:
        rng = np.random.default_rng(seed)

        def leaf(x: Any) -> Any:
            shape = tuple(x.shape)
            if jnp.issubdtype(x.dtype, jnp.inexact):
                fan = np.sqrt(shape[-2]) if len(shape) > 1 else 1.0
                return jnp.asarray(rng.standard_normal(shape) / fan, x.dtype)
            return jnp.asarray(rng.integers(0, 2 if x.dtype == jnp.bool_ else 4, shape), x.dtype)

        return jax.tree.map(leaf, abstract)

    return st.integers(0, 2**32 - 1).map(drawn)


def honest_answers(
    devices: dict[str, Device], params: Any, inputs: tuple[Any, ...]
) -> st.SearchStrategy[tuple[str, Answer]]:
    """The name of an honest device, and the answer and trace of a run of it.

    Args:
      devices: of a program, from `devices.devices`; compiled when first drawn.
      params: as at compile time.
      inputs: likewise.
    """
    names = [name for name in NAMES if name in devices]

    def drawn(name: str, run: int) -> tuple[str, Answer]:
        return name, devices[name](params, inputs, run)

    return st.builds(drawn, st.sampled_from(names), st.integers(0, 2**16 - 1))


def applicable_cheats(program: Program, *, compiling: bool = False) -> st.SearchStrategy[Cheat]:
    """Cheats that can be tried on a program; arguments as of `cheats.applicable`."""
    return st.sampled_from(cheats.applicable(program, compiling=compiling))


def arrays() -> st.SearchStrategy[Any]:
    """numpy arrays of up to three dimensions of up to 5, of all `DTYPES`."""
    shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    return npst.arrays(st.sampled_from(DTYPES), shapes)


def traces() -> st.SearchStrategy[tuple[Any, Trace]]:
    """An answer and a trace of any arrays, of which one has an element: no program made them."""
    answers = st.lists(arrays(), max_size=2) | st.fixed_dictionaries({"b": arrays(), "a": arrays()})
    claims = st.lists(arrays(), max_size=4).map(lambda found: Trace(values=tuple(found)))
    return st.tuples(answers, claims).filter(
        lambda pair: any(np.size(x) for x in (*pair[1].values, *jax.tree.leaves(pair[0])))
    )


def audit_plans(program: Program) -> st.SearchStrategy[AuditPlan]:
    """Plans of audits of a part of a program, by the layer; see `Program.audit_plan`.

    Raises:
      ValueError: the program has no claims.
    """
    layers = st.integers(1, len(program.layers))
    return st.builds(lambda seed, n: program.audit_plan(seed, layers=n), seeds(), layers)


def openings(program: Program, kept: Committed) -> st.SearchStrategy[tuple[AuditPlan, bytes]]:
    """A plan, and the opening that answers it, in bytes.

    Args:
      program: the program.
      kept: its trace, from `Program.commit`.
    """
    return audit_plans(program).map(lambda plan: (plan, kept.open(plan).encode()))


@st.composite
def hostile_bytes(draw: st.DrawFn, honest: bytes) -> bytes:
    """Bytes that are not the honest ones: cut, longer, changed, moved, repeated, or random.

    Args:
      draw: given by hypothesis.
      honest: an encoding of at least one byte.

    Raises:
      ValueError: `honest` is empty.
    """
    if not honest:
        raise ValueError("there is nothing to change: honest must have at least one byte")
    place = draw(st.integers(0, len(honest) - 1))
    other = draw(st.binary(max_size=40))
    match draw(st.sampled_from(("flip", "cut", "put", "splice", "repeat", "random"))):
        case "flip":
            bit = 1 << draw(st.integers(0, 7))
            found = honest[:place] + bytes([honest[place] ^ bit]) + honest[place + 1 :]
        case "cut":
            found = honest[:place]
        case "put":
            found = honest[:place] + (other or b"\0") + honest[place:]
        case "splice":
            found = honest[:place] + other + honest[place + len(other) :]
        case "repeat":
            found = honest + honest
        case _:
            found = other
    return found if found != honest else honest + b"\0"


def hostile_objects(*, largest: bool = False) -> st.SearchStrategy[Callable[[], Any]]:
    """Functions that make an object that a device could hand in in place of an array.

    The objects themselves cannot be drawn: hypothesis looks into what it draws, and some of them
    raise then.

    Args:
      largest: those too that take a hundred megabytes or have a million members.
    """
    names = [name for name in hostile.OBJECTS if largest or name not in hostile.LARGE]
    return st.sampled_from([hostile.OBJECTS[name] for name in names])
