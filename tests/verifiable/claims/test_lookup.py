"""Lookups: fingerprints of bits, in every mode of a gather, in place of the table."""

from __future__ import annotations

import functools
import itertools
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.lax import GatherScatterMode

import verifiable as vf
from tests.helpers.programs import FEW, SECRET, Case
from verifiable.challenge import Beacon, CommitmentLog, public
from verifiable.check.judging.evidence import evidence_of, verify_evidence
from verifiable.check.judging.spread import distances
from verifiable.claims.form import Yardstick
from verifiable.claims.lookup import Lookup, bits_of, fingerprints, saves
from verifiable.claims.products import freivalds
from verifiable.claims.statistic import Deviation
from verifiable.field import F61, Field
from verifiable.report import Report, Verdict

INF = math.inf
ROWS, WIDTH, PLACES = 96, 8, 4
RNG = np.random.default_rng(31)
NONE = int(np.iinfo(np.int32).min)


def normal(*shape: int, dtype: Any = np.float32) -> Any:
    return RNG.standard_normal(shape).astype(dtype)


PARAMS = {
    "table": normal(ROWS, WIDTH),
    "turned": normal(WIDTH, ROWS),
    "half": normal(ROWS, WIDTH, dtype=np.float16),
    "bfloat": normal(ROWS, WIDTH, dtype=jnp.bfloat16),
    "whole": RNG.integers(-9, 9, (ROWS, 2 * WIDTH), np.int8),
    "grid": normal(8, 12, WIDTH),
    "layers": normal(2, ROWS, WIDTH),
    "experts": normal(40, WIDTH, WIDTH),
    "wide": normal(ROWS, 64),
}
INDEX = np.array([5, 0, 95, 40], np.int32)
BEYOND = np.array([5, 96, -97, -1], np.int32)  # -1 is the last row: JAX counts from the end
X = normal(PLACES, WIDTH)


def where(p: Any, mode: Any, i: Any, **fill: Any) -> Any:
    return p["table"].at[i].get(mode=mode, **fill)


def lookups(p: Any, i: Any, j: Any, x: Any) -> dict[str, Any]:
    """Every way to look up rows; j has indices beyond the table."""
    steps = lax.scan(lambda c, w: (c + 1, w[i] * 2), jnp.int32(0), p["layers"])[1]
    branch = lax.cond(i[0] > 3, lambda: p["table"][i + 1], lambda: p["table"][i] * 2)
    return {
        "plain": p["table"][i] + 1,
        "clip": where(p, "clip", j),
        "fill": jnp.nan_to_num(where(p, "fill", j)),
        "zero": where(p, "fill", j, fill_value=0.0),
        "promise": where(p, "promise_in_bounds", i),
        "broken": where(p, "promise_in_bounds", j),
        "one": p["table"][i[2]],
        "turned": p["turned"].T[i] + 1,
        "columns": p["turned"][:, i] + 1,
        "half": p["half"].astype(jnp.float32)[i],
        "bfloat": p["bfloat"][i],
        "whole": jnp.take(p["whole"], j, axis=0, mode="fill"),
        "grid": p["grid"][i % 8, i % 12],
        "mapped": jax.vmap(lambda w, i: w[i])(p["layers"], jnp.stack([i, i + 1])),
        "scanned": steps,
        "branch": branch,
        "decided": p["table"][jnp.argmax(jnp.sin(x), -1)],
    }


@functools.cache
def case() -> Case:
    return Case(lookups, PARAMS, INDEX, BEYOND, X)


@functools.cache
def named() -> dict[str, int]:
    """Indices of the claims of lookups, by the output that they lead to."""
    found = [c.index for c in case().program.claims if isinstance(c.form, Lookup)]
    order = (
        "scanned other branch plain clip fill zero promise broken one turned columns half bfloat "
    )
    order += "whole grid mapped decided"
    return dict(zip(order.split(), found, strict=True))


def judged(name: str, change: Callable[[Any], None]) -> Report:
    return case().check(claims=case().changed(named()[name], change))


def result(report: Report, name: str) -> Any:
    return report.results[named()[name]]


