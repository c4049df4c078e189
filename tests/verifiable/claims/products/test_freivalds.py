"""Float checks: against a slow oracle, and against their bounds; sets of random vectors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax
from scipy import special

from tests.helpers import p_values
from tests.helpers.contractions import (
    Case,
    DotCase,
    contraction_of,
    conv_cases,
    dot_cases,
    matrix_form,
)
from tests.helpers.products import (
    SECRET,
    Array,
    public_challenge,
    ratios,
    scale,
    statistics_of,
    weights_of,
)
from verifiable import challenge
from verifiable.claims.products import freivalds
from verifiable.policy import DEFAULT, Policy
from verifiable.report import Bound

# -------------------------------------------------------------------------- floats: slow oracle


PATHS = {
    "float64": ("float64", "float64"),
    "float32": ("float32", "float32"),
    "bfloat16 to float32": ("bfloat16", "float32"),
    "float16 to float32": ("float16", "float32"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "float16": ("float16", "float16"),
}
EXACT_PATHS = {"int8": ("int8", "int32"), "uint8": ("uint8", "int32")}


def operands_of(case: Case, dtype: str, rng: np.random.Generator) -> list[Array]:
    shapes = [case.shape(side) for side in (0, 1)]
    if dtype.endswith("int8"):
        info = np.iinfo(dtype)
        return [rng.integers(info.min, info.max + 1, s).astype(dtype) for s in shapes]
    return [rng.standard_normal(s).astype(np.dtype(dtype)) for s in shapes]


def floor_of(a: Any, b: Any, tiny: float) -> Any:
    """What flushing to zero may do to a row's statistic, from the text; (batch,)."""
    w = weights_of(b)
    rows = np.sqrt(((b.astype(np.float64) * w[:, None]) ** 2).sum(-1))
    return tiny * ((a.shape[-1] + 1) * np.linalg.norm(w, axis=-1) + rows.sum())


def check_case(case: Case, path: tuple[str, str], seed: int) -> None:
    """The honest product passes, a changed element does not, as the oracle says."""
    rng = np.random.default_rng(seed)
    lhs, rhs = operands_of(case, path[0], rng)
    near, far = ((lhs, rhs), (rhs, lhs))[case.near]
    product = case.product(np.dtype(path[1]))
    form = contraction_of(product, lhs, rhs, near=case.near)
    assert form is not None
    eps = DEFAULT.eps_of(form)
    limit = freivalds.limit(1e-9, form.tests, 16)
    name = form.vectors(far_known=True)
    g = freivalds.vectors(SECRET, name, 16)
    assert jax.ShapeDtypeStruct(g.shape, g.dtype) == freivalds.vectors_shape(name, 16)

    def run(lhs: Any, rhs: Any, near: Any, far: Any, step: Any) -> tuple[Any, Any]:
        out = product(lhs, rhs)
        wrong = (out.astype(jnp.float64) + step).astype(out.dtype)
        projection = freivalds.project(form, far, g, eps=eps)
        tests = jax.vmap(
            lambda c: freivalds.test(form, near, projection, c, g, eps=eps, limit=limit)
        )(jnp.stack([out, wrong]))
        return jnp.stack([out, wrong]), tests

    with jax.enable_x64(True):
        shape = jax.eval_shape(product, lhs, rhs).shape
        position = tuple(int(rng.integers(n)) for n in shape)
        step = np.zeros(shape)
        step[position] = 1.0 if form.exact else 3.0 * max(1, math.sqrt(form.contracted))
        (out, wrong), found = jax.tree.map(np.asarray, jax.jit(run)(lhs, rhs, near, far, step))
    assert np.all(found.finite_claim & found.finite_operands & found.in_range)
    assert found.passed.tolist() == [True, False]
    assert found.worst[0] <= 1 < found.worst[1]
    a, b, c = case.dense(lhs, rhs, wrong)
    delta = c.astype(np.float64) - case.dense(lhs, rhs, out)[2].astype(np.float64)
    [row] = np.flatnonzero(np.any(delta != 0, axis=-1))
    assert found.row[1] == row
    if form.exact:
        assert found.worst.tolist() == [0, math.inf]
    else:
        # Half precision has a floor that counts: its subnormal numbers are large.
        tiny = np.finfo(np.float16).smallest_subnormal if "float16" in path else 0.0

        def with_floor(a: Any, b: Any, c: Any) -> Any:
            sigma, floor = eps * scale(a, b, c), floor_of(a, b, tiny)[:, None]
            return ratios(a, b, c, g, eps, limit) * sigma / np.where(sigma > 0, sigma + floor, 1)

        want = with_floor(a, b, c)
        tolerance = 1e-3 if "float16" in path else 1e-6
        assert found.worst[1] == pytest.approx(want.max(), rel=tolerance)
        honest = with_floor(*case.dense(lhs, rhs, out))
        assert found.worst[0] == pytest.approx(honest.max(), abs=0.01)


