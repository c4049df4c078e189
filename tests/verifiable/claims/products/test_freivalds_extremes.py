"""Float checks of wrong claims, of numbers that are not finite, and of zeros and extremes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.contractions import (
    matrix_form,
)
from tests.helpers.products import (
    COLUMNS,
    INNER,
    ROWS,
    SECRET,
    SIZES,
    Array,
    assert_accepted,
    assert_rejected,
    assert_undecided,
    float_product,
    put,
    ratios,
    statistics_of,
    verify,
)
from verifiable.claims.products import freivalds
from verifiable.claims.products.product import Product
from verifiable.claims.products.standalone import verify_dot_general
from verifiable.claims.statistic import Statistic, judge
from verifiable.policy import DEFAULT
from verifiable.report import Result, Verdict

# -------------------------------------------------------------------------- floats: named cheats


def keep_the_largest(claim: Array, _size: float) -> Array:
    return np.where(np.abs(claim) >= np.sort(np.abs(claim))[:, [-6]], claim, 0)


FLOAT_CHEATS: dict[str, Callable[[Array, float], Array]] = {
    "one element": put((2, 3), 10.0),
    "a whole row": put(2, 3.0),
    "equal and opposite changes in a row": put((4, slice(0, 2)), [10.0, -10.0]),
    "a change that sums to nothing": put((0, slice(0, 4)), [7.0, -7.0, 7.0, -7.0]),
    "one sign": lambda c, _: np.where(np.abs(c) == np.abs(c).max(), -c, c),
    "every sign": lambda c, _: -c,
    "all zero": lambda c, _: np.zeros_like(c),
    "all but the largest zeroed": keep_the_largest,
    "rows swapped": lambda c, _: c[::-1],
    "columns swapped": lambda c, _: c[:, ::-1],
    "doubled": lambda c, _: 2 * c,
    "blown up": lambda c, _: c * np.asarray(1e20, c.dtype),
    "shrunk": lambda c, _: c * np.asarray(1e-20, c.dtype),
    "the largest number": lambda c, _: np.full_like(c, np.finfo(c.dtype).max),
}


@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("name", FLOAT_CHEATS)
def test_float_cheats(dtype: str, name: str):
    a, b, right = float_product(dtype)
    wrong = FLOAT_CHEATS[name](right, SIZES[dtype])
    result = verify(a, b, wrong)
    assert_rejected(result)
    assert result.bound == freivalds.bound(DEFAULT.phi, ROWS, DEFAULT.draws)
    assert not result.exact
    if name == "one element":
        assert result.row == 2


@pytest.mark.parametrize("dtype", SIZES)
def test_the_products_above_are_right(dtype: str):
    assert_accepted(verify(*float_product(dtype)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_one_nonfinite_element_anywhere_rejects_a_claim(bad: float):
    a, b, right = float_product("float32")
    claims = []
    for position in np.ndindex(ROWS, COLUMNS):
        claims.append(right.copy())
        claims[-1][position] = bad
    found = found_in_product(a, b, claims)
    for i in range(len(claims)):
        statistic = Statistic(*(x[0, i] for x in found))
        assert judge(statistic, Product.mismatch) == (Verdict.REJECT, "claim-nonfinite")
    assert_rejected(verify(a, b, claims[0]), "claim-nonfinite")


@functools.cache
def product_statistics() -> Callable[..., Statistic]:
    form = matrix_form(ROWS, INNER, COLUMNS, ("float32",) * 3)
    return statistics_of(form, eps=DEFAULT.eps_of(form), limit=freivalds.limit(1e-9, ROWS, 16))


def found_in_product(a: Array, b: Array, claims: list[Array]) -> Statistic:
    return product_statistics()(a, b, claims, [SECRET.normals("g", (COLUMNS, 16))])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("side", ["near", "far"])
def test_a_nonfinite_operand_is_indeterminate(side: str, bad: float):
    a, b, right = (x.copy() for x in float_product("float32"))
    (a if side == "near" else b)[3, 3] = bad
    with np.errstate(invalid="ignore"):
        honest = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    touched = honest.copy()
    touched[3] = 0
    wrong = honest.copy()
    wrong[5] = -right[5]
    results = [verify(a, b, claim) for claim in (honest, touched, wrong)]
    verdicts = [(result.verdict, result.reason) for result in results]
    open_ = (Verdict.INDETERMINATE, "nonfinite-operand")
    # A NaN leaves one result: a row of them.
    certain = side == "near" and np.isnan(bad)
    assert verdicts[0] == ((Verdict.ACCEPT, "ok") if certain else open_)
    # What the operands leave open is open; the other rows are still tested.
    if side == "near":
        assert verdicts[1:] == [open_, (Verdict.REJECT, "claim-mismatch")]
    else:
        assert all(verdict is not Verdict.ACCEPT for verdict, _ in verdicts)


def test_a_nonfinite_claim_is_rejected_where_only_other_rows_are_open():
    a, b, right = (x.copy() for x in float_product("float32"))
    a[3] = np.nan
    right[3], right[4] = np.nan, np.inf
    assert_rejected(verify(a, b, right), "claim-nonfinite")
    right[4] = a[4] @ b
    assert_accepted(verify(a, b, right))
    right[3, 0] = 1.0
    assert_undecided(verify(a, b, right))


ABSENT = {
    "one number in a row of NaN": lambda row: np.where(np.arange(len(row)) == 1, 2.0, row),
    "infinities for NaN": lambda row: np.full_like(row, np.inf),
    "zeros for NaN": np.zeros_like,
}


@pytest.mark.parametrize("name", ABSENT)
def test_a_row_that_must_be_nan_is_not_free_to_choose(name: str):
    """Cheat: numbers in a row whose operand is not a number, which a mask may let through."""
    a, b, right = (x.copy() for x in float_product("float32"))
    a[3, 0] = np.nan
    honest = a @ b
    assert np.isnan(honest[3]).all()
    assert_accepted(verify(a, b, honest))
    wrong = honest.copy()
    wrong[3] = ABSENT[name](np.zeros_like(right[3]) * np.nan)
    assert_undecided(verify(a, b, wrong))
    # Where B is not finite, only some columns are NaN: nothing is certain.
    b[0, 0] = np.nan
    assert_undecided(verify(a, b, np.full_like(right, np.nan)))


def in_own_type(a: Array, b: Array, claim: Array) -> Result:
    """A product whose output has the type of its operands."""
    return verify_dot_general(SECRET, a, b, claim, preferred_element_type=a.dtype)


@pytest.mark.parametrize(("dtype", "size"), [("float16", 600.0), ("float32", 1.5e19)])
def test_an_overflow_that_every_device_may_meet_is_undecided(dtype: str, size: float):
    """Operands that are finite and a product that is not: nobody's fault."""
    a, b = (np.ones(shape, dtype) for shape in ((ROWS, INNER), (INNER, COLUMNS)))
    a[2], b[:] = size, size
    with np.errstate(over="ignore"):
        honest = (a.astype(np.float64) @ b.astype(np.float64)).astype(dtype)
    assert np.isinf(honest[2]).all()
    assert np.isfinite(honest[3]).all()
    assert_undecided(in_own_type(a, b, honest))
    wrong = honest.copy()
    wrong[3] *= -1
    assert_rejected(in_own_type(a, b, wrong), "claim-mismatch")


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_an_overflow_that_cannot_be_is_rejected(dtype: str, bad: float):
    """Cheat: an infinity, to leave a row undecided, where the operands are far too small."""
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((4, 64)), rng.standard_normal((64, 32))
    a, b = a.astype(jnp.dtype(dtype)), b.astype(jnp.dtype(dtype))
    right = (a.astype(np.float64) @ b.astype(np.float64)).astype(a.dtype)
    assert_accepted(in_own_type(a, b, right))
    assert_rejected(in_own_type(a, b, put((1, 2), bad)(right, 1.0)), "claim-nonfinite")