def test_honest_rows_are_accepted_compiled_and_op_by_op():
    report = case().check()
    report.require()
    assert result(report, "plain").row in range(PLACES)
    y, trace = case().op_by_op()
    case().check(y, trace.values).require()


def test_rows_are_committed_in_the_stored_type_and_no_table_is_kept():
    types = {name: case().program.claims[i].dtype.name for name, i in named().items()}
    assert types["half"] == "float16"
    assert types["bfloat"] == "bfloat16"
    assert types["whole"] == "int8"
    assert types["plain"] == "float32"
    assert not [name for name in case().key.arrays if name.startswith("kept/")]
    # One fingerprint serves all lookups of a table.
    assert len([n for n in case().key.arrays if n.startswith("projected/")]) == 9
    assert "row of a parameter table" in str(case().program)


def other(rows: Any) -> None:
    """The row of another index."""
    rows[..., 0, :], rows[..., 1, :] = rows[..., 1, :].copy(), rows[..., 0, :].copy()


def last_bit(rows: Any) -> None:
    rows.reshape(-1).view(f"u{rows.dtype.itemsize}")[3] ^= 1


def last_row(rows: Any) -> None:
    rows[-1] = np.asarray(PARAMS["table"])[7]


def negated(rows: Any) -> None:
    rows[...] = -rows


CHEATS = {
    "the row of another index": ("plain", other),
    "one bit": ("plain", last_bit),
    "the nearest row where an index is below the table, in clip": ("clip", other),
    "a row where the index is beyond, filled with NaN": ("fill", last_row),
    "the last row as if negative indices were beyond": ("clip", last_row),
    "a row where the index is beyond, filled with zero": ("zero", lambda c: put(c, 1, 1.0)),
    "the smallest number where integers are filled": ("whole", lambda c: put(c, 1, 0)),
    "a promised row": ("promise", other),
    "the only row": ("one", lambda c: put(c.reshape(-1), 3, 0.0)),
    "a row of a table stored transposed": ("turned", other),
    "a column": ("columns", lambda c: put(c.T, 0, c.T[1].copy())),
    "a bit of a narrow type that is widened": ("half", last_bit),
    "a bit of bfloat16": ("bfloat", last_bit),
    "a row of two indices": ("grid", other),
    "a row of another layer": ("scanned", lambda c: put(c, 0, c[1].copy())),
    "a row of another table of a batch": ("mapped", lambda c: put(c, 0, c[1].copy())),
    "a row in a branch": ("branch", other),
    "a row of another choice": ("decided", other),
    "all rows": ("plain", negated),
    "a number where NaN is": ("fill", lambda c: put(c, (1, 2), 0.5)),
}


def put(array: Any, position: Any, value: Any) -> None:
    array[position] = value


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_wrong_row_is_rejected(cheat: str):
    name, change = CHEATS[cheat]
    found = judged(name, change)
    assert found.verdict is Verdict.REJECT
    assert result(found, name).reason == "lookup-mismatch"


def test_the_wrong_row_is_named():
    assert result(judged("plain", lambda c: put(c, (2, 3), 0.0)), "plain").row == 2
    found = result(judged("scanned", lambda c: put(c, (1, 3, 0), 0.0)), "scanned")
    assert (found.trip, found.row) == (1, 3)


def test_a_row_of_an_index_that_breaks_a_promise_decides_nothing():
    found = judged("broken", lambda c: put(c, 1, 0.0))
    assert found.verdict is not Verdict.REJECT or found.reason == "output-mismatch"
    assert result(found, "broken").reason == "undefined-operand"
    assert result(judged("broken", lambda c: put(c, 0, 0.0)), "broken").reason == "lookup-mismatch"


def test_an_index_far_below_a_slice_stands_for_the_first_row():
    def fn(p: Any, i: Any) -> Any:
        return lax.dynamic_slice(p["table"], (i, 0), (1, WIDTH)) * 2

    made = Case(fn, PARAMS, np.int32(-ROWS - 5))  # JAX adds the length once, and then clamps
    made.check().require()
    assert np.array_equal(made.trace.values[0][0], PARAMS["table"][0])

    def counted_twice(rows: Any) -> None:
        rows[0] = PARAMS["table"][-5]

    assert made.check(claims=made.changed(0, counted_twice)).reason == "lookup-mismatch"