paths = st.sampled_from([*PATHS.values(), *EXACT_PATHS.values()])


@given(case=dot_cases(), path=paths, seed=st.integers(0, 2**32))
@example(  # a floor of three times the tolerance of an honest row
    DotCase(
        sizes={"batch": (1, 3), "contracted": (), "left": (), "right": (2,)},
        lhs=(("batch", 0), ("batch", 1)),
        rhs=(("batch", 0), ("batch", 1), ("right", 0)),
        near=0,
    ),
    ("float16", "float16"),
    4234,
)
@example(  # a floor of a third of a percent
    DotCase(
        sizes={"batch": (3, 2), "contracted": (), "left": (), "right": (1, 2)},
        lhs=(("batch", 0), ("batch", 1)),
        rhs=(("right", 0), ("right", 1), ("batch", 0), ("batch", 1)),
        near=0,
    ),
    ("float16", "float16"),
    13452596,
)
@settings(max_examples=8)
def test_random_dot_generals(case: Case, path: tuple[str, str], seed: int):
    check_case(case, path, seed)


@given(case=conv_cases(), path=paths, seed=st.integers(0, 2**32))
@settings(max_examples=5)
def test_random_convolutions(case: Case, path: tuple[str, str], seed: int):
    check_case(case, path, seed)


