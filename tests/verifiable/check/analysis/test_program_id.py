"""The id of a program: equal in every process, different for everything that decides a result."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.random import define_prng_impl

from tests.helpers.paths import ROOT
from verifiable import program
from verifiable.check.analysis import program_id
from verifiable.policy import Policy

# Run here and in other processes; holds one of everything that a program can be made of.
SOURCE = """
import warnings
import jax, jax.numpy as jnp, numpy as np
from jax import lax
from verifiable import errors, program

warnings.simplefilter("ignore", errors.IndeterminateWarning)
warnings.simplefilter("ignore", errors.UnlistedChoice)

W = jnp.asarray(np.random.default_rng(0).standard_normal((128, 128)), jnp.float32)
X = jax.ShapeDtypeStruct((64, 128), jnp.float32)
TABLE = np.arange(128, dtype=np.float32)

def mlp(p, x):
    return {"y": jax.nn.gelu(x @ p["up"] + TABLE) @ p["down"]}

def layers(p, x):
    def step(c, w):
        c = jax.checkpoint(lambda c: jnp.tanh(c @ w))(c)
        return lax.cond(c.sum() > 0, jnp.sin, lambda c: c * 2, c), c.mean()
    return lax.scan(step, x, p)

def loops(p, x):
    y = lax.while_loop(lambda c: c.sum() < 10, lambda c: c + jnp.abs(p[0]) + 1, x)
    return lax.fori_loop(0, 3, lambda i, y: y @ p, y), lax.top_k(y, 3), jnp.argsort(y)

def linear(p, x):
    a = p @ p.T + 200 * jnp.eye(128)
    return jnp.linalg.solve(a, x.T), jnp.abs(jnp.fft.rfft(x)), jnp.linalg.eigh(a)

