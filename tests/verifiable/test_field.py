"""Arithmetic modulo 2^e - 1 against plain Python integers, in numpy and in jitted JAX."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as npst
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from verifiable.field import F61, INT64, MANTISSA, Field, limb_bits

pytestmark = pytest.mark.compiled

EXPONENTS = (2, 3, 5, 7, 13, 17, 19, 31, 61)
fields = st.sampled_from([Field(e) for e in EXPONENTS])

Run = Callable[..., np.ndarray]


def jitted(function: Callable[..., Any]) -> Run:
    """The same function, compiled by JAX."""
    compiled = jax.jit(function)

    def run(*args: Any) -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(compiled(*args))

    return run


BACKENDS: dict[str, Callable[[Callable[..., Any]], Run]] = {
    "numpy": lambda function: function,
    "jax": functools.cache(jitted),
}
on_both = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS.keys())


@functools.cache
def operation(name: str, field: Field) -> Callable[..., Any]:
    """A method of a field as one object, so that it is compiled once."""
    return getattr(field, name)


@functools.cache
def linear(field: Field, magnitude: int, terms: int) -> Callable[..., Any]:
    def run(a: Any, r: Any) -> Any:
        return field.apply_linear(lambda x: a @ x, r, magnitude=magnitude, terms=terms)

    return run


# ------------------------------------------------------------------------------ the slow oracle


def is_prime(n: int) -> bool:
    """By trial division."""
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def matmul(a: list[list[int]], b: list[list[int]], p: int) -> list[list[int]]:
    """`A B (mod p)` in integers of any size."""
    columns = list(zip(*b, strict=True))
    return [[sum(x * y for x, y in zip(row, c, strict=True)) % p for c in columns] for row in a]


def ints(array: Any) -> list[Any]:
    return np.asarray(array).tolist()


# --------------------------------------------------------------------------------------- fields


def test_the_moduli_are_primes():
    for e in EXPONENTS[:-1]:
        assert Field(e).p == 2**e - 1
        assert is_prime(Field(e).p)
    # Lucas-Lehmer: 2^e - 1 is prime iff it divides s_(e-2), with s_0 = 4, s_n = s_(n-1)^2 - 2.
    s = 4
    for _ in range(59):
        s = (s * s - 2) % F61.p
    assert s == 0
    assert F61.p == 2**61 - 1 > 2**32


@pytest.mark.parametrize("exponent", [-1, 0, 1, 4, 11, 23, 29, 60, 62, 89, 127])
def test_other_exponents_are_refused(exponent: int):
    with pytest.raises(ValueError, match="must give a prime"):
        Field(exponent)


@on_both
@given(data=st.data(), field=fields)
@settings(max_examples=30, deadline=None)
def test_reduce(backend: Any, data: st.DataObject, field: Field):
    p = field.p
    edges = st.sampled_from([0, 1, p - 1, p, p + 1, 2 * p - 2, 2 * p - 1, 2 * p, 2 * p + 1])
    wide = data.draw(st.lists(st.integers(0, 2 * p + 1) | edges, min_size=8, max_size=8))
    got = backend(operation("reduce", field))(np.array(wide, np.uint64))
    assert got.dtype == np.uint64
    assert ints(got) == [x % p for x in wide]


def test_reduce_of_every_small_number():
    for e in (2, 3, 5, 7):
        field = Field(e)
        x = np.arange(2 * field.p + 2, dtype=np.uint64)
        assert ints(field.reduce(x)) == [i % field.p for i in range(2 * field.p + 2)]


@given(field=fields, bits=st.integers(0, 200), x=st.integers(0, 2**61 - 2))
@example(field=F61, bits=0, x=F61.p - 1)
@example(field=F61, bits=61, x=F61.p - 1)
@example(field=F61, bits=60, x=1)
def test_shift(field: Field, bits: int, x: int):
    x %= field.p
    got = field.shift(np.array([x], np.uint64), bits)
    assert ints(got) == [x * 2**bits % field.p]


@pytest.mark.parametrize("bits", [0, 1, 30, 60, 61, 122])
def test_shift_under_jit(bits: int):
    x = [0, 1, 2**60, F61.p - 1, 12345678901234567]
    got = jitted(lambda x: F61.shift(x, bits))(np.array(x, np.uint64))
    assert ints(got) == [v * 2**bits % F61.p for v in x]


@on_both
@given(field=fields, x=st.lists(st.integers(-(2**53) + 1, 2**53 - 1), min_size=4, max_size=4))
@example(field=F61, x=[2**53 - 1, -(2**53) + 1, 0, -1])
@example(field=Field(2), x=[3, -3, -4, 4])
@settings(max_examples=40, deadline=None)
def test_from_integers(backend: Any, field: Field, x: list[int]):
    got = backend(operation("from_integers", field))(np.array(x, np.float64))
    assert got.dtype == np.uint64
    assert ints(got) == [v % field.p for v in x]


# --------------------------------------------------------------------------------- linear maps


def test_digits_are_those_of_the_types():
    assert np.finfo(np.float64).nmant + 1 == MANTISSA
    assert np.iinfo(np.int64).max == 2**INT64 - 1


@given(
    magnitude=st.integers(0, 2**40),
    terms=st.integers(0, 2**20),
    digits=st.sampled_from([MANTISSA, INT64]),
)
@example(magnitude=0, terms=1, digits=INT64)
def test_limbs_are_as_wide_as_is_exact(magnitude: int, terms: int, digits: int):
    largest = magnitude * terms
    try:
        bits = limb_bits(magnitude, terms, digits)
    except ValueError:
        assert largest >= 2 ** (digits - 1)
        return
    assert 1 <= bits <= digits
    assert largest * (2**bits - 1) < 2**digits
    # One bit more could be inexact, unless the product is a power of two less than it looks.
    assert max(largest, 1) * (2 ** (bits + 1) - 1) >= 2 ** (digits - 1)


@given(field=fields, bits=st.integers(1, MANTISSA), x=st.integers(0, 2**61 - 2))
def test_limbs_are_the_fewest_that_hold_every_residue(field: Field, bits: int, x: int):
    x %= field.p
    limbs = [int(limb[0]) for limb in field.limbs(np.array([x], np.uint64), bits)]
    assert all(limb < 2**bits for limb in limbs)
    assert sum(limb << bits * i for i, limb in enumerate(limbs)) == x
    assert 2 ** (bits * (len(limbs) - 1)) <= field.p < 2 ** (bits * len(limbs))


def test_too_large_a_map_is_refused():
    with pytest.raises(ValueError, match="not exact"):
        limb_bits(2**31, 2**21)
    with pytest.raises(ValueError, match=f"sums of {2**21} entries of magnitude {2**31} are not"):
        F61.apply_linear(lambda x: x, np.zeros((1, 1), np.uint64), magnitude=2**31, terms=2**21)
    assert limb_bits(2**31, 2**20) == 1


def test_apply_linear_in_numpy():
    check_apply_linear(BACKENDS["numpy"], fields, st.integers(1, 5), 60)


def test_apply_linear_in_jax():
    few = st.sampled_from([Field(2), F61])
    check_apply_linear(BACKENDS["jax"], few, st.just(3), 20)


def check_apply_linear(
    backend: Callable[..., Run],
    fields: st.SearchStrategy[Field],
    sizes: st.SearchStrategy[int],
    examples: int,
) -> None:
    @given(
        data=st.data(),
        field=fields,
        shape=st.tuples(sizes, sizes, sizes),
        magnitude=st.sampled_from([1, 128, 255, 2**31]),
    )
    @settings(max_examples=examples, deadline=None, database=None)
    def check(
        data: st.DataObject, field: Field, shape: tuple[int, int, int], magnitude: int
    ) -> None:
        m, n, draws = shape
        entries = st.integers(-magnitude, magnitude) | st.sampled_from([-magnitude, magnitude])
        a = data.draw(npst.arrays(np.float64, (m, n), elements=entries.map(float)))
        p = field.p
        residues = st.integers(0, p - 1) | st.sampled_from([0, p - 1, p // 2])
        r = data.draw(npst.arrays(np.uint64, (n, draws), elements=residues))
        got = backend(linear(field, magnitude, n))(a, r)
        assert got.dtype == np.uint64
        integers = [[int(x) for x in row] for row in a]
        assert ints(got) == matmul(integers, ints(r), p)

    check()


EXTREMES = [(128, 131_071), (255, 33_025), (2**31 - 1, 512), (2**40, 256), (2**43, 64), (1, 1)]


@on_both
@pytest.mark.parametrize(("magnitude", "terms"), EXTREMES, ids=str)
@pytest.mark.parametrize("sign", [1, -1], ids=["positive", "negative"])
def test_limbs_are_exact_at_the_extremes(
    backend: Callable[..., Run], magnitude: int, terms: int, sign: int
):
    """Every entry, residue and number of terms as large as declared, so that no slack helps."""
    top = np.array([F61.p - 1, 2**60, 0x155555555555555], np.uint64)
    row = np.full((1, terms), float(sign * magnitude))
    got = backend(linear(F61, magnitude, terms))(row, np.tile(top, (terms, 1)))
    assert ints(got) == [[sign * magnitude * terms * int(v) % F61.p for v in top]]


def test_exactness_needs_the_declared_bounds():
    """Entries larger than declared break it: the limbs above are as wide as they may be."""
    n = 512
    row = np.full((1, n), float(2**31 - 1))
    r = np.random.default_rng(0).integers(0, F61.p, (n, 4), dtype=np.uint64)
    want = matmul([[int(x) for x in row[0]]], ints(r), F61.p)
    assert ints(linear(F61, 2**31 - 1, n)(row, r)) == want
    assert ints(linear(F61, 2**25, n)(row, r)) != want


def test_jax_arrays_outside_of_jit():
    with jax.enable_x64(True):
        a = jnp.array([[3.0, -5.0]])
        r = jnp.array([[F61.p - 1], [7]], jnp.uint64)
        got = F61.apply_linear(lambda x: a @ x, r, magnitude=5, terms=2)
        assert ints(got) == [[(3 * (F61.p - 1) - 35) % F61.p]]