def test_the_limit_of_an_overflow_is_the_inequality_of_the_text():
    """Half of the largest number is reached iff sqrt(K energy) >= half of it times the least w."""
    for size, possible in ((0.99, False), (1.01, True)):
        a, b = np.ones((1, 4)), np.ones((4, 2))
        # All w are 1/2, ||B_k: * w||^2 is 1/2: sqrt(K energy) = 2 sqrt(2) |a|.
        a *= size * 65504 / 2 * 0.5 / (2 * np.sqrt(2))
        a, b = a.astype(np.float16), b.astype(np.float16)
        result = in_own_type(a, b, np.full((1, 2), np.inf, np.float16))
        assert (result.verdict is Verdict.INDETERMINATE) is possible


# ------------------------------------------------------------------------- zeros and extremes


def small_product(dtype: str, near: float, far: float) -> tuple[Array, Array, Array]:
    """A, B and their product, correctly rounded (and to zero where it is below all numbers)."""
    rng = np.random.default_rng(11)
    a, b = rng.uniform(0.5, 1, (4, 5)), rng.uniform(0.5, 1, (5, 3))
    a *= rng.choice([-1, 1], a.shape)
    b *= rng.choice([-1, 1], b.shape)
    a, b = (a * near).astype(dtype), (b * far).astype(dtype)
    return a, b, (a.astype(np.float64) @ b.astype(np.float64)).astype(dtype)


