"""Models with nine tenths of their arithmetic in claims: honest runs pass, cheats do not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.helpers.programs import FEW, Case
from verifiable import program, trace
from verifiable.check.judging.evidence import evidence_of, verify_evidence
from verifiable.report import Verdict

RNG = np.random.default_rng(15)
ROWS, WIDTH, EXPERTS = 32, 64, 4
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)
W = (RNG.standard_normal((WIDTH, WIDTH)) / 8).astype(np.float32)
EXPERT = (RNG.standard_normal((EXPERTS, WIDTH, WIDTH)) / 8).astype(np.float32)
INT8 = RNG.integers(-128, 128, (WIDTH, WIDTH)).astype(np.int8)
UINT8 = RNG.integers(0, 256, (ROWS, WIDTH)).astype(np.uint8)
SIZES = np.array([11, 0, 13, 5], np.int32)  # and three rows of no group
NARROW = jnp.asarray(X, jnp.bfloat16)
MESH = Mesh(np.array(jax.devices()[:1]), ("devices",))
PARTS = PartitionSpec(None, "devices"), PartitionSpec("devices", None)


@dataclass(frozen=True)
class Model:
    """A function with its parameters and inputs."""

    name: str
    fn: Callable[..., Any]
    params: Any
    inputs: tuple[Any, ...] = (X,)


def experts(p: Any, x: Any, sizes: Any) -> Any:
    return lax.ragged_dot(jnp.tanh(x), p, sizes)


def routed(p: Any, x: Any) -> Any:
    """A layer of experts: sort the rows by expert, multiply, and put them back."""
    expert = jnp.argmax((x @ p["router"])[:, :EXPERTS], -1)
    order = jnp.argsort(expert)
    sizes = jnp.bincount(expert, length=EXPERTS)
    hidden = jax.nn.gelu(lax.ragged_dot(x[order], p["up"], sizes))
    out = lax.ragged_dot(hidden, p["down"], sizes)
    return jnp.zeros_like(out).at[order].set(out, unique_indices=True)


def gathered(p: Any, x: Any) -> Any:
    """The same by gathered matrices, of the two best experts."""
    scores, best = lax.top_k(jax.nn.softmax((x @ p["router"])[:, :EXPERTS]), 2)
    hidden = jax.nn.gelu(jnp.einsum("td,tkdf->tkf", x, p["up"][best]))
    out = jnp.einsum("tkf,tkfd->tkd", hidden, p["down"][best])
    return jnp.sum(out * scores[..., None], 1)


def integer_experts(p: Any, x: Any, sizes: Any) -> Any:
    return lax.ragged_dot(x, p, sizes, preferred_element_type=jnp.int32)


def float8(p: Any, x: Any) -> Any:
    small = jnp.clip(jnp.tanh(x) * 300, -448, 448).astype(p.dtype)
    return lax.dot(small, p, preferred_element_type=jnp.float32)


def zero_points(p: Any, x: Any) -> Any:
    """int32 products of widened bytes, less their zero points."""
    a = x.astype(jnp.int32) - p["zero"].astype(jnp.int32)
    return a @ (p["w"].astype(jnp.int32) - 3)


@functools.partial(lax.composite, name="verifiable.layer")
def composite(x: Any, p: Any) -> Any:
    return jnp.tanh(x @ p)


def sharded(p: Any, x: Any) -> Any:
    def layer(x: Any, p: Any) -> Any:
        return jnp.tanh(lax.psum(x @ p, "devices"))

    return jax.shard_map(layer, mesh=MESH, in_specs=PARTS, out_specs=PartitionSpec())(x, p)


def annotated(p: Any, x: Any) -> Any:
    x = checkpoint_name(jnp.tanh(x), "activations")
    x = lax.with_sharding_constraint(x, NamedSharding(MESH, PartitionSpec("devices")))
    return x @ p


MODELS = (
    Model("rows by groups", experts, EXPERT, (X, SIZES)),
    Model("a layer of experts", routed, {"router": W, "up": EXPERT, "down": EXPERT * 2}),
    Model("gathered experts", gathered, {"router": W, "up": EXPERT, "down": EXPERT * 2}),
    Model(
        "integer rows by groups",
        integer_experts,
        RNG.integers(-128, 128, EXPERT.shape).astype(np.int8),
        (INT8[:ROWS], SIZES),
    ),
    Model("narrow rows by groups", experts, jnp.asarray(EXPERT, jnp.bfloat16), (NARROW, SIZES)),
    Model("float8_e4m3fn", float8, jnp.asarray(W, jnp.float8_e4m3fn)),
    Model("float8_e5m2", float8, jnp.asarray(W, jnp.float8_e5m2)),
    Model("zero points", zero_points, {"w": INT8, "zero": np.uint8(7)}, (UINT8,)),
    Model("shard_map", sharded, W),
    Model("composite", lambda p, x: composite(x, p), W),
    Model("annotated", annotated, W),
    Model("reduce_precision", lambda p, x: lax.reduce_precision(jnp.tanh(x), 8, 7) @ p, W),
)


def off(values: np.ndarray) -> None:
    """Another value in one element, by more than any tolerance."""
    element = values.reshape(-1, values.shape[-1])[3, 4:5]
    wrong = element.astype(np.float64) * 1.5 + 1
    np.copyto(element, wrong.astype(values.dtype), casting="unsafe")


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_products_are_claims(model: Model):
    case = Case(model.fn, model.params, *model.inputs)
    assert case.program.coverage.share >= 0.9
    assert case.program.analysis.discontinuities == ()
    assert case.check().verdict is Verdict.ACCEPT
    y, trace = case.op_by_op()
    assert case.check(y, trace.values).verdict is Verdict.ACCEPT
    products = [i for i, c in enumerate(case.program.claims) if c.work]
    report = case.check(claims=case.changed(products[0], off))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")


@pytest.mark.parametrize(
    "name", ["rows by groups", "gathered experts", "float8_e4m3fn", "zero points"]
)
def test_a_judge_convicts_what_is_wrong(name: str):
    [model] = [m for m in MODELS if m.name == name]
    case = Case(model.fn, model.params, *model.inputs)
    honest = jax.device_get(case.program.prove(model.params, *model.inputs))
    values = case.changed(-1, off)
    made = trace.Trace(values=tuple(values))
    commitment = trace.commit(honest.y, made).commitment
    cheat = replace(honest, trace=made, commitment=commitment)
    report = case.check(honest.y, values)
    found = evidence_of(case.program, report, cheat)
    assert verify_evidence(found, case.program, model.params, *model.inputs).guilty


def test_the_corridor_of_rows_by_groups():
    """What the tolerance leaves to a cheat is little, and comes from the one product."""
    compiled = program.compile(experts, EXPERT, X, SIZES, policy=FEW)
    found = compiled.corridor(EXPERT, X, SIZES, answer=lambda y: y[0, 0], kappa=1.0)
    assert 0 < found.reach < 1e-3


def test_rows_of_another_expert_are_rejected():
    """Experts are exchanged, whose sizes are those of the router: no other check sees it."""
    case = Case(experts, EXPERT, X, SIZES)
    other = jax.jit(case.program.execute)(EXPERT[::-1].copy(), X, SIZES)
    report = case.check(other[0], other[1].values)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")


def test_rows_of_no_group_are_zero():
    case = Case(experts, EXPERT, X, SIZES)
    [claim] = case.trace.values
    assert not np.any(claim[SIZES.sum() :])
    wrong = np.array(claim)
    wrong[-1, 0] = 1e-3
    report = case.check(claims=[wrong])
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")


def chosen(p: Any, x: Any, which: Any) -> Any:
    """Rows by groups, or by gathered matrices, of sizes and indices that are given."""
    sizes, index = which
    by_groups = lax.ragged_dot(x, p[:, :, :2], sizes)  # so few columns that a replay would be cheap
    promised = p.at[index].get(mode="promise_in_bounds")
    return by_groups, jnp.einsum("td,tdf->tf", x, promised)


def test_what_devices_may_choose_is_never_rejected():
    """Sizes and indices that the operations do not define; those of other rows are tested."""
    index = np.arange(ROWS, dtype=np.int32) % EXPERTS
    case = Case(chosen, EXPERT, X, (SIZES, index))
    groups, gathered = case.trace.values

    def reason(sizes: Any, index: Any, claims: Any) -> tuple[Any, str]:
        y = tuple(claims)
        report = case.program.check(case.key, X, (sizes, index), y=y, trace=claims)
        return report.verdict, report.reason

    undefined = (Verdict.INDETERMINATE, "undefined-operand")
    assert reason(SIZES, index, [groups, gathered])[0] is Verdict.ACCEPT
    largest = np.iinfo(np.int32).max
    for sizes in ([-1, 12, 13, 5], [8, 9, 8, 8], [largest, largest, 8, 2]):
        assert reason(np.array(sizes, np.int32), index, [groups, gathered]) == undefined
    beyond = index.copy()
    beyond[7] = EXPERTS
    beyond[9] = -EXPERTS - 1
    assert reason(SIZES, beyond, [groups, gathered]) == undefined
    wrong = np.array(gathered)
    wrong[8] *= 2
    mismatch = (Verdict.REJECT, "claim-mismatch")
    assert reason(SIZES, beyond, [groups, wrong]) == mismatch
    assert reason(SIZES, index, [np.array(groups) * 2, gathered]) == mismatch


def test_numbers_beyond_float8_decide_nothing():
    """They become NaN, or infinity, on every device."""
    for dtype in (jnp.float8_e4m3fn, jnp.float8_e5m2):

        def large(p: Any, x: Any) -> Any:
            return lax.dot((x * 1e5).astype(p.dtype), p, preferred_element_type=jnp.float32)

        case = Case(large, jnp.asarray(W, dtype), X)
        assert case.check().verdict is Verdict.INDETERMINATE
        report = case.check(claims=case.changed(0, lambda q: np.copyto(q, np.ones((), q.dtype))))
        assert (report.verdict, report.reason) == (Verdict.REJECT, "rounding-mismatch")


@pytest.mark.parametrize("extent", [2**31 - 1, 1 << 20])
def test_integers_that_may_wrap_are_replayed(extent: int):
    def wide(p: Any, x: Any) -> Any:
        return jnp.clip(x, -extent, extent) @ p.astype(jnp.int32)

    compiled = program.compile(wide, INT8, RNG.integers(0, 9, (ROWS, WIDTH)).astype(np.int32))
    assert compiled.claims == () and compiled.coverage.share == 0


@pytest.mark.parametrize("dtype", ["int4", "uint4"])
def test_types_below_a_byte_are_refused_at_compile(dtype: str):
    with pytest.raises(TypeError, match=rf"params\['w'\] has type {dtype}.* pack them"):
        program.compile(lambda p, x: x @ p["w"].astype(x.dtype), {"w": jnp.asarray(W, dtype)}, X)


def test_collectives_that_need_the_mesh_are_evaluated_whole():
    def layer(p: Any, x: Any) -> Any:
        return jax.shard_map(
            lambda x: x @ p + lax.axis_index("devices"),
            mesh=MESH,
            in_specs=PARTS[1],
            out_specs=PARTS[1],
        )(x)

    compiled = program.compile(layer, W, X)
    assert [e.kind for e in compiled.function.block.equations] == ["shard_map"]