@given(case=dot_cases(max_side=2), at=st.integers(0, 2**16), seed=st.integers(0, 2**32))
@settings(max_examples=8)
def test_what_the_near_operand_gives_adds_up_over_parts(case: Case, at: int, seed: int):
    lhs, rhs = operands_of(case, "float32", np.random.default_rng(seed))
    near, far = ((lhs, rhs), (rhs, lhs))[case.near]
    form = contraction_of(case.product(np.dtype("float32")), lhs, rhs, near=case.near)
    assert form is not None
    g = freivalds.vectors(SECRET, form.vectors(far_known=True), 3)

    def run(near: Any, far: Any) -> Any:
        projection = freivalds.project(form, far, g, eps=1e-6)
        totals = {}
        for axis, projected in form.contracted_axes().items():
            length = near.shape[axis]
            middle = at % length
            applied = [
                freivalds.apply(
                    form.cut_contracted(axis, size),
                    lax.slice_in_dim(near, start, start + size, axis=axis),
                    freivalds.piece(projection, projected, start, size),
                )
                for start, size in ((0, middle), (middle, length - middle))
                if size
            ]
            totals[axis] = jax.tree.map(lambda *x: sum(x), *applied)
        return freivalds.apply(form, near, projection), totals

    with jax.enable_x64(True):
        whole, totals = jax.jit(run)(near, far)
    assert totals.keys() == form.contracted_axes().keys()
    for total in totals.values():
        np.testing.assert_allclose(total.product, whole.product, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(total.energy, whole.energy, rtol=1e-12)
    free = [d for d in range(near.ndim) if d not in form.contracted_axes()]
    for axis in free:
        with pytest.raises(ValueError, match="cannot be cut"):
            form.cut_contracted(axis, 1)


def test_only_sums_of_narrow_floats_add_up():
    def form(dtype: str, out: str) -> Any:
        a = jnp.zeros((2, 3), dtype)
        return contraction_of(
            lambda a, b: lax.dot(a, b, preferred_element_type=jnp.dtype(out)), a, a.T, near=0
        )

    with jax.enable_x64(True):
        assert [freivalds.additive(form(*path)) for path in PATHS.values()] == [
            "float64" not in path for path in PATHS.values()
        ]
        assert not any(freivalds.additive(form(*path)) for path in EXACT_PATHS.values())


EVERY_PATH = list((PATHS | EXACT_PATHS).items())


@pytest.mark.parametrize(
    ("path", "near"),
    [(path, i % 2) for i, (_, path) in enumerate(EVERY_PATH)],
    ids=[name for name, _ in EVERY_PATH],
)
def test_every_path(path: tuple[str, str], near: int):
    case = DotCase(
        sizes={"batch": (2,), "contracted": (5,), "left": (3,), "right": (4,)},
        lhs=(("batch", 0), ("left", 0), ("contracted", 0)),
        rhs=(("batch", 0), ("contracted", 0), ("right", 0)),
        near=near,
    )
    check_case(case, path, 0)


# ------------------------------------------------------------------------------ floats: the bound

TRIALS = 400
KAPPAS = (1, 2, 4, 8, 16)
EPS = 2.0**-10


def one_row(seed: int = 0) -> tuple[Array, Array]:
    """A (1, 1, 6) and B (1, 6, 24), with columns from massive to below the floor of weights."""
    rng = np.random.default_rng(seed)
    b = rng.standard_normal((1, 6, 24)) * np.logspace(3, -3, 24)
    return rng.standard_normal((1, 1, 6)), b


def deviation(a: Array, b: Array, direction: Array, kappa: float) -> Array:
    """The claim whose row deviates from A B along a direction by kappa sigma."""
    right = a @ b
    unit = direction / np.sqrt(((direction * weights_of(b)[:, None]) ** 2).sum())
    claim = right
    for _ in range(60):
        claim = right + kappa * EPS * scale(a, b, claim) * unit
    return claim


def directions(b: Array) -> dict[str, Array]:
    columns = b.shape[-1]
    found = {
        name: np.zeros((1, 1, columns)) for name in ("massive", "hidden", "opposite", "spread")
    }
    found["massive"][..., 0] = 1
    found["hidden"][..., -1] = 1
    found["opposite"][..., 5:7] = 1, -1
    found["spread"][:] = np.random.default_rng(1).standard_normal(columns)
    return found


def proportion(successes: int, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's interval at 99.99 %."""
    return p_values.proportion(successes, trials, 0.9999)


@pytest.mark.parametrize("draws", [2, 16])
def test_measured_acceptance_lies_on_the_bound(draws: int):
    a, b = one_row()
    form = matrix_form(1, 6, 24)
    bound = freivalds.bound(1e-9, 1, draws)
    cases = list(itertools.product(directions(b).items(), KAPPAS))
    claims = [deviation(a, b, d, kappa)[0] for (_, d), kappa in cases]
    seeds = [challenge.secret(i.to_bytes(32, "big")) for i in range(TRIALS)]
    gs = [freivalds.vectors(s, form.vectors(far_known=True), draws) for s in seeds]
    found = statistics_of(form, eps=EPS, limit=bound.limit)(a[0], b[0], claims, gs)
    for i, ((name, _), kappa) in enumerate(cases):
        low, high = proportion(int(found.passed[:, i].sum()), TRIALS)
        assert low <= bound.acceptance(kappa) <= high, (name, kappa)
    # The test above would be empty if every probability were 0 or 1.
    assert any(0.05 < bound.acceptance(k) < 0.95 for k in KAPPAS)


def test_an_honest_run_on_the_edge_of_tolerance_is_rejected_with_probability_phi():
    """Every row deviates by exactly sigma: the worst that an honest run may do."""
    phi, rows, draws = 0.05, 6, 16
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((1, rows, 6)), one_row()[1]
    claim = np.concatenate(
        [deviation(a[:, [i]], b, rng.standard_normal((1, 1, 24)), 1.0) for i in range(rows)], axis=1
    )
    form = matrix_form(rows, 6, 24)
    limit = freivalds.limit(phi, rows, draws)
    gs = [challenge.secret(i.to_bytes(32, "big")).normals("x", (24, draws)) for i in range(TRIALS)]
    found = statistics_of(form, eps=EPS, limit=limit)(a[0], b[0], [claim[0]], gs)
    rejected = int(np.count_nonzero(~found.passed))
    assert rejected > 0
    assert proportion(rejected, TRIALS)[0] <= phi


def test_a_claim_cannot_widen_its_own_tolerance():
    """However large, a deviation is at most 1 / eps sigma, and never less the larger it is."""
    a, b = one_row()
    form = matrix_form(1, 6, 24)
    limit = freivalds.limit(1e-9, 1, 16)
    sizes = np.logspace(-1, 30, 32)
    claims = [(a @ b + s * directions(b)["spread"])[0] for s in sizes]
    g = freivalds.vectors(SECRET, form.vectors(far_known=True), 16)
    found = statistics_of(form, eps=DEFAULT.eps_of(form), limit=limit)(a[0], b[0], claims, [g])
    assert not np.any(found.passed)
    assert np.all(np.diff(found.worst[0][:12]) > 0)
    assert found.worst[0, -1] == pytest.approx(found.worst[0, -2], rel=1e-6)


def test_blowing_up_a_claim_leaves_one_over_eps():
    """The least probability with which any wrong claim passes: the claim is in its own scale."""
    a, b = one_row()
    form, eps, draws = matrix_form(1, 6, 24), 2.0**-3, 2
    bound = freivalds.bound(1e-9, 1, draws)
    claims = [(a @ b * size)[0] for size in (1e30, -1e60)]
    gs = [challenge.secret(i.to_bytes(32, "big")).normals("x", (24, draws)) for i in range(TRIALS)]
    found = statistics_of(form, eps=eps, limit=bound.limit)(a[0], b[0], claims, gs)
    for passed in found.passed.T:
        low, high = proportion(int(passed.sum()), TRIALS)
        assert low <= bound.acceptance(1 / eps) <= high
    # With the default number of draws that is nothing.
    for dtype, eps in DEFAULT.eps:
        whole = freivalds.bound(DEFAULT.phi, 10**6, DEFAULT.draws)
        assert whole.acceptance(1 / eps) < 1e-19, dtype


@pytest.mark.parametrize("draws", [1, 2, 8, 16, 32, 4096])
@pytest.mark.parametrize("fraction", [0.5, 1e-9, 1e-15, 1e-17, 1e-30])
def test_limits_are_finite_far_into_the_upper_tail(draws: int, fraction: float):
    limit = freivalds.limit(fraction, 1, draws)
    assert math.isfinite(limit)
    assert limit > 0
    assert limit == pytest.approx(special.chdtri(draws, fraction), rel=1e-9)
    assert special.chdtrc(draws, limit) == pytest.approx(fraction, rel=1e-6)
    # From the lower tail, anything below 2^-53 would give an infinite limit that accepts all.
    if fraction < 2.0**-54:
        assert math.isinf(2 * special.gammaincinv(draws / 2, 1 - fraction))


def test_limits_of_whole_programs():
    assert freivalds.limit(1e-9, 10**6, 16) == freivalds.limit(1e-15, 1, 16)
    assert freivalds.limit(1e-9, 0, 16) == freivalds.limit(1e-9, 1, 16)
    assert freivalds.limit(1e-9, 10**6, 16) > freivalds.limit(1e-9, 1, 16)
    with pytest.raises(ValueError, match="no finite limit"):
        freivalds.limit(1e-320, 10**9, 16)
    with pytest.raises(ValueError, match="no finite limit"):
        freivalds.limit(1.0, 1, 16)
    with pytest.raises(ValueError, match="no finite limit"):
        freivalds.limit(math.nan, 1, 16)


def test_the_numbers_of_the_design():
    """A million rows, one false rejection in 10^9 runs: what 16 draws miss once in 10^9."""
    for draws, kappa in ((8, 59), (16, 13.6), (32, 5.8)):
        bound = freivalds.bound(1e-9, 10**6, draws)
        assert bound.kappa(1e-9) == pytest.approx(kappa, rel=0.01)
    assert Policy().draws == 16


@given(
    phi=st.floats(1e-30, 0.5),
    rows=st.integers(1, 10**9),
    draws=st.sampled_from([1, 2, 8, 16, 32, 64]),
    miss=st.floats(1e-12, 0.99),
)
def test_kappa_and_acceptance_are_inverse(phi: float, rows: int, draws: int, miss: float):
    bound = freivalds.bound(phi, rows, draws)
    assert bound == Bound(phi=phi, rows=rows, draws=draws, limit=bound.limit)
    assert bound.acceptance(bound.kappa(miss)) == pytest.approx(miss, rel=1e-6)
    assert bound.acceptance(1.0) >= 1 - phi / rows - 1e-12
    assert bound.acceptance(0.0) == 1.0
    assert bound.acceptance(10.0) <= bound.acceptance(5.0) <= 1.0


@pytest.mark.parametrize("miss", [0.0, 1.0, -1.0, math.nan])
def test_a_probability_that_is_none_is_refused(miss: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        freivalds.bound(1e-9, 1, 16).kappa(miss)


def test_sets_of_vectors():
    for name, shape, dtype in (
        ("float/parameters/24", (24, 16), np.float32),
        ("float/activations/3", (3, 16), np.float32),
        ("exact/parameters/5", (5, 1), np.uint64),
    ):
        drawn = freivalds.vectors(SECRET, name, 16)
        assert (drawn.shape, drawn.dtype) == (shape, dtype)
        assert freivalds.vectors_shape(name, 16) == jax.ShapeDtypeStruct(shape, dtype)
    assert freivalds.vectors(public_challenge(), "exact/parameters/5", 16).shape == (5, 2)
    both = [freivalds.vectors(SECRET, f"float/{k}/24", 16) for k in ("parameters", "activations")]
    assert not np.any(both[0] == both[1])


@pytest.mark.parametrize(
    ("near", "far", "out"),
    [
        ("float16", "float32", "float32"),
        ("float32", "float16", "float32"),
        ("bfloat16", "bfloat16", "float16"),
        ("float64", "float64", "float64"),
    ],
)
def test_the_floor_is_that_of_the_text(near: str, far: str, out: str):
    """(K + 1) tiny ||w|| of the output's type, and tiny sum_k ||B_k: * w|| of the near one's."""
    least, of_near = (
        {"float16": 2.0**-24, "float64": 2.0**-1022}.get(t, 2.0**-126) for t in (out, near)
    )
    b = 300 * np.random.default_rng(4).standard_normal((1, 5, 3)).astype(jnp.dtype(far))
    form = matrix_form(2, 5, 3, (near, far, out))
    with jax.enable_x64(True):
        found = freivalds.project(form, b[0], np.ones((3, 2), np.float32), eps=2.0**-10).floor
    w = weights_of(b)
    rows = np.linalg.norm(b.astype(np.float64) * w[:, None], axis=-1)
    np.testing.assert_allclose(
        found, 6 * least * np.linalg.norm(w) + of_near * rows.sum(), rtol=1e-6
    )


def test_a_projection_of_integers_cannot_test_floats():
    form = matrix_form(2, 3, 2)
    with jax.enable_x64(True):
        floats = freivalds.project(form, np.ones((3, 2)), np.ones((2, 1)), eps=1.0)
    with pytest.raises(ValueError, match="cannot test floats"):
        alone = freivalds.Applied(np.ones((2, 1)))
        freivalds.deviations(form, alone, floats, np.ones((2, 2)), np.ones((2, 1)), 1.0)
    projection = freivalds.Projection(np.zeros((3, 1)), None, None)
    with pytest.raises(ValueError, match="cannot test floats"):
        freivalds.test(
            form, np.zeros((2, 3)), projection, np.zeros((2, 2)), np.zeros((2, 1)), eps=1, limit=1
        )