def test_evidence_of_a_wrong_row_convicts_and_of_a_right_one_does_not():
    small = Case(lambda p, i: jnp.sin(p["table"][i]), PARAMS, INDEX)
    arguments = small.params, *small.inputs
    honest = small.program.prove(*arguments)
    wrong = [np.array(c) for c in honest.trace.values]
    wrong[0][2] = wrong[0][1]
    y = np.sin(wrong[0])
    root = vf.trace.commit(y, vf.trace.Trace(values=tuple(wrong))).commitment
    sent = vf.Submission(
        y=y,
        trace=vf.trace.Trace(values=tuple(wrong)),
        commitment=root,
        program=honest.program,
        parameters=honest.parameters,
    )
    report = small.program.verify(small.key, INDEX, sent, commitment=root)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "lookup-mismatch")
    found = evidence_of(small.program, report, sent)
    assert verify_evidence(found, small.program, *arguments).guilty
    elsewhere = evidence_of(small.program, report, sent)
    object.__setattr__(elsewhere, "row", 1)
    assert not verify_evidence(elsewhere, small.program, *arguments).guilty


def test_a_lookup_is_measured_by_nothing_but_equality():
    """Of distances; a wrong row is infinitely far, without a slack, a size of one."""
    small = Case(lambda p, i: jnp.sin(p["table"][i]), PARAMS, INDEX)
    [claim] = small.program.claims
    form, rows = claim.form, np.array(small.trace.values[0])
    assert isinstance(form, Lookup)
    assert form.copies == 0
    assert form.row_width(rows.shape) == 1
    rows[2, 3] += 1
    with jax.enable_x64(True):
        found = form.deviate_exactly(form.choice, [INDEX[:, None]], PARAMS["table"], rows, 0.0)
    found = Deviation(*(np.asarray(x) for x in found))
    assert distances(found, found.expected).tolist() == [0, 0, math.inf, 0]
    assert found.limit.tolist() == [0] * PLACES
    assert found.scale.tolist() == [1] * PLACES


@pytest.mark.parametrize("name", ["plain", "fill", "broken"])
def test_fingerprints_find_what_the_rows_themselves_show(name: str):
    """One wrong row, or none, of each place: who has the key and who has the table agree."""
    index, form = named()[name], case().program.claims[named()[name]].form
    assert isinstance(form, Lookup)
    given: Any = INDEX if name == "plain" else np.where(BEYOND == -1, ROWS - 1, BEYOND)
    rows = np.array(case().trace.values[index])
    sent = np.stack([rows] * (PLACES + 1))
    for place in range(PLACES):
        sent[place, place, 5] = 0.5

    def both(claim: Any) -> Any:
        known = replace(yardstick, projection=form.project(table, yardstick))
        exactly = form.deviate_exactly(form.choice, places, table, claim, 0.0)
        return form.test(places, claim, known), form.deviate(places, claim, known), exactly

    with jax.enable_x64(True):
        table, places = jnp.asarray(PARAMS["table"]), [jnp.asarray(given[:, None])]
        vectors = freivalds.vectors(SECRET, form.vectors, 1)
        yardstick = Yardstick(eps=0.0, vectors=jnp.asarray(vectors))
        found, mine, theirs = jax.tree.map(np.asarray, jax.jit(jax.vmap(both))(sent))
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    free = (name == "broken") & (BEYOND != 5) & (BEYOND != -1)
    wrong = np.eye(PLACES + 1, PLACES, dtype=bool)
    np.testing.assert_array_equal(np.isnan(mine.expected[..., 0]), [free] * (PLACES + 1))
    for ends in (mine.low, mine.high):
        np.testing.assert_array_equal(ends[:, ~free, 0], np.where(wrong, INF, 0)[:, ~free])
    assert not np.any(mine.limit)
    assert np.all(mine.scale == 1)
    fails = [place for place in range(PLACES) if not free[place]]
    assert found.worst.tolist() == [INF if i in fails else 0 for i in range(PLACES + 1)]
    assert found.passed.tolist() == [i not in fails for i in range(PLACES + 1)]
    assert found.row[fails].tolist() == fails
    assert np.all(found.row < PLACES)
    assert found.defined[:PLACES].tolist() == (~free).tolist()