def images(p, x):
    y = lax.conv_general_dilated(
        x.reshape(2, 8, 32, 16), p.reshape(16, 8, 128)[:, :, :9].reshape(16, 8, 3, 3), (2, 1),
        "SAME", feature_group_count=1,
    )
    return lax.reduce_window(y, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

def gather(p, x):
    return p[(x * 10).astype(jnp.int32) % 128].at[0].add(1.0), x.astype(jnp.bfloat16)

def noise(p, x):
    return x @ p + jax.random.normal(jax.random.key(3), x.shape)

def sharded(p, x):
    # Sets among the parameters of a primitive have no order.
    devices = np.array(jax.devices()[:1]).reshape(1, 1, 1)
    mesh = jax.sharding.Mesh(devices, ("rows", "columns", "layers"))
    rows = jax.sharding.PartitionSpec("rows", None)
    return jax.shard_map(lambda x: jnp.sin(x) @ p, mesh=mesh, in_specs=rows, out_specs=rows)(x)

def ids():
    params = [{"up": W, "down": W}, jnp.stack([W, W]), W, W, W, W, W, W]
    functions = [mlp, layers, loops, linear, images, gather, noise, sharded]
    return [program.compile(f, p, X).id.hex() for f, p in zip(functions, params)]
"""


def test_ids_are_equal_in_every_process(tmp_path: Path):
    namespace: dict[str, Any] = {}
    exec(compile(SOURCE, "elsewhere.py", "exec"), namespace)  # noqa: S102
    ours = namespace["ids"]()
    assert len(set(ours)) == len(ours)
    for seed, folder in (("0", "a"), ("12345", "b c")):
        place = tmp_path / folder
        place.mkdir()
        script = place / f"script_{seed}.py"
        # Other line numbers, and another order of everything that is hashed by Python.
        script.write_text("\n" * int(seed[:2]) + SOURCE + "\nprint('\\n'.join(ids()))\n")
        theirs = subprocess.run(  # noqa: S603
            [sys.executable, "-W", "error", str(script)],
            cwd=place,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert theirs.stdout.split() == ours


# ------------------------------------------------------------------------------- what changes it

RNG = np.random.default_rng(1)
W = jnp.asarray(RNG.standard_normal((128, 128)), jnp.float32)
X = jnp.asarray(RNG.standard_normal((64, 128)), jnp.float32)
SHAPE = jax.ShapeDtypeStruct(X.shape, X.dtype)


def id_of(fn: Callable[..., Any], params: Any = W, *inputs: Any, **options: Any) -> bytes:
    return program.compile(fn, params, *(inputs or (SHAPE,)), **options).id


def base(w: Any, x: Any) -> Any:
    return jnp.tanh(x @ w) * 2.0


def closing_over(constant: Any) -> Callable[..., Any]:
    return lambda w, x: x @ w + constant


def looping(**options: Any) -> Callable[..., Any]:
    def fn(w: Any, x: Any) -> Any:
        options.setdefault("length", 2)
        return lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, **options)[0]

    return fn


def branching(*branches: Callable[..., Any]) -> Callable[..., Any]:
    return lambda w, x: lax.switch(x[0, 0].astype(jnp.int32), branches, x @ w)


def reducing(factor: float) -> Callable[..., Any]:
    """A number that only a function among the parameters of a primitive holds."""
    zero = np.float32(0)
    return lambda w, x: lax.reduce(x @ w, zero, lambda a, b: a + b * factor, (0,))


def convolving(**options: Any) -> Callable[..., Any]:
    def fn(w: Any, x: Any) -> Any:
        return lax.conv_general_dilated(
            x.reshape(1, 64, 128), w.reshape(256, 64, 1), **({"window_strides": (1,)} | options)
        )

    return fn


NAN, OTHER_NAN = (np.array(bits, np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FC00001))

DIFFERENT: dict[str, tuple[Callable[[], bytes], Callable[[], bytes]]] = {
    "a literal": (lambda: id_of(base), lambda: id_of(lambda w, x: jnp.tanh(x @ w) * 3.0)),
    "the sign of a zero": (
        lambda: id_of(lambda w, x: jnp.maximum(x @ w, 0.0)),
        lambda: id_of(lambda w, x: jnp.maximum(x @ w, -0.0)),
    ),
    "a closed-over constant": (
        lambda: id_of(closing_over(W[0])),
        lambda: id_of(closing_over(W[0].at[3].add(1e-6))),
    ),
    "the sign of a zero in a constant": (
        lambda: id_of(closing_over(np.zeros(128, np.float32))),
        lambda: id_of(closing_over(-np.zeros(128, np.float32))),
    ),
    "the payload of a NaN": (
        lambda: id_of(closing_over(np.full(128, NAN))),
        lambda: id_of(closing_over(np.full(128, OTHER_NAN))),
    ),
    "the type of a constant": (
        lambda: id_of(closing_over(np.ones(128, np.int8))),
        lambda: id_of(closing_over(np.ones(128, np.int16))),
    ),
    "the order of constants": (
        lambda: id_of(lambda w, x: x @ w * W[0] + W[1]),
        lambda: id_of(lambda w, x: x @ w * W[1] + W[0]),
    ),
    "a shape": (
        lambda: id_of(base),
        lambda: id_of(base, W, jax.ShapeDtypeStruct((65, 128), jnp.float32)),
    ),
    "a dtype": (
        lambda: id_of(base, W, SHAPE),
        lambda: id_of(base, W.astype(jnp.bfloat16), SHAPE.update(dtype=jnp.bfloat16)),
    ),
    "a primitive": (lambda: id_of(base), lambda: id_of(lambda w, x: jnp.sin(x @ w) * 2.0)),
    "the order of operands": (
        lambda: id_of(lambda w, x: x @ w - x),
        lambda: id_of(lambda w, x: x - x @ w),
    ),
    "which value is used": (
        lambda: id_of(lambda w, x: (x @ w) + (x @ w).T[:64, :64].sum()),
        lambda: id_of(lambda w, x: (x @ w) + x.T[:64, :64].sum()),
    ),
    "a dead output made alive": (
        lambda: id_of(lambda w, x: x @ w),
        lambda: id_of(lambda w, x: (x @ w, x)),
    ),
    "the order of outputs": (
        lambda: id_of(lambda w, x: (x @ w, x)),
        lambda: id_of(lambda w, x: (x, x @ w)),
    ),
    "the type of an output": (
        lambda: id_of(lambda w, x: x @ w),
        lambda: id_of(lambda w, x: (x @ w).astype(jnp.bfloat16)),
    ),
    "an axis": (
        lambda: id_of(lambda w, x: (x @ w)[:, :64].sum(0)),
        lambda: id_of(lambda w, x: (x @ w)[:, :64].sum(1)),
    ),
    "dimension numbers": (
        lambda: id_of(lambda w, x: x @ w),
        lambda: id_of(lambda w, x: jnp.einsum("ij,kj->ik", x, w)),
    ),
    "an algorithm": (
        lambda: id_of(lambda w, x: lax.dot(x, w)),
        lambda: id_of(lambda w, x: lax.dot(x, w, precision="F16_F16_F16")),
    ),
    "k of top_k": (
        lambda: id_of(lambda w, x: lax.top_k(x @ w, 3)[0][:, :2]),
        lambda: id_of(lambda w, x: lax.top_k(x @ w, 4)[0][:, :2]),
    ),
    "a comparison": (
        lambda: id_of(lambda w, x: (x @ w) > 0),
        lambda: id_of(lambda w, x: (x @ w) >= 0),
    ),
    "a stride": (
        lambda: id_of(convolving(padding="VALID")),
        lambda: id_of(convolving(padding="VALID", window_strides=(2,))),
    ),
    "a padding": (
        lambda: id_of(convolving(padding=[(0, 1)])),
        lambda: id_of(convolving(padding=[(1, 0)])),
    ),
    "the length of a scan": (
        lambda: id_of(looping(length=2)),
        lambda: id_of(looping(length=3)),
    ),
    "the direction of a scan": (
        lambda: id_of(looping()),
        lambda: id_of(looping(reverse=True)),
    ),
    "the body of a scan": (
        lambda: id_of(looping()),
        lambda: id_of(lambda w, x: lax.scan(lambda c, _: (jnp.sin(c @ w), None), x, length=2)[0]),
    ),
    "a branch": (
        lambda: id_of(branching(jnp.sin, jnp.cos)),
        lambda: id_of(branching(jnp.sin, jnp.tan)),
    ),
    "the order of branches": (
        lambda: id_of(branching(jnp.sin, jnp.cos)),
        lambda: id_of(branching(jnp.cos, jnp.sin)),
    ),
    "the predicate of a while": (
        lambda: id_of(lambda w, x: lax.while_loop(lambda c: c.sum() < 1, lambda c: c + 1, x @ w)),
        lambda: id_of(lambda w, x: lax.while_loop(lambda c: c.sum() < 2, lambda c: c + 1, x @ w)),
    ),
    "the body of a while": (
        lambda: id_of(lambda w, x: lax.while_loop(lambda c: c.sum() < 1, lambda c: c + 1, x @ w)),
        lambda: id_of(lambda w, x: lax.while_loop(lambda c: c.sum() < 1, lambda c: c + 2, x @ w)),
    ),
    "a function that a primitive holds": (
        lambda: id_of(reducing(2.0)),
        lambda: id_of(reducing(4.0)),
    ),
    "what is a parameter": (
        lambda: id_of(base, W, SHAPE),
        lambda: id_of(lambda p, w, x: base(w, x), (), W, SHAPE),
    ),
    "what is a parameter, without any claim": (
        lambda: id_of(lambda w, x: w[:64] * x, W, SHAPE),
        lambda: id_of(lambda p, w, x: w[:64] * x, (), W, SHAPE),
    ),
    "the layout of claims": (
        lambda: id_of(base, W, SHAPE, policy=Policy(draws=1)),
        lambda: id_of(base, W, SHAPE, policy=Policy(draws=4096)),
    ),
}


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_changes_an_id(pair: tuple[Callable[[], bytes], Callable[[], bytes]]):
    before, after = (make() for make in pair)
    assert len(before) == len(after) == 32
    assert before != after


def test_the_layout_of_claims_did_change():
    few, many = (program.compile(base, W, SHAPE, policy=Policy(draws=draws)) for draws in (1, 4096))
    assert (len(few.claims), len(many.claims)) == (1, 0)


def test_the_text_of_a_jaxpr_would_collide():
    """Why the id is not a hash of `str(jaxpr)`."""
    fns = [closing_over(W[0]), closing_over(W[1])]
    texts = [str(jax.make_jaxpr(fn)(W, X)) for fn in fns]
    assert texts[0] == texts[1]
    assert id_of(fns[0]) != id_of(fns[1])


def test_the_version_of_what_a_primitive_computes_enters(monkeypatch: pytest.MonkeyPatch):
    def given(w: Any, x: Any, key: Any) -> Any:
        return x @ w + jax.random.uniform(key, (128,))

    key = jax.random.key(0)
    before = id_of(base), id_of(uniform), id_of(given, W, SHAPE, key)
    monkeypatch.setattr(program_id, "SEMANTICS", {"tanh": 2})
    assert (id_of(base) != before[0]) and id_of(uniform) == before[1]
    monkeypatch.setattr(program_id, "SEMANTICS", {})
    monkeypatch.setattr(program_id, "RANDOM", {"threefry2x32": 2})
    assert id_of(base) == before[0] and id_of(uniform) != before[1]
    assert id_of(given, W, SHAPE, key) != before[2]


def uniform(w: Any, x: Any) -> Any:
    return x @ w + jax.random.uniform(jax.random.key(0), x.shape[-1:])


FLAGS: dict[str, tuple[Callable[[], Any], Callable[..., Any]]] = {
    "algorithm of products": (lambda: jax.default_matmul_precision("F16_F16_F16"), base),
    "wide types": (lambda: jax.enable_x64(True), lambda w, x: base(w, x) + jnp.arange(128).sum()),
    "partitionable threefry": (lambda: jax.threefry_partitionable(False), uniform),
    "implementation of random numbers": (lambda: jax.default_prng_impl("rbg"), uniform),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_that_change_a_result_enter_and_only_where_they_do(name: str):
    flag, fn = FLAGS[name]

    def anew(function: Callable[..., Any]) -> Callable[..., Any]:
        """JAX keeps what it has traced of a function, under some flags in spite of a change."""
        return functools.partial(lambda w, x, *, function: function(w, x), function=function)

    def ids() -> list[bytes]:
        return [id_of(anew(fn)), id_of(anew(moved))]

    with flag():
        changed, elsewhere = ids()
    before, same = ids()
    assert changed != before
    assert elsewhere == same


def moved(w: Any, x: Any) -> Any:
    return jnp.tanh(x.T) * w[0, 0]


def test_random_numbers_of_an_implementation_that_has_no_name_have_no_id():
    def never(*_: Any) -> Any:
        raise AssertionError("only traced")

    mine = define_prng_impl(
        key_shape=(2,),
        seed=never,
        split=never,
        random_bits=never,
        fold_in=never,
        name="mine",
        tag="mine",
    )
    with pytest.raises(TypeError, match="expected random numbers of threefry2x32"):
        id_of(lambda w, x: x @ w + jax.random.uniform(jax.random.key(0, impl=mine), (128,)))


def test_mappings_count_by_what_they_hold_in_any_order():
    """A parameter of a primitive may be one."""
    ids = [
        program_id._canonical(m, "here")
        for m in ({"a": 1, "b": 2.0}, {"b": 2.0, "a": 1}, {"a": 1, "b": 2}, [["a", 1], ["b", 2.0]])
    ]
    assert ids[0] == ids[1]
    assert ids[0] not in ids[2:]


def test_random_numbers_count_by_the_name_of_their_implementation():
    def implementation(name: str) -> Any:
        return type("PRNGImpl", (), {"name": name})()

    assert program_id._canonical(implementation("rbg"), "here")[:2] == ["prng", "rbg"]
    with pytest.raises(TypeError, match="expected random numbers of threefry2x32"):
        program_id._canonical(implementation("mine"), "here")


# ------------------------------------------------------------------------ what does not change it


def named(weights: Any, activations: Any) -> Any:
    with jax.named_scope("block"):
        product = jax.jit(lambda a, b: a @ b)(activations, weights)
        return jax.checkpoint(jnp.tanh)(product) * 2.0


def with_dead_code(w: Any, x: Any) -> Any:
    _ = jnp.linalg.inv(w)
    return base(w, x)


SAME: dict[str, Callable[[], bytes]] = {
    "other names, scopes and calls": lambda: id_of(named),
    "dead code": lambda: id_of(with_dead_code),
    "arrays in place of shapes": lambda: id_of(base, W, X),
    "shapes in place of arrays": lambda: id_of(base, jax.ShapeDtypeStruct(W.shape, W.dtype), SHAPE),
    "other weights": lambda: id_of(base, W + 1, SHAPE),
    "other names of parameters": lambda: id_of(lambda p, x: base(p["w"], x), {"w": W}, SHAPE),
    "another tolerance, which the policy's id names": lambda: id_of(
        base, W, SHAPE, policy=Policy(phi=1e-6)
    ),
    "weights given by numpy": lambda: id_of(base, np.asarray(W), SHAPE),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME.keys())
def test_what_does_not_change_an_id(make: Callable[[], bytes]):
    assert make() == id_of(base)


def test_a_constant_counts_by_its_value():
    assert id_of(closing_over(W[0])) == id_of(closing_over(np.array(W[0])))


# --------------------------------------------------------------------------------- what has none


def pure(w: Any, x: Any) -> Any:
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(X.shape, X.dtype), x @ w)


def calling(w: Any, x: Any) -> Any:
    jax.debug.callback(lambda _: None, x)
    return x @ w


@pytest.mark.parametrize("fn", [pure, calling], ids=lambda f: f.__name__)
def test_a_callback_has_no_id(fn: Callable[..., Any]):
    with pytest.raises(TypeError, match="callback"):
        id_of(fn)
