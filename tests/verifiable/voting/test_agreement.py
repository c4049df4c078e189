"""Agreements against plain arithmetic, and against what a device might send instead."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from verifiable.voting import agreement
from verifiable.voting.agreement import (
    RELATIVE_TOLERANCE,
    Agreement,
    Argmax,
    Candidate,
    Exact,
    Tolerance,
    Within,
)
from verifiable.voting.tokens import Tokens

LOGITS = np.array([[0.0, 2.0, 1.0], [3.0, -1.0, 0.5]], dtype=np.float32)
VECTOR = Tolerance.usual(shape=(4,), dtype="float32")
GOOD = np.array([1.0, -2.0, 3.0, 0.5], dtype=np.float32)


def exact_distance(a: Any, b: Any) -> float:
    """Largest over rows of ||a - b|| / max(||a||, ||b||), squares in exact rationals."""
    worst = 0.0
    for left, right in zip(a, b, strict=True):
        x, y = [Fraction(float(v)) for v in left], [Fraction(float(v)) for v in right]
        gap = sum(((p - q) ** 2 for p, q in zip(x, y, strict=True)), Fraction(0))
        size = max(sum((v * v for v in x), Fraction(0)), sum((v * v for v in y), Fraction(0)))
        if size:
            worst = max(worst, math.sqrt(gap / size))
    return worst


def floats(width: int) -> st.SearchStrategy[float]:
    """Any finite float, with the extremes of the range made likely."""
    info = np.finfo(f"float{width}")
    extremes = [0.0, -0.0, 1.0, float(info.max), float(info.min), float(info.smallest_subnormal)]
    return st.one_of(
        st.floats(allow_nan=False, allow_infinity=False, width=width),  # type: ignore[arg-type]
        st.sampled_from(extremes),
    )


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, list[Any]]:
    width = draw(st.sampled_from([32, 64]))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    count = draw(st.integers(2, 4))
    return f"float{width}", [
        draw(hnp.arrays(f"float{width}", shape, elements=floats(width))) for _ in range(count)
    ]


@settings(max_examples=200, deadline=None)
@given(arrays())
def test_distances_equal_exact_arithmetic_at_every_magnitude(case: tuple[str, list[Any]]) -> None:
    dtype, values = case
    agreement = Tolerance(shape=values[0].shape, dtype=dtype, relative=0.25)
    matrix = agreement.distances(values)
    assert np.isfinite(matrix).all()
    for i, j in itertools.product(range(len(values)), repeat=2):
        expected = exact_distance(values[i], values[j]) / 0.25
        # Beside a peak, what is smaller than the square root of the least float vanishes squared.
        assert matrix[i, j] == pytest.approx(expected, rel=1e-12, abs=1e-150)
    assert (matrix == matrix.T).all()


@settings(max_examples=200, deadline=None)
@given(arrays())
def test_the_relative_distance_is_a_metric(case: tuple[str, list[Any]]) -> None:
    dtype, values = case
    matrix = Tolerance(shape=values[0].shape, dtype=dtype, relative=0.5).distances(values)
    for i, j, k in itertools.product(range(len(values)), repeat=3):
        assert matrix[i, k] <= matrix[i, j] + matrix[j, k] + 1e-12
    assert not matrix.diagonal().any()


def test_distances_do_not_depend_on_the_other_ballots_or_their_order() -> None:
    rng = np.random.default_rng(1)
    values = [rng.normal(size=(3, 1000)).astype(np.float32) for _ in range(5)]
    agreement = Tolerance.usual(shape=(3, 1000), dtype="float32")
    matrix = agreement.distances(values)
    hostile = np.full((3, 1000), np.finfo(np.float32).max, dtype=np.float32)
    for order in itertools.permutations(range(5)):
        again = agreement.distances([values[i] for i in order] + [hostile])
        assert (again[:5, :5] == matrix[np.ix_(order, order)]).all()


def test_large_arrays_are_compared_block_by_block() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(size=(700, 512)).astype(np.float32)
    agreement = Tolerance(shape=(700, 512), dtype="float32", relative=0.1)
    for row in (0, 1, 511, 512, 699):  # of one block, of its neighbours, and of the last
        other = base.copy()
        other[row] *= 2.0
        assert agreement.distances([base, other])[0, 1] == pytest.approx(5.0)


def test_blocks_change_no_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    values = list(rng.normal(size=(4, 6, 5)).astype(np.float32))
    scaled = [value.astype(np.float64) * 2.0**-500 for value in values]
    for dtype, rows in (("float32", values), ("float64", scaled)):
        made = Tolerance(shape=(6, 5), dtype=dtype, relative=0.1)
        whole = made.distances(rows)
        for block in (1, 7, 61):
            with monkeypatch.context() as smaller:
                smaller.setattr(agreement, "_BLOCK", block)
                assert (made.distances(rows) == whole).all()


def test_no_block_takes_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of all ballots in a block: as many as fit, and at least one."""
    sizes: list[int] = []
    compare: Callable[[Any], Any] = agreement._relative_distances  # pyright: ignore[reportPrivateUsage]

    def counted(rows: Any) -> Any:
        sizes.append(rows.shape[1])
        return compare(rows)

    monkeypatch.setattr(agreement, "_relative_distances", counted)
    made = Tolerance(shape=(6, 5), dtype="float32", relative=0.1)
    values = [np.ones((6, 5), np.float32)] * 3
    for block, rows in ((1, [1] * 6), (29, [1] * 6), (30, [2] * 3), (80, [5, 1])):
        sizes.clear()
        monkeypatch.setattr(agreement, "_BLOCK", block)
        made.distances(values)
        assert sizes == rows