def test_bits_that_devices_may_change_are_the_same():
    """Signs of zeros, payloads of NaN, and numbers that are flushed to zero, of types that are."""
    for dtype, bits in ((np.float32, 32), (jnp.bfloat16, 16), (np.float16, 16), (np.float64, 64)):
        info = jnp.finfo(dtype)
        with jax.enable_x64(True):
            raw = np.dtype(f"u{bits // 8}")
            nan = np.asarray(np.nan, dtype).view(raw)
            x = np.array([0, -0.0, np.nan, info.smallest_subnormal], dtype)
            numbers = np.array([1, -1, np.inf, -np.inf, info.max, info.min, info.tiny], dtype)
            payload = np.array([nan | 1 << (bits - 1), nan + 1], raw).view(dtype)
            zero, minus, none, tiny = (int(b) for b in bits_of(x))
            assert zero == minus
            assert all(int(b) == none for b in bits_of(payload))
            assert (tiny == zero) == (dtype is not np.float16)
            assert len({zero, none}) == 2
            assert bits_of(numbers).tolist() == numbers.view(raw).tolist()


def test_small_floats_without_infinity_have_one_bit_pattern_for_what_is_no_number():
    x = np.array([1.0, -1.0, 448.0, 0.0, -0.0, np.nan, -np.nan], jnp.float8_e4m3fn)
    with jax.enable_x64(True):
        bits = np.asarray(bits_of(x))
    assert bits.tolist() == [0x38, 0xB8, 0x7E, 0, 0, 0x7F, 0x7F]


def test_looked_up_rows_have_no_numbers_that_devices_may_flush():
    form = case().program.claims[named()["plain"]].form
    rows = np.zeros((PLACES, WIDTH), np.float32)
    rows[0, :6] = [1e-40, -1e-40, 1e-37, -0.0, np.inf, 2.0]
    with jax.enable_x64(True):
        found = np.asarray(form.unpack(jnp.asarray(rows)))
    assert found.dtype == rows.dtype
    rows[0, :2] = 0.0, -0.0
    assert np.array_equal(found.view(np.uint32), rows.view(np.uint32))


def slow_bits(value: float) -> int:
    """The bits of a float32, by the spec."""
    [bits] = struct.unpack("<I", struct.pack("<f", value))
    sign_free = bits & 0x7FFFFFFF
    if sign_free > 0x7F800000:
        return 0x7FC00000
    return bits if sign_free >= 0x00800000 else 0


