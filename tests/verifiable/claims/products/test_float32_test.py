"""The cheap form of a product's test: what float32 decides, float64 decides alike."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from tests.helpers.products import SECRET, scale, weights_of
from verifiable import program
from verifiable.claims.products import float32_test, freivalds
from verifiable.claims.products.dot_general import DotGeneral
from verifiable.policy import DEFAULT
from verifiable.report import Verdict

Array = np.ndarray[Any, Any]

ROWS, INNER, COLUMNS = 128, 256, 96
HALVES = np.where(np.arange(INNER) < INNER // 2, 1.0, -1.0)


def form(inner: int = INNER, columns: int = COLUMNS, dtype: str = "float32") -> DotGeneral:
    return DotGeneral(
        near=0,
        shapes=((ROWS, inner), (inner, columns), (ROWS, columns)),
        dtypes=(np.dtype(dtype),) * 3,
        batch=1,
        rows=ROWS,
        contracted=inner,
        columns=columns,
        contracting=((1,), (0,)),
        batching=((), ()),
    )


LIMIT = freivalds.limit(1e-9, ROWS, 16)
# The tightest tolerance that float32 is used for, and one in blocks of columns.
FORMS = {"whole": form(), "blocks": form(columns=600).in_blocks()}


def tightest(of: DotGeneral) -> float:
    return 3.001 * float32_test.noise(of)


@functools.cache
def both(name: str) -> Callable[..., Any]:
    """`(a, b, c)` to what the cheap form and the exact one find of each row."""
    of = FORMS[name]
    eps, g = tightest(of), freivalds.vectors(SECRET, of.vectors(far_known=True), 16)

    def run(a: Any, b: Any, c: Any) -> Any:
        exact = freivalds.project(of, b, g, eps=eps)
        found = []
        for projection in (float32_test.narrowed(of, exact), exact):
            applied = freivalds.apply(of, a, projection)
            vectors = g.astype(projection.image.dtype)
            found.append(
                freivalds.compare(of, applied, projection, c, vectors, eps=eps, limit=LIMIT)
            )
        return found

    compiled = jax.jit(run)

    def call(*arrays: Array) -> Any:
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, compiled(*arrays))

    return call


def spiked(x: Array, axis: int, size: float) -> Array:
    x = x.copy()
    x[(slice(None), 0) if axis else 0] *= size
    return x


def dead(b: Array) -> Array:
    b = b.copy()
    b[::3], b[1::3] = 0, 1e-39
    return b


# Name to a change of operands and, if it is set, a bound on the share of rows left undecided.
OPERANDS: dict[str, tuple[Callable[[Array, Array], tuple[Array, Array]], float | None]] = {
    "as they are": (lambda a, b: (a, b), 0.1),
    "a spike that absorbs": (lambda a, b: (spiked(a, 1, 1e6), b), None),
    "a row of B that absorbs": (lambda a, b: (a, spiked(b, 0, 1e5)), None),
    "one side": (lambda a, b: (np.abs(a) + 10, np.abs(b)), 0.1),
    "sums that cancel": (lambda a, b: (HALVES + 1e-3 * a, 1 + 1e-3 * b), None),
    "columns of 1e30": (lambda a, b: (a, b * np.where(np.arange(b.shape[1]) % 2, 1, 1e30)), None),
    "B of 1e-30": (lambda a, b: (a, b * 1e-30), None),
    "columns of 1e6": (lambda a, b: (a, b * np.where(np.arange(b.shape[1]) % 2, 1, 1e6)), 0.1),
    "B of 1e-6": (lambda a, b: (a, b * 1e-6), 0.1),
    "A of 1e25": (lambda a, b: (a * 1e25, b), None),
    "A of 1e25, B of 1e-25": (lambda a, b: (a * 1e25, b * 1e-25), None),
    "A of 1e-25": (lambda a, b: (a * 1e-25, b), None),
    "A of 1e-37": (lambda a, b: (a * 1e-37, b), None),
    "B of 1e-37": (lambda a, b: (a, b * 1e-37), None),
    "A and B of 1e-20": (lambda a, b: (a * 1e-20, b * 1e-20), None),
    "rows of zeros": (lambda a, b: (a * (np.arange(ROWS) % 2)[:, None], b), 0.2),
    "rows of B that are zero or subnormal": (lambda a, b: (a, dead(b)), 0.1),
    "a NaN": (lambda a, b: (spiked(a, 1, np.nan), b), None),
    "an infinity": (lambda a, b: (a, spiked(b, 0, np.inf)), None),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("operands", OPERANDS)
def test_no_row_is_decided_otherwise_than_in_float64(operands: str, name: str):
    """Deviations of 0.01 to 100 times the limit, in one element or all of a row, or none."""
    of, (change, most) = FORMS[name], OPERANDS[operands]
    undecided = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        with np.errstate(all="ignore"):
            a, b = change(
                rng.standard_normal((ROWS, INNER)), rng.standard_normal((INNER, of.columns))
            )
            a, b = a.astype(np.float32), b.astype(np.float32)
            honest = a.astype(np.float64) @ b.astype(np.float64)
            w = weights_of(b[None])[0]
            delta = rng.standard_normal(honest.shape)
            delta[::2] *= rng.random(honest[::2].shape) < 2 / of.columns
            sizes = 10 ** rng.uniform(-2, 2, ROWS) * (np.arange(ROWS) % 8 > 0)
            norms = np.maximum(np.linalg.norm(delta, axis=1), 1e-3)
            sigma = tightest(of) * scale(a[None], b[None], honest[None].astype(np.float32))[0]
            step = (sizes * np.sqrt(LIMIT / 16) * sigma / norms)[:, None] * delta / w
            claim = (honest + np.nan_to_num(step)).astype(np.float32)
        cheap, exact = both(name)(a, b, claim)
        decided = cheap.finite_operands
        right = exact.finite_operands & exact.finite_claim & (exact.ratio <= 1)
        passed = decided & (cheap.ratio <= 1)
        assert not np.any(passed & ~right), np.flatnonzero(passed & ~right)
        assert not np.any(decided & ~passed & right)
        assert np.all(cheap.finite_claim & cheap.in_range)
        sure = (exact.ratio < 0.4) | (exact.ratio > 2.5)
        undecided.append(np.mean(~decided & sure))
    if most is not None:
        assert np.mean(undecided) <= most


def test_rows_that_fail_without_the_norms_of_the_claim_may_pass_with_them():
    """Of ones, a product is larger than its operands: all rows are off by what only it allows."""
    of = FORMS["whole"]
    a, b = np.ones((ROWS, INNER), np.float32), np.ones((INNER, of.columns), np.float32)
    honest = a.astype(np.float64) @ b
    delta = np.random.default_rng(5).standard_normal(honest.shape)
    sigma = tightest(of) * scale(a[None], b[None], 0 * honest[None])[0]
    delta *= (4 * sigma * np.sqrt(LIMIT / 16) / np.linalg.norm(delta, axis=1))[:, None]
    claim = (honest + delta / weights_of(b[None])[0]).astype(np.float32)
    cheap, exact = both("whole")(a, b, claim)
    assert np.all(exact.ratio < 0.4)
    assert np.all(cheap.finite_operands & (cheap.ratio <= 0.5))


def test_what_is_too_tight_for_float32_is_tested_in_float64():
    ordinary = form()
    assert float32_test.suffices(ordinary, tightest(ordinary))
    assert not float32_test.suffices(ordinary, 2.0**-22)  # the floor of calibration
    assert not float32_test.suffices(form(dtype="float64"), 2.0**-16)
    assert not float32_test.suffices(form(inner=2**21), 2.0**-6)  # sums too long for float32
    assert not float32_test.suffices(form(inner=2**16), 2.0**-16)
    assert float32_test.suffices(form(inner=2**15), 2.0**-16)
    integers = tuple(np.dtype(t) for t in ("int8", "int8", "int32"))
    assert not float32_test.suffices(replace(ordinary, dtypes=integers), 0.0)


@functools.cache
def scaled_program() -> tuple[program.Program, Any, Array]:
    rng = np.random.default_rng(0)
    b = rng.standard_normal((64, 48)).astype(np.float32)
    a = rng.standard_normal((40, 64)).astype(np.float32)
    compiled = program.compile(lambda b, a: a @ b, b, a, self_test=False)
    assert float32_test.suffices(compiled.claims[0].form.maps, DEFAULT.eps_of(compiled.claims[0]))
    return compiled, compiled.setup(b, SECRET), a


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_programs_decide_at_any_scale_what_float32_cannot(size: float):
    """Squares overflow or vanish at these sizes, and an infinite limit would pass anything."""
    compiled, key, a = scaled_program()
    a = (a * np.float32(size)).astype(np.float32)
    rng = np.random.default_rng(0)
    y = a @ rng.standard_normal((64, 48)).astype(np.float32)
    report = compiled.check(key, a, y=y, trace=(y,))
    assert report.verdict is Verdict.ACCEPT
    assert 0 < report.worst < 0.2
    wrong = y.copy()
    wrong[3, 5] *= np.float32(1.1)
    report = compiled.check(key, a, y=wrong, trace=(wrong,))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")
    assert report.results[0].row == 3


def test_a_row_between_half_and_twice_its_limit_is_decided_in_float64():
    """Steps from far below to far above the limit: cheap and exact form accept the same ones."""
    compiled, key, a = scaled_program()
    exact = replace(compiled, strategy=replace(compiled.strategy, cheap_first=False))
    rng = np.random.default_rng(0)
    y = a @ rng.standard_normal((64, 48)).astype(np.float32)
    seen = set()
    for step in np.geomspace(1e-4, 0.1, 13).astype(np.float32):
        wrong = y.copy()
        wrong[3, 5] += step
        mine, theirs = (p.check(key, a, y=wrong, trace=(wrong,)) for p in (compiled, exact))
        assert mine.verdict is theirs.verdict
        if 0.55 < theirs.worst < 1.8:
            assert mine.worst == pytest.approx(theirs.worst, rel=1e-9)
        seen.add((theirs.worst > 0.5, theirs.worst > 1.0, theirs.worst > 2.0))
    assert len(seen) == 4