@pytest.mark.parametrize("row", range(4))
def test_any_row_of_a_small_array_counts(row: int) -> None:
    base = np.ones((2, 2, 3), np.float32)
    other = base.copy()
    other[row // 2, row % 2] *= -1
    agreement = Tolerance(shape=(2, 2, 3), dtype="float32", relative=0.5)
    assert agreement.distances([base, other])[0, 1] == pytest.approx(4.0)


def test_rows_too_small_to_be_squared() -> None:
    tiny = Tolerance(shape=(2, 2), dtype="float64", relative=0.5)
    rows = [np.array([[0.0, 0.0], [0.0, size]]) for size in (2.0**-600, 2.0**-601, 2.0**-1074)]
    matrix = tiny.distances(rows)
    assert matrix[0, 1] == matrix[1, 0] == 1.0
    assert matrix[0, 2] == pytest.approx(2.0)


@pytest.mark.parametrize("exponent", [-1000, -600, 600, 1000])
def test_rows_whose_squares_leave_the_range_of_floats(exponent: int) -> None:
    made = Tolerance(shape=(2,), dtype="float64", relative=0.5)
    values = [np.array(signs) * 2.0**exponent for signs in ([1.0, 1.0], [1.0, -1.0], [0.5, 0.5])]
    for ballots in (values, [*values, np.ones(2)], [*values, np.zeros(2)]):
        expected = [0.0, 2 * math.sqrt(2), 1.0]
        assert made.distances(ballots)[0, :3].tolist() == pytest.approx(expected)


def test_scalars_and_zero_rows() -> None:
    scalar = Tolerance(shape=(), dtype="float64", relative=0.1)
    ones = [np.array(1.0), np.array(1.05), np.array(0.0), np.array(5e-324), np.array(0.0)]
    matrix = scalar.distances(ones)
    assert matrix[0, 1] == pytest.approx(0.05 / 1.05 / 0.1)
    assert matrix[2, 4] == 0.0
    assert matrix[0, 2] == matrix[2, 3] == 10.0  # zero is a whole norm away from anything else


def test_usual_tolerances_are_those_of_the_specification() -> None:
    usual = {"float64": 1e-12, "float32": 3e-5, "float16": 5e-2, "bfloat16": 2e-1}
    assert usual == RELATIVE_TOLERANCE


@pytest.mark.parametrize("dtype", sorted(RELATIVE_TOLERANCE))
def test_every_dtype_has_a_default_and_reads_its_own_arrays(dtype: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    agreement = Tolerance.usual(shape=(2, 3), dtype=dtype)
    assert agreement.relative == RELATIVE_TOLERANCE[dtype]
    value = LOGITS.astype(kind)
    assert agreement.read(value) is value
    assert agreement.read(np.full((2, 3), np.nan, dtype=kind)) is None
    off = value.copy()
    off[0] *= kind.type(2) if isinstance(kind, np.dtype) else kind(2)
    assert agreement.distances([value, value.copy(), off]).tolist()[0] == pytest.approx(
        [0.0, 0.0, 0.5 / agreement.relative]
    )
    assert Argmax(shape=(2, 3)).read(value) == (1, 0)


class Malformed(NamedTuple):
    name: str
    agreement: Agreement
    value: Any


def bent(tamper: Callable[[Any], Any], base: Any = GOOD) -> Any:
    return tamper(base.copy())


def put(index: int, value: float) -> Callable[[Any], Any]:
    def tamper(array: Any) -> Any:
        array.flat[index] = value
        return array

    return tamper


TOKENS = Tokens(vocabulary=100, longest=4)
MALFORMED = [
    Malformed("a NaN in one element", VECTOR, bent(put(2, math.nan))),
    Malformed("an infinity", VECTOR, bent(put(0, math.inf))),
    Malformed("a negative infinity", VECTOR, bent(put(3, -math.inf))),
    Malformed("one element more", VECTOR, np.append(GOOD, np.float32(0))),
    Malformed("another shape of the same size", VECTOR, GOOD.reshape(2, 2)),
    Malformed("a wider dtype", VECTOR, GOOD.astype(np.float64)),
    Malformed("integers of the same width", VECTOR, GOOD.astype(np.int32)),
    Malformed("an object array", VECTOR, GOOD.astype(object)),
    Malformed("complex numbers", VECTOR, GOOD.astype(np.complex64)),
    Malformed("an empty array", VECTOR, GOOD[:0]),
    Malformed("a digest one byte short", Exact(), bytes(31)),
    Malformed("a digest with a byte more", Exact(), bytes(33)),
    Malformed("no digest at all", Exact(), b""),
    Malformed("a token beyond the vocabulary", TOKENS, [1, 100]),
    Malformed("a negative token", TOKENS, [1, -1]),
    Malformed("a token that is a boolean", TOKENS, [1, True]),
    Malformed("a token that is a float", TOKENS, [1, 2.0]),
    Malformed("more tokens than the job allows", TOKENS, [1] * 5),
    Malformed("a token in an array, beyond the vocabulary", TOKENS, np.array([1, 100])),
    Malformed("a negative token in an array", TOKENS, np.array([[1, 2], [3, -1]])),
    Malformed("more tokens in an array than the job allows", TOKENS, np.ones((2, 5), dtype=int)),
    Malformed("one sequence of a batch too long", TOKENS, [[1], [1] * 5]),
    Malformed("one token of a batch beyond the vocabulary", TOKENS, [[1], [100]]),
    Malformed("tokens beside sequences", TOKENS, [1, [2]]),
    Malformed("a batch of batches", TOKENS, [[[1]], [[2]]]),
    Malformed("tokens that are text", TOKENS, ["1", "2"]),
    Malformed("a token that is null", TOKENS, [1, None]),
    Malformed("a NaN among logits", Argmax(shape=(2, 3)), bent(put(4, math.nan), LOGITS)),
    Malformed("an infinite logit", Argmax(shape=(2, 3)), bent(put(4, math.inf), LOGITS)),
    Malformed(
        "a row of nothing but -inf", Argmax(shape=(2, 3)), np.full((2, 3), -np.inf, np.float32)
    ),
    Malformed("logits of another shape", Argmax(shape=(2, 3)), LOGITS.T),
    Malformed("integer logits", Argmax(shape=(2, 3)), LOGITS.astype(np.int32)),
]


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.name)
def test_malformed_values_agree_with_nothing(case: Malformed) -> None:
    assert case.agreement.read(case.value) is None
    assert case.agreement.candidates([None, None, None]) == []


def test_a_malformed_value_agrees_not_even_with_its_copies() -> None:
    readings = [
        VECTOR.read(v) for v in (GOOD, bent(put(0, math.nan)), GOOD, bent(put(0, math.nan)))
    ]
    assert [c.members for c in VECTOR.candidates(readings)] == [(0, 2), (0, 2)]


def test_tokens_read_alike_from_lists_and_arrays() -> None:
    assert TOKENS.read([3, 99]) == TOKENS.read(np.array([3, 99], dtype=np.uint16)) == (3, 99)
    assert TOKENS.read([]) == ()


def test_argmax_takes_the_first_of_a_tie_and_allows_masks() -> None:
    tied = np.array([[1.0, 1.0, -np.inf], [-np.inf, 0.0, 0.0]], dtype=np.float32)
    assert Argmax(shape=(2, 3)).read(tied) == (0, 1)


def test_equality_groups_all_equal_readings() -> None:
    a, b = bytes(32), bytes([1]) * 32
    found = Exact().candidates([a, b, None, a, a])
    assert found == [
        Candidate(ballot=0, members=(0, 3, 4), distances=(0.0,) * 3, score=0.0),
        Candidate(ballot=1, members=(1,), distances=(0.0,), score=0.0),
    ]


def test_a_custom_distance_is_made_symmetric_and_nan_is_far() -> None:
    lopsided = Within(
        distance=lambda a, b: 0.5 if a < b else 2.0 if a > b else 0.0,
        well_formed=lambda value: isinstance(value, float),
    )
    assert lopsided.read("hostile") is None
    assert lopsided.read(None) is None
    for values in ([1.0, 2.0], [2.0, 1.0]):
        assert lopsided.distances(values).tolist() == [[0.0, 2.0], [2.0, 0.0]]
    broken = Within(distance=lambda a, b: math.nan, well_formed=lambda value: True)
    assert broken.distances([1.0, 2.0])[0, 1] == math.inf
    assert [c.members for c in broken.candidates([1.0, 2.0])] == [(0,), (1,)]
    negative = Within(distance=lambda a, b: -1.0, well_formed=lambda value: True)
    with pytest.raises(ValueError, match="negative"):
        negative.distances([1.0, 2.0])


@pytest.mark.parametrize(
    ("agreement", "value"),
    [(VECTOR, [1.0] * 4), (Exact(), "0" * 32), (Exact(), bytearray(32)), (Argmax(shape=(3,)), [1])],
    ids=["list", "text", "bytearray", "list of logits"],
)
def test_a_value_of_the_wrong_python_type_is_the_callers_fault(
    agreement: Agreement, value: Any
) -> None:
    with pytest.raises(TypeError):
        agreement.read(value)


HELD: dict[str, Callable[[Any], Any]] = {
    "a list": list,
    "a tuple": tuple,
    "int8": lambda ids: np.array(ids, dtype=np.int8),
    "uint64": lambda ids: np.array(ids, dtype=np.uint64),
    "integers of numpy in a list": lambda ids: list(np.array(ids)),
    "JAX": jnp.array,
    "scalars of JAX in a list": lambda ids: list(jnp.array(ids)),
}


@pytest.mark.parametrize("name", HELD)
def test_tokens_are_read_from_whatever_holds_them(name: str) -> None:
    """Three honest ballots agree, whatever the decoder makes of them."""
    hold = HELD[name]
    one, batch = [1, 99, 0], [[1, 2], [3, 4]]
    assert TOKENS.read(hold(one)) == (1, 99, 0)
    assert TOKENS.read(hold(batch)) == ((1, 2), (3, 4))
    assert TOKENS.read(hold([0])) == (0,)
    assert hash(TOKENS.read(hold(batch))) == hash(((1, 2), (3, 4)))
    # A batch of one sequence is not that sequence.
    assert TOKENS.read(hold([one])) == ((1, 99, 0),) != TOKENS.read(hold(one))


def test_sequences_of_a_batch_may_differ_in_length() -> None:
    ragged = ((1,), (), (2, 3, 4, 5))
    assert TOKENS.read([[1], [], [2, 3, 4, 5]]) == ragged
    assert TOKENS.read([np.array([1]), np.array([], dtype=int), (2, 3, 4, 5)]) == ragged
    assert TOKENS.read([]) == TOKENS.read(np.array([], dtype=int)) == ()


NOT_TOKENS: dict[str, tuple[Any, str]] = {
    "an integer": (7, "int"),
    "null": (None, "NoneType"),
    "text": ("12", "str"),
    "bytes": (b"\x01\x02", "bytes"),
    "a map": ({0: 1}, "dict"),
    "a set": ({1, 2}, "set"),
    "floats": (np.ones(3), "float64 with 1 axes"),
    "floats of JAX": (jnp.ones(3), "float32 with 1 axes"),
    "booleans": (np.ones(3, dtype=bool), "bool with 1 axes"),
    "no axis": (np.array(1), "int64 with 0 axes"),
    "three axes": (np.ones((1, 1, 1), dtype=int), "int64 with 3 axes"),
    "objects": (np.array([1, 2], dtype=object), "object with 1 axes"),
}


@pytest.mark.parametrize("name", NOT_TOKENS)
def test_a_value_of_the_wrong_type_is_the_callers_mistake(name: str) -> None:
    """A TypeError, never three honest ballots called malformed."""
    value, found = NOT_TOKENS[name]
    with pytest.raises(TypeError, match=f"tokens must be a list or tuple of .*; got {found}$"):
        TOKENS.read(value)


def test_one_entry_and_one_token_are_enough() -> None:
    one = np.ones((1, 1), np.float32)
    assert Argmax(shape=(1, 1)).read(one) == (0,)
    assert Tolerance.usual(shape=(1, 1), dtype="float32").read(one) is one
    assert Tokens(vocabulary=1, longest=1).read([0]) == (0,)
    assert Exact(size=1).read(b"a") == b"a"


IMPOSSIBLE: dict[str, tuple[str, Callable[[], Any]]] = {
    "integers": ("must be a name, one of", lambda: Tolerance.usual(shape=(3,), dtype="int32")),
    "no entries": ("at least one", lambda: Tolerance.usual(shape=(0,), dtype="float32")),
    "tolerance 0": ("above 0", lambda: within(0.0)),
    "tolerance 1": ("above 0", lambda: within(1.0)),
    "tolerance below 0": ("above 0", lambda: within(-0.1)),
    "tolerance NaN": ("above 0", lambda: within(math.nan)),
    "no axis": ("at least one", lambda: Argmax(shape=())),
    "no logits": ("at least one", lambda: Argmax(shape=(3, 0))),
    "no tokens": ("at least 1", lambda: Tokens(vocabulary=0, longest=1)),
    "no length": ("at least 1", lambda: Tokens(vocabulary=1, longest=0)),
    "empty digest": ("at least 1", lambda: Exact(size=0)),
}


def within(relative: float) -> Tolerance:
    return Tolerance(shape=(3,), dtype="float32", relative=relative)


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_agreement_that_could_not_judge_cannot_be_built(name: str) -> None:
    match, make = IMPOSSIBLE[name]
    with pytest.raises(ValueError, match=match):
        make()