EXTREMES = [
    ("float32", 1e19, 1e18),
    ("float32", 1e38, 1e-20),
    ("float32", 1e-20, 1e38),
    ("float32", 1e-36, 1.0),
    ("float32", 1.0, 1e-36),
    ("float32", 1e-25, 1e-10),
    ("float64", 1.0, 1e300),
    ("float64", 1e300, 1.0),
    ("float64", 1e150, 1e150),
    ("float64", 1.0, 1e-200),
    ("float64", 1e-200, 1.0),
    ("float64", 1.0, 1e-300),
    ("float64", 1e-300, 1.0),
    ("float64", 1e300, 1e-300),
    ("float64", 1e-300, 1e300),
    ("float64", 1e-150, 1e-140),
    ("float64", 1.0, 1e307),
    ("float64", 1e307, 1.0),
]


@pytest.mark.parametrize(("dtype", "near", "far"), EXTREMES)
def test_extreme_numbers(dtype: str, near: float, far: float):
    """Neither squares nor weights overflow or vanish: right is accepted, wrong is rejected."""
    a, b, right = small_product(dtype, near, far)
    assert np.all(np.isfinite(right))
    assert np.all(right != 0)
    assert_accepted(verify(a, b, right))
    wrong = right.copy()
    wrong[2, 1] = -wrong[2, 1]
    assert_rejected(verify(a, b, wrong))
    assert_rejected(verify(a, b, np.zeros_like(right)))
    for value in (np.finfo(dtype).max, -np.finfo(dtype).max, 1.0):
        wrong = right.copy()
        wrong[1, 2] = value
        assert_rejected(verify(a, b, wrong))


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
def test_rows_beside_one_that_is_not_finite_keep_their_own_size(bad: float):
    """Their squares would vanish, and no claim in them would be wrong."""
    a, b, _ = small_product("float64", 1e-300, 1.0)
    a[0, 0] = bad
    with np.errstate(invalid="ignore"):
        right = a @ b
    wrong = right.copy()
    wrong[2, 1] *= -1
    assert_rejected(verify(a, b, wrong))
    assert verify(a, b, right).verdict is not Verdict.REJECT


def test_a_claim_whose_square_overflows_widens_nothing():
    """Its statistic may stay finite by chance; a tolerance that is infinite is none."""
    form = matrix_form(1, 1, 1)
    one = np.ones((1, 1))
    gs = np.linspace(-1.5, 1.5, 61).reshape(-1, 1, 1)
    sizes = (1.3e154, 1.4e154, 1.5e154, 1e200, 1e300, np.finfo(float).max)
    run = statistics_of(form, eps=2.0**-44, limit=freivalds.limit(1e-9, 1, 1))
    found = run(one, one, [size * one for size in sizes], gs[np.abs(gs[:, 0, 0]) > 1e-9])
    assert np.all(found.finite_claim)
    assert not np.any(found.passed)
    assert np.all(found.worst > 1)