@settings(max_examples=30)
@given(
    rows=st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_fingerprints_are_those_of_the_spec(rows: list[list[float]], seed: int):
    g = np.random.default_rng(seed).integers(0, F61.p, (6, 2), np.uint64)
    with jax.enable_x64(True):
        found = np.asarray(fingerprints(jnp.asarray(rows, jnp.float32), jnp.asarray(g)))
    for row, theirs in zip(rows, found, strict=True):
        bits = [slow_bits(v) for v in row]
        words = [w for b in bits for w in (b & 0xFFFF, b >> 16)]
        for draw in range(2):
            total = sum(w * int(g[k, draw]) for k, w in enumerate(words))
            assert int(theirs[draw]) == total % F61.p


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32", "uint64", "bfloat16"])
def test_words_are_the_bits_of_an_element_from_the_lowest(dtype: str):
    kind = jnp.dtype(dtype)
    size, most = kind.itemsize, {"bool": 2, "bfloat16": 120}.get(dtype, 256)
    raw = RNG.integers(most // 8, most, (3, 2, size), np.uint8)
    g = RNG.integers(0, F61.p, (2 * -(-size // 2), 1), np.uint64)
    with jax.enable_x64(True):
        found = np.asarray(fingerprints(jnp.asarray(raw.view(kind)[..., 0]), jnp.asarray(g)))
    for row, theirs in zip(raw, found, strict=True):
        words = [int.from_bytes(x[i : i + 2], "little") for x in row for i in range(0, size, 2)]
        total = sum(w * int(r) for w, r in zip(words, g[:, 0], strict=True))
        assert int(theirs[0]) == total % F61.p


def test_a_table_longer_than_a_piece_has_the_same_fingerprints():
    with jax.enable_x64(True):
        x = RNG.integers(0, 99, (5000, 2), np.int64)
        g = RNG.integers(0, F61.p, (8, 1), np.uint64)
        found = fingerprints(jnp.asarray(x), jnp.asarray(g))
        assert np.array_equal(found[4990:], fingerprints(jnp.asarray(x[4990:]), jnp.asarray(g)))


def test_a_wrong_row_passes_for_one_vector_in_p():
    """Of all vectors over a tiny field: the bound 1 / p is reached, and not passed."""
    tiny = Field(5)
    every = np.array(list(itertools.product(range(tiny.p), repeat=2)), np.uint64).T
    right, wrong = np.array([[3, 9]], np.uint8), np.array([[14, 2]], np.uint8)
    with jax.enable_x64(True):
        mine, theirs = (
            fingerprints(jnp.asarray(x), jnp.asarray(every), tiny) for x in (right, wrong)
        )
    assert np.count_nonzero(mine == theirs) == every.shape[1] / tiny.p


def test_who_knows_the_vectors_passes_so_fingerprints_are_secret():
    with jax.enable_x64(True):
        g = jnp.asarray([[2], [4]], jnp.uint64)
        two, other = (fingerprints(jnp.asarray([x], jnp.uint8), g) for x in ([6, 1], [4, 2]))
    assert np.array_equal(two, other)


def test_a_public_challenge_has_two_draws():
    small = Case(lambda p, i: p["table"][i] + 1, PARAMS, INDEX)
    log = CommitmentLog()
    log.append(bytes(32))
    closed = log.close(chain="c", closed_at=1)
    ids = {"program": small.program.id, "policy": FEW.id, "parameters": bytes(32)}
    drawn = public(closed, Beacon(chain="c", round=2, value=bytes(32)), **ids)
    key = small.program.setup(PARAMS, drawn)
    [image] = [x for n, x in key.arrays.items() if n.startswith("projected/")]
    assert image.shape == (ROWS, 2)
    check = functools.partial(small.program.check, key, INDEX, y=small.y)
    check(trace=small.trace).require()
    assert check(trace=small.changed(0, other)).reason == "lookup-mismatch"


def test_what_is_no_lookup_keeps_the_table():
    def fn(p: Any, i: Any, x: Any) -> Any:
        small = p["table"][:9][i]
        parts = lax.gather(
            p["table"],
            i[:, None],
            lax.GatherDimensionNumbers((1,), (0,), (0,)),
            slice_sizes=(1, WIDTH - 1),
            mode="clip",
        )
        computed = jnp.sin(p["table"])[i]
        matrices = jnp.einsum("td,tdf->tf", x, p["experts"][i % 9])
        other = where(p, GatherScatterMode.ONE_HOT, i)
        return small, parts, computed, matrices, p["table"][:, 0][i], other

    made = vf.compile(fn, PARAMS, INDEX, X, policy=FEW)
    assert not [c for c in made.claims if isinstance(c.form, Lookup)]


def matrices(fn: Callable[[Any], Any]) -> int:
    """How many claims of lookups matrices have, which a function takes them to."""
    made = vf.compile(lambda p, i: fn(p["experts"][i % 40]), PARAMS, INDEX, policy=FEW)
    return sum(isinstance(c.form, Lookup) for c in made.claims)


def test_matrices_are_looked_up_unless_a_product_picks_them():
    """By itself, turned round or in another type; what is computed of them is picked by none."""
    x = jnp.asarray(X)
    products: tuple[Callable[[Any], Any], ...] = (
        lambda m: jnp.einsum("td,tdf->tf", x, m)[:, None],
        lambda m: jnp.einsum("td,tfd->tf", x, m.swapaxes(1, 2))[:, None],
        lambda m: jnp.einsum("td,tdf->tf", x.astype(jnp.bfloat16), m.astype(jnp.bfloat16))[:, None],
    )
    assert [matrices(fn) for fn in products] == [0, 0, 0]
    pairs = lambda p, i, x: jnp.einsum("td,tdf->tf", x[:, :2], p[i])  # noqa: E731
    made = vf.compile(pairs, normal(ROWS, 2, WIDTH), INDEX, X, policy=FEW)
    assert not any(isinstance(c.form, Lookup) for c in made.claims)
    assert matrices(lambda m: m * 2) == 1
    assert matrices(lambda m: jnp.einsum("td,tdf->tf", x, jnp.sin(m))[:, None]) == 1


@pytest.mark.parametrize("shape", [(ROWS, 1, 64), (ROWS, 64, 1)])
def test_vectors_that_a_product_reads_are_looked_up(shape: tuple[int, ...]):
    """Whatever dimensions of length one they have besides."""
    table = PARAMS["wide"].reshape(shape)
    made = vf.compile(lambda p, i: p[i].reshape(PLACES, 64) @ jnp.ones((64, 8)), table, INDEX)
    assert [isinstance(c.form, Lookup) for c in made.claims][:1] == [True]


def test_the_device_computes_no_row_only_once():
    """A gathered row has no rounding that a compiler could repeat otherwise: no barrier is made."""
    made = vf.compile(lambda p, i: jnp.sin(p["table"][i]), PARAMS, INDEX, policy=FEW)
    assert [isinstance(c.form, Lookup) for c in made.claims] == [True]
    assert "barrier" not in str(jax.make_jaxpr(made.execute)(PARAMS, INDEX))


STORED: dict[str, tuple[Callable[..., Any], str]] = {
    "integers that were computed": (
        lambda p, i: (p["whole"].astype(jnp.int32) + 1000)[i],
        "int32",
    ),
    "truth values that were computed": (lambda p, i: (p["whole"] > 0)[i], "bool"),
    "eight bits with the exponents of sixteen": (
        lambda p, i: p["wide"].astype(jnp.float8_e5m2).astype(jnp.float16)[i],
        "float8_e5m2",
    ),
    "integers that were widened": (lambda p, i: p["whole"].astype(jnp.int32)[i], "int8"),
    "integers that were widened twice, and moved": (
        lambda p, i: p["whole"].astype(jnp.int16)[:, :, None].astype(jnp.int32)[i, :, 0],
        "int8",
    ),
    "integers with another sign": (lambda p, i: p["whole"].astype(jnp.uint32)[i], "uint32"),
    "truth values as integers": (lambda p, i: (p["whole"] > 0).astype(jnp.int32)[i], "int32"),
    "numbers that were widened, of no number beyond": (
        lambda p, i: where({"table": p["half"].astype(jnp.float32)}, "fill", i),
        "float16",
    ),
    "numbers with as large an exponent": (
        lambda p, i: p["bfloat"].astype(jnp.float32)[i],
        "bfloat16",
    ),
    "half precision in a type with fewer digits": (
        lambda p, i: p["half"].astype(jnp.bfloat16)[i],
        "bfloat16",
    ),
    "half precision in a type with a smaller exponent": (
        lambda p, i: p["bfloat"].astype(jnp.float16)[i],
        "float16",
    ),
    "integers as floats": (lambda p, i: p["whole"].astype(jnp.float32)[i], "float32"),
    "narrowed": (lambda p, i: p["table"].astype(jnp.bfloat16)[i], "bfloat16"),
    "filled with what the narrow type has": (
        lambda p, i: where({"table": p["half"].astype(jnp.float32)}, "fill", i, fill_value=7.0),
        "float16",
    ),
    "filled with what only the wide type has": (
        lambda p, i: where({"table": p["half"].astype(jnp.float32)}, "fill", i, fill_value=7e4),
        "float32",
    ),
    "filled with what the narrow type would round": (
        lambda p, i: where({"table": p["bfloat"].astype(jnp.float32)}, "fill", i, fill_value=0.1),
        "float32",
    ),
    "bits, true beyond": (lambda p, i: where({"table": p["whole"] > 0}, "fill", i), "bool"),
    "unsigned, the largest number beyond": (
        lambda p, i: where({"table": p["whole"].astype(jnp.uint8)}, "fill", i),
        "uint8",
    ),
}


@pytest.mark.parametrize("name", STORED)
def test_rows_are_committed_in_the_narrowest_type_that_holds_them_all(name: str):
    fn, dtype = STORED[name]
    made = vf.compile(fn, PARAMS, INDEX, policy=FEW)
    [found] = [c.dtype.name for c in made.claims if isinstance(c.form, Lookup)]
    assert found == dtype


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_rows_of_integers_of_64_bits_are_looked_up(dtype: str):
    table = RNG.integers(0, 2**62, (ROWS, WIDTH)).astype(dtype)
    with jax.enable_x64(True):
        made = vf.compile(lambda p, i: p[i], table, INDEX, policy=FEW)
    [found] = [c.dtype.name for c in made.claims if isinstance(c.form, Lookup)]
    assert found == dtype


def test_a_table_that_is_also_multiplied_is_shared():
    def tied(p: Any, i: Any) -> Any:
        return jnp.tanh(p["wide"][i]) @ p["wide"].T

    made = Case(tied, PARAMS, INDEX)
    assert [c.primitive for c in made.program.claims] == ["gather", "dot_general"]
    made.check().require()
    assert made.check(claims=made.changed(0, other)).reason == "lookup-mismatch"
    assert not [name for name in made.key.arrays if name.startswith("kept/")]


def test_rows_and_columns_of_a_square_have_fingerprints_of_their_own():
    made = Case(lambda p, i: (p[i] + 1, p[:, i] + 1), normal(64, 64), INDEX % 64)
    assert [isinstance(c.form, Lookup) for c in made.program.claims] == [True, True]
    made.check().require()


def test_lengths_of_a_family_share_a_fingerprint():
    def fn(p: Any, i: Any) -> Any:
        return p["table"][i] * 2

    family = vf.compile_family(fn, PARAMS, (INDEX[:2],), (INDEX,), policy=FEW)
    key = family.setup(PARAMS, SECRET)
    assert len(key.arrays) == 2
    for member, i in zip(family.members, (INDEX[:2], INDEX), strict=True):
        sent = member.prove(PARAMS, i)
        family.verify(key, i, sent, commitment=sent.commitment).require()


def test_a_lookup_is_made_where_it_saves_bytes():
    assert saves(49_152, 2304, 128)
    assert saves(30_522, 1536, 4096)
    assert not saves(512, 1536, 128)  # positions
    assert not saves(32, 48, 32 * 32)  # buckets, in a matrix of places
    assert not saves(10**6, 8, 1)  # a row is no longer than its fingerprint
    assert not saves(8 * 5, 16, 5)
    assert saves(8 * 5 + 1, 16, 5)


@pytest.mark.parametrize("trips", [1, 3])
def test_rows_and_places_of_all_trips_count(trips: int):
    """Of a table of four floats a row, which is read in every trip: eight rows are one gathered."""

    def fn(p: Any, i: Any) -> Any:
        add = lambda sums, _: ([c + each[i] for c, each in zip(sums, p, strict=True)], None)  # noqa: E731
        return lax.scan(add, [jnp.zeros((5, 4))] * 2, length=trips)[0]

    tables = [normal(8 * 5 * trips + more, 4) for more in (0, 1)]
    made = vf.compile(fn, tables, np.arange(5, dtype=np.int32), policy=FEW)
    [found] = [c.form for c in made.claims if isinstance(c.form, Lookup)]
    assert found.table_layout.shape == (8 * 5 * trips + 1, 4)


def test_a_table_of_each_trip_counts_as_often_as_it_is_read():
    tables = [normal(3, 8 * 5, 4), normal(3, 8 * 5 + 1, 4)]

    def fn(p: Any, i: Any) -> Any:
        return [lax.scan(lambda c, w: (c + w[i], None), jnp.zeros((5, 4)), each)[0] for each in p]

    made = vf.compile(fn, tables, np.arange(5, dtype=np.int32), policy=FEW)
    [found] = [c.form for c in made.claims if isinstance(c.form, Lookup)]
    assert found.table_layout.shape == (8 * 5 + 1, 4)
