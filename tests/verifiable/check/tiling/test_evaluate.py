"""Tiles: tests of claims in pieces find what whole ones do, whatever glue stands before them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from jax import lax

from tests.helpers.looks import first_look_only
from verifiable import challenge, program
from verifiable.check.compiled import CheckArguments
from verifiable.check.schedule import Strategy
from verifiable.check.tiling import evaluate, plan
from verifiable.check.tiling.rules import Cut
from verifiable.policy import Policy
from verifiable.trace import Trace

RNG = np.random.default_rng(11)
ROWS, WIDTH, HEADS = 12, 48, 3
FEW = Policy(draws=2)
SECRET = challenge.secret(b"tests of tiling, thirty-two bytes"[:32])
WHOLE = Strategy(save_memory=False, tile_bytes=0)
CUT = Strategy(save_memory=False, tile_bytes=1500)  # a few rows of the widest values here


def weights(*shape: int) -> Any:
    return (RNG.standard_normal(shape) / np.sqrt(shape[-2])).astype(np.float32)


PARAMS = {
    "square": weights(WIDTH, WIDTH),
    "other": weights(WIDTH, WIDTH),
    "up": weights(WIDTH, 4 * WIDTH),
    "down": weights(4 * WIDTH, WIDTH),
    "stack": weights(2, WIDTH, WIDTH),
    "scale": RNG.uniform(0.5, 1.5, WIDTH).astype(np.float32),
    "bias": RNG.standard_normal(3 * WIDTH).astype(np.float32),
}
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)


# Steps of random programs, each from (rows, WIDTH) to (rows, WIDTH).


def norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-3) * p["scale"]


def attention(p, x):
    heads = lambda y: y.reshape(-1, HEADS, WIDTH // HEADS).swapaxes(0, 1)  # noqa: E731
    q, k, v = heads(x @ p["square"]), heads(x @ p["other"]), heads(x)
    mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
    scores = jax.nn.softmax(jnp.where(mask, q @ k.swapaxes(1, 2), -1e9))
    return (scores @ v).swapaxes(0, 1).reshape(x.shape) @ p["square"] + x


def fused(p, x):
    """Queries, keys and values from one product, scores by a transposed product, a sum of heads."""
    qkv = x @ p["up"][:, : 3 * WIDTH] + p["bias"]
    q, k, v = (y.reshape(-1, HEADS, WIDTH // HEADS) for y in jnp.split(qkv, 3, axis=1))
    scores = jax.nn.softmax(jnp.einsum("thd,shd->hts", q, k))
    out = p["square"].reshape(HEADS, WIDTH // HEADS, WIDTH)
    return x + jnp.einsum("thd,hdo->to", jnp.einsum("hts,shd->thd", scores, v), out)


def grouped(p, x):
    """All heads of queries share keys and values with their neighbours."""
    q = (x @ p["up"][:, : 2 * WIDTH]).reshape(-1, 2 * HEADS, WIDTH // HEADS).swapaxes(0, 1)
    k, v = (
        (x @ p[n]).reshape(-1, HEADS, WIDTH // HEADS).swapaxes(0, 1) for n in ("other", "square")
    )
    k, v = jnp.repeat(k, 2, axis=0), jnp.repeat(v, 2, axis=0)
    heads = jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v
    return heads.swapaxes(0, 1).reshape(-1, 2 * WIDTH) @ p["down"][: 2 * WIDTH]


def observed(p, x):
    """What the heads say is needed whole as well."""
    heads = x.reshape(-1, HEADS, WIDTH // HEADS).swapaxes(0, 1)
    y = (jax.nn.softmax(heads @ heads.swapaxes(1, 2)) @ heads).swapaxes(0, 1).reshape(x.shape)
    return y @ p["square"] + jnp.cumsum(y, 0) / len(x)


def normed_heads(p, x):
    """A norm of all columns stands between the heads and the product: tiles hold rows."""
    heads = x.reshape(-1, HEADS, WIDTH // HEADS).swapaxes(0, 1)
    y = (jax.nn.softmax(heads @ heads.swapaxes(1, 2)) @ heads).swapaxes(0, 1).reshape(x.shape)
    return norm(p, y) @ p["square"]


def mlp(p, x):
    return x + jax.nn.gelu(norm(p, x) @ p["up"]) @ p["down"]


def gated(p, x):
    a, b = jnp.split(norm(p, x) @ p["up"], [2 * WIDTH], axis=1)
    return (jax.nn.silu(a) * b) @ p["down"][: 2 * WIDTH]


def across(p, x):
    return jnp.cumsum(x, axis=0) / len(x) @ p["other"] + jnp.flip(x, 0)


def along(p, x):
    return jnp.cumsum(x, axis=1) / WIDTH @ p["other"]


def both_ways(p, x):
    """One value in the rows and in the columns of a product of its own."""
    y = jnp.tanh(x @ p["square"])
    return jax.nn.softmax(y @ y.T) @ y @ p["other"]


def shared(p, x):
    """One operand of two claims, and of the output."""
    y = jnp.tanh(x * p["scale"])
    return y @ p["square"] + y @ p["other"] + y


def scanned(p, x):
    return lax.scan(lambda x, w: (norm(p, x) @ w + x, None), x, p["stack"])[0]


def branched(p, x):
    return lax.cond(x[0, 0] > 0, lambda: jnp.sin(x) @ p["square"], lambda: norm(p, x) @ p["other"])


def from_positions(p, x):
    grid = lax.broadcasted_iota(jnp.float32, x.shape, 0) - lax.broadcasted_iota(
        jnp.float32, x.shape, 1
    )
    return (x + jnp.sin(grid)) @ p["square"]


def padded(p, x):
    return (
        jnp.concatenate([x[:, 1:], x[:, :1]], axis=1) @ p["square"]
        + jnp.pad(x, ((1, 0), (0, 0)))[:-1] @ p["other"]
    )


ATTENTION = [attention, fused, grouped]
STEPS = [
    *ATTENTION, observed, normed_heads, mlp, gated, across, along, both_ways, shared, scanned,
    branched, from_positions, padded,
]  # fmt: skip


class Case:
    """A program, an honest run of it, and the check with and without tiles."""

    def __init__(self, fn, *inputs, params=PARAMS):
        self.program = program.compile(fn, params, *inputs, policy=FEW, strategy=WHOLE)
        self.y, self.trace = jax.jit(self.program.execute)(params, *inputs)
        self.key = self.program.setup(params, SECRET)
        self.inputs = inputs
        self.tiled = replace(self.program, strategy=CUT)
        self.both = (self.program, self.tiled)

    def check(self, compiled, trace=None):
        trace = self.trace if trace is None else trace
        return compiled.check(self.key, *self.inputs, y=self.y, trace=trace)

    def agree(self, trace=None, programs=()):
        """Two programs, whole and in tiles, report the same, up to the last bits of ratios."""
        one, other = reports = [self.check(p, trace) for p in programs or self.both]
        assert (one.verdict, one.reason, one.claim) == (other.verdict, other.reason, other.claim)
        for a, b in zip(one.results, other.results, strict=True):
            assert (a.verdict, a.reason) == (b.verdict, b.reason)
            if a.worst > 1:
                assert (a.row, a.trip) == (b.row, b.trip)
                np.testing.assert_allclose(a.worst, b.worst, rtol=1e-3)
        return reports

    def regions(self, strategy=CUT):
        """Every region of the outermost block."""
        return regions_of(self.program, strategy)

    def changed(self, index, place, value):
        claims = [np.array(c) for c in self.trace.values]
        claims[index].reshape(-1)[place % claims[index].size] = value
        return Trace(values=tuple(claims))

    def lowered(self, compiled):
        """The check as StableHLO."""
        with jax.enable_x64(True):
            arguments = CheckArguments.of(self.key, self.inputs, self.y, self.trace)
            return jax.jit(compiled.compiled_check.statistics).lower(arguments).as_text()


def regions_of(compiled, strategy=CUT):
    """Every region of the outermost block of a program."""
    block, found = compiled.function.block, compiled.analysis
    every = range(len(compiled.claims))
    return plan.plan(block, found, block.outputs, strategy, every).regions


@pytest.fixture(scope="module", autouse=True)
def _first_look() -> Iterator[None]:
    """Tiles belong to the first look; a second one knows nothing of them."""
    with first_look_only():
        yield


@functools.cache
def case_of(step) -> Case:
    """One step on X, compiled once for all tests."""
    return Case(step, X)


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(STEPS), min_size=2, max_size=3),
    st.integers(2, 2 * ROWS),
    st.integers(0, 10**6),
    st.sampled_from([50.0, np.nan, np.inf]),
)
def test_tiles_find_what_whole_tests_find(steps, rows, place, value):
    def fn(p, x):
        for step in steps:
            x = step(p, x)
        return x, x.sum(0)

    case = Case(fn, RNG.standard_normal((rows, WIDTH)).astype(np.float32))
    whole, cut = case.agree()
    assert whole.reason == "ok"
    np.testing.assert_allclose(whole.y[0], cut.y[0], rtol=1e-4, atol=1e-4)
    case.agree(case.changed(place % len(case.trace.values), place, value))


@pytest.mark.parametrize("step", STEPS)
def test_every_row_is_tested(step):
    """A change in any one row of any claim is found, and found there."""
    case = case_of(step)
    assert case.check(case.tiled).reason == "ok"
    for index, claim in enumerate(case.program.claims):
        if claim.trips or claim.form.contraction.batch > 1 or step is branched:
            continue
        columns = claim.shape[-1]
        for row in range(claim.shape[0]):
            for value in (1e3, np.nan, np.inf)[: 1 if row else 3]:
                trace = case.changed(index, row * columns + row % columns, value)
                cut = case.check(case.tiled, trace)
                assert cut.claim == claim.name
                assert cut.results[index].row == row
                wrong = "claim-mismatch" if np.isfinite(value) else "claim-nonfinite"
                assert cut.reason == wrong


SEVERAL = [*ATTENTION, mlp, gated, both_ways, shared, scanned, branched, padded]


@pytest.mark.parametrize("step", SEVERAL)
def test_parts_find_what_one_program_finds(step):
    """Each claim is tested by one part, under scans and in branches too."""
    case = case_of(step)
    parts = replace(case.program, strategy=replace(CUT, parts=3))
    assert len(parts.compiled_check.parts) == min(3, len(case.trace.values))
    case.agree(programs=(case.tiled, parts))
    for index, array in enumerate(case.trace.values):
        case.agree(case.changed(index, array.size // 2, 1e3), programs=(case.tiled, parts))


def test_attention_activations_and_norms_go_into_the_tiles():
    def fn(p, x):
        return mlp(p, mlp(p, attention(p, x)))

    regions = regions_of(program.compile(fn, PARAMS, X, policy=FEW))
    kinds = {i: {s.equation.kind for s in r.steps} for i, r in regions.items()}
    assert any({"dot_general", "exp", "reduce_max"} <= k for k in kinds.values())
    assert any("tanh" in k for k in kinds.values())
    assert any("rsqrt" in k for k in kinds.values())
    heads = [r for r in regions.values() if r.near.axis == 1]
    assert [(r.size, r.length, r.near.unit) for r in heads] == [(1, HEADS, WIDTH // HEADS)]
    assert all(r.size < r.length == ROWS for r in regions.values() if r not in heads)


@pytest.mark.parametrize("step", ATTENTION)
def test_attention_goes_by_heads(step):
    """A tile holds the queries, keys and values of its own heads, and a change in any is found."""
    case = case_of(step)
    [(index, region)] = [(i, r) for i, r in case.regions().items() if r.near.axis == 1]
    assert region.size == 1
    products = [s.cut for s in region.steps if s.equation.kind == "dot_general"]
    assert len(products) == 2
    assert all(cut.axis < 2 and cut.unit == 1 for cut in products)
    claim = case.program.claims[index]
    assert claim.near.size // region.length == ROWS * WIDTH // HEADS
    for i, array in enumerate(case.trace.values):
        for place in range(0, array.size, 1 + array.size // 7):
            _, cut = case.agree(case.changed(i, place, 1e3))
            assert cut.reason == "claim-mismatch"


@pytest.mark.parametrize("step", ATTENTION)
def test_no_head_is_left_whole(step):
    """Neither scores nor queries, keys and values; but keys that are repeated are made once."""
    case = case_of(step)
    heads = 2 * HEADS if step is grouped else HEADS
    scores = f"tensor<{heads}x{ROWS}x{ROWS}xf32>"
    queries = f"tensor<{heads}x{ROWS}x{WIDTH // HEADS}xf32>"
    assert scores in case.lowered(case.program)
    text = case.lowered(case.tiled)
    assert scores not in text
    assert queries not in text or step is grouped


def test_without_tiles_of_columns_attention_goes_by_rows():
    rows = replace(CUT, column_bytes=0)
    regions = case_of(attention).regions(rows)
    assert all(r.near.axis == 0 and r.near.unit == 1 for r in regions.values())
    assert any("dot_general" in {s.equation.kind for s in r.steps} for r in regions.values())
    other = replace(case_of(attention).program, strategy=rows)
    case_of(attention).agree(programs=(case_of(attention).tiled, other))


def test_values_that_others_need_too_are_computed_once_outside_the_tiles():
    [region] = case_of(observed).regions().values()
    assert not any(s.equation.kind in ("dot_general", "exp") for s in region.steps)
    shared_by_two = case_of(shared).regions().values()
    assert not any("tanh" in {s.equation.kind for s in r.steps} for r in shared_by_two)


def test_a_norm_of_all_heads_leaves_tiles_of_rows():
    [region] = case_of(normed_heads).regions().values()
    assert region.near == Cut(0)
    assert {"dot_general", "exp", "rsqrt"} <= {s.equation.kind for s in region.steps}


def test_doubles_and_integers_are_not_taken_by_columns():
    """A double's scale is that of the whole operand; residues do not add up as floats do."""
    with jax.enable_x64(True):
        params = {k: v.astype(np.float64) for k, v in PARAMS.items()}
        case = Case(attention, X.astype(np.float64), params=params)
        assert all(r.near.axis == 0 for r in case.regions().values())
        case.agree()
    integers = RNG.integers(-9, 9, (WIDTH, WIDTH)).astype(np.int8)

    def exact(p, x):
        heads = x.reshape(-1, HEADS, WIDTH // HEADS).swapaxes(0, 1)
        y = jax.nn.softmax(heads @ heads.swapaxes(1, 2)) @ heads
        y = jnp.round(10 * y.swapaxes(0, 1).reshape(x.shape)).clip(-127, 127).astype(jnp.int8)
        return lax.dot(y, p, preferred_element_type=jnp.int32)

    case = Case(exact, X, params=integers)
    assert all(r.near.axis == 0 for r in case.regions().values())
    case.agree()


def test_rows_inside_an_example_and_rows_of_examples():
    def fn(p, x):
        return jnp.tanh(x) @ p["square"]

    for shape in ((1, ROWS, WIDTH), (ROWS, 2, WIDTH), (2, 3, ROWS, WIDTH)):
        case = Case(fn, RNG.standard_normal(shape).astype(np.float32))
        [region] = case.regions().values()
        assert region.size < region.length == ROWS
        for row in (0, 5, int(np.prod(shape[:-1])) - 1):
            _, cut = case.agree(case.changed(0, row * WIDTH, 1e3))
            assert cut.results[0].row == row


def test_weights_on_the_left_and_batches():
    left = {"w": weights(WIDTH, WIDTH), "b": weights(2, 192, 192)}
    for fn, shape in (
        (lambda p, x: p["w"] @ jnp.sin(x), (WIDTH, 20)),
        (lambda p, x: jnp.sin(x) @ p["b"], (2, 20, 192)),
    ):
        case = Case(fn, RNG.standard_normal(shape).astype(np.float32), params=left)
        for place in range(0, case.trace.values[0].size, 397):
            case.agree(case.changed(0, place, 1e3))
        case.agree()


def test_convolutions_by_example():
    kernel = RNG.standard_normal((16, 8, 3, 3)).astype(np.float32)
    x = RNG.standard_normal((5, 8, 9, 9)).astype(np.float32)
    case = Case(
        lambda p, x: lax.conv_general_dilated(jnp.sin(x), p, (1, 1), "SAME"), x, params=kernel
    )
    [region] = case.regions().values()
    assert region.size < region.length == len(x)
    for place in range(0, case.trace.values[0].size, 977):
        case.agree(case.changed(0, place, 1e3))


def test_integers_in_tiles():
    w = RNG.integers(-128, 128, (WIDTH, WIDTH), dtype=np.int8)
    x = RNG.integers(-128, 128, (40, WIDTH), dtype=np.int8)
    case = Case(lambda p, x: lax.dot(x, p, preferred_element_type=jnp.int32), x, params=w)
    assert case.check(case.tiled).reason == "ok"
    right = case.trace.values[0].reshape(-1)
    for place in range(0, right.size, 61):
        for value, reason in (
            (int(right[place]) + 1, "claim-mismatch"),
            (2**31 - 1, "claim-range"),
        ):
            _, cut = case.agree(case.changed(0, place, value))
            assert cut.reason == reason
            assert cut.results[0].row == place // WIDTH


def test_checks_in_tiles_commute_with_vmap():
    p, key = case_of(mlp).tiled, case_of(mlp).key
    xs = jnp.stack([X, 2 * X])
    ys, traces = jax.vmap(lambda x: p.execute(PARAMS, x))(xs)
    with jax.enable_x64(True):
        found, _ = jax.vmap(lambda x, y, t: p.statistics(key, x, y=y, trace=t))(xs, ys, traces)
        assert all(np.all(s.passed) for s in found.statistics.values())


@given(st.integers(0, 300), st.integers(0, 10**7), st.integers(0, 10**6))
def test_tile_sizes(length, nbytes, tile_bytes):
    size = plan.tile_size(length, nbytes, tile_bytes)
    assert min(length, 1) <= size <= max(length, 0)
    if tile_bytes and nbytes > tile_bytes and size > 1:
        assert size * nbytes <= tile_bytes * length
    if not tile_bytes:
        assert size == length


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 40), st.integers(1, 200))
def test_rows_are_taken_each_once(length, tile_bytes):
    x = jnp.arange(2.0 * length, dtype=jnp.float32).reshape(length, 2)
    found = evaluate.over_rows(lambda a: (a[:, 0], a.sum(1)), x, tile_bytes=tile_bytes)
    np.testing.assert_array_equal(found[0], x[:, 0])
    np.testing.assert_array_equal(found[1], x.sum(1))


def test_a_claim_without_rows_is_tested_whole():
    case = Case(lambda p, x: x @ p["up"], X[0])
    assert not case.regions()
    assert case.agree()[1].reason == "ok"