@pytest.mark.parametrize(
    ("dtype", "near", "far"),
    [
        ("float32", 1e-25, 1e-25),
        ("float32", 1e-30, 1e-14),
        ("float64", 1e-200, 1e-120),
        ("float64", 1e-120, 1e-200),
        ("float64", 1e-200, 1e-200),
        ("float64", 1e-160, 1e-160),
    ],
)
def test_products_too_small_for_normal_numbers_may_be_flushed(dtype: str, near: float, far: float):
    """A device may keep subnormal products or not; it may not claim anything larger."""
    a, b, right = small_product(dtype, near, far)
    assert np.all(np.abs(right) < np.finfo(dtype).tiny)
    assert_accepted(verify(a, b, right))
    assert_accepted(verify(a, b, np.zeros_like(right)))
    for value in (1e4 * float(np.finfo(dtype).tiny), 1.0, float(np.finfo(dtype).max)):
        wrong = right.copy()
        wrong[1, 2] = value
        assert_rejected(verify(a, b, wrong))


@pytest.mark.parametrize(
    ("dtype", "near", "far"),
    [
        ("float32", 1.0, 1e-40),
        ("float32", 1e-40, 1.0),
        ("float32", 1e10, 1e-40),
        ("float32", 1e-40, 1e10),
        ("float32", 1e38, 1e-40),
        ("float32", 1e-40, 1e38),
        ("float64", 1.0, 1e-310),
        ("float64", 1e-310, 1.0),
        ("float64", 1e300, 1e-310),
    ],
)
def test_subnormal_operands_may_be_flushed(dtype: str, near: float, far: float):
    """Devices differ in whether a subnormal operand counts as zero; neither is wrong."""
    a, b, right = small_product(dtype, near, far)
    assert_accepted(verify(a, b, right))
    assert_accepted(verify(a, b, np.zeros_like(right)))
    wrong = right.copy()
    wrong[1, 2] = np.finfo(dtype).max
    assert_rejected(verify(a, b, wrong))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("where", ["row", "column", "near", "far", "both"])
def test_a_zero_demands_a_zero(dtype: str, where: str):
    a, b, _ = (x.copy() for x in float_product(dtype))
    if where == "row":
        a[2] = 0
    if where == "column":
        b[:, 3] = 0
    if where in ("near", "both"):
        a[:] = 0
    if where in ("far", "both"):
        b[:] = 0
    out = np.float64 if dtype == "float64" else np.float32
    right = (a.astype(np.float64) @ b.astype(np.float64)).astype(out)
    assert right[2, 3] == 0
    assert_accepted(verify(a, b, right))
    assert_accepted(verify(a, b, np.where(right == 0, -0.0, right)))
    for value in (1.0, -1e-2, 1e30):
        wrong = right.copy()
        wrong[2, 3] = value
        result = verify(a, b, wrong)
        assert_rejected(result)
        assert result.row == 2


@pytest.mark.parametrize("value", [1e-30, 1e-20, 1e-6])
def test_a_tiny_claim_in_a_row_of_zeros_is_wrong(value: float):
    """No tolerance is absolute but for a few of the smallest normal numbers."""
    a, b, right = (x.copy() for x in float_product("float32"))
    a[2], right[2] = 0, 0
    right[2, 3] = value
    assert_rejected(verify(a, b, right))


def test_a_component_beside_a_massive_one_keeps_its_own_tolerance():
    """Down to 2^-12 of the largest column, a change of a hundredth of an element is seen."""
    a, b, _ = (x.copy() for x in float_product("float32"))
    b[:, 0] *= 4000
    right = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    assert_accepted(verify(a, b, right))
    wrong = right.copy()
    wrong[2, 3] *= 1.1
    assert_rejected(verify(a, b, wrong))


def test_below_the_floor_of_weights_a_column_is_held_to_the_floor():
    """The limit of the scale: a column of 2^-40 of the largest has 2^28 times its tolerance."""
    a, b, _ = (x.copy() for x in float_product("float32"))
    b[:, 0] *= np.float32(2.0**40)
    right = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    wrong = right.copy()
    wrong[2, 3] = -wrong[2, 3]
    assert_accepted(verify(a, b, wrong))
    g = SECRET.normals("float/parameters/24", (24, 16))
    limit = freivalds.limit(1e-9, ROWS, 16)
    assert ratios(a[None], b[None], wrong[None], g, 2.0**-16, limit).max() < 1
