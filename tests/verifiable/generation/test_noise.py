"""Gumbel noise from a seed: vectors, a slow oracle from the specification, and its distribution."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from blake3 import blake3

from verifiable.generation import noise

SEED = bytes(range(32))


def inverse(numerator: int, bits: int) -> np.float32:
    """-ln(-ln(numerator / 2^bits)), rounded to float32."""
    with localcontext() as context:
        context.prec = 40
        u = Decimal(numerator) / Decimal(2**bits)
        return np.float32(float(-((-(u.ln())).ln())))


def slowly(seed: bytes, position: int, vocabulary: int) -> list[np.float32]:
    """One position, as specs/generation.md says it."""
    hasher = blake3(derive_key_context="verifiable v1 generation noise")
    hasher.update(seed).update(position.to_bytes(8, "little"))
    data = hasher.digest(length=6 * vocabulary)
    digits = [data[i] | data[i + 1] << 8 for i in range(0, len(data), 2)]
    first, rest = digits[:vocabulary], iter(digits[vocabulary:])
    values = [inverse(2 * d + 1, 17) for d in first]
    tail = [token for token, d in enumerate(first) if d < 256 or d >= 65280]
    for bits in (25, 33):
        more: list[int] = []
        for token in tail:
            d = next(rest)
            part = 2 * d + 1
            values[token] = inverse(part if first[token] < 256 else 2**bits - part, bits)
            if d < 256:
                more.append(token)
        tail = more
    return values


@pytest.mark.parametrize(("position", "vocabulary"), [(0, 1), (3, 700), (2**40, 900)])
def test_the_noise_is_what_the_specification_says(position: int, vocabulary: int):
    made = noise.gumbel(SEED, 1, vocabulary, start=position)[0]
    np.testing.assert_array_equal(made, slowly(SEED, position, vocabulary))


def test_the_second_refinement_is_what_the_specification_says(monkeypatch: pytest.MonkeyPatch):
    """A stream in which all digits are low or high, so that every token is refined twice."""
    stream = [3, 65530, 255, 65280, 0, 17, 255, 200, 0, 65535, 9, 300]

    class Stream:
        def __init__(self, data: bytes, derive_key_context: str):
            assert (data, derive_key_context) == (SEED + bytes(8), noise.CONTEXT)

        def digest(self, *, length: int, seek: int) -> bytes:
            return np.asarray(stream, "<u2").tobytes()[seek : seek + length]

    noise.tables()
    monkeypatch.setattr(noise, "blake3", Stream)
    low, high = inverse(1, 33), inverse(2**33 - (2 * 65535 + 1), 33)
    expected = [low, high, inverse(2 * 9 + 1, 33), inverse(2**33 - 601, 33)]
    np.testing.assert_array_equal(noise.gumbel(SEED, 1, 4)[0], np.asarray(expected))


def test_vectors():
    """For devices in other languages; in specs/generation.md too."""
    assert noise.tables_digest(noise.tables()) == noise.TABLES_DIGEST
    made = noise.gumbel(SEED, 4, 49152)
    digest = blake3(made.astype("<f4").tobytes()).hexdigest()
    assert digest == DIGEST
    assert made[0, :4].astype(">f4").tobytes().hex(" ", 4) == FIRST


DIGEST = "03fcde5f980d54b4554d4c7d7902e844b90f0e65635d6a325e42448a3c04edf4"
FIRST = "3f8c431a 3eb59ce8 bf9c95ec bf642010"


def test_positions_do_not_depend_on_how_many_are_made():
    made = noise.gumbel(SEED, 5, 300)
    np.testing.assert_array_equal(made[2:4], noise.gumbel(SEED, 2, 300, start=2))
    assert not np.array_equal(made[0], noise.gumbel(bytes(32), 1, 300)[0])


def test_the_noise_has_the_gumbel_distribution():
    """Kolmogorov and Smirnov, at a level of 1e-4; and the upper tail, by count."""
    made = np.sort(noise.gumbel(SEED, 4, 65536).astype(np.float64).ravel())
    n = len(made)
    uniform = np.exp(-np.exp(-made))
    assert np.max(np.abs(uniform - (np.arange(n) + 0.5) / n)) < 2.23 / np.sqrt(n)
    expected = n * -np.expm1(-np.exp(-9.0))
    assert abs(np.sum(made > 9) - expected) < 5 * np.sqrt(expected)
    assert np.isfinite(made).all()


def test_tables_grow_and_meet():
    made = noise.tables()
    for table in (made.middle, *made.low):
        assert (np.diff(table) > 0).all()
    assert all((np.diff(table) < 0).all() for table in made.high)
    assert made.low[0][-1] < made.middle[256]
    assert made.high[0][-1] > made.middle[65279]
    assert made.low[1][-1] < made.low[0][256]
    assert made.high[1][-1] > made.high[0][256]


def test_another_logarithm_is_refused(monkeypatch: pytest.MonkeyPatch):
    exact = np.log1p
    noise.tables.cache_clear()
    monkeypatch.setattr(noise.np, "log1p", lambda x: exact(x) * (1 + 1e-9))
    with pytest.raises(RuntimeError, match="the logarithm of this numpy"):
        noise.tables()
    monkeypatch.undo()
    noise.tables.cache_clear()


@pytest.mark.parametrize("seed", [b"short", bytes(33)])
def test_other_seeds_are_refused(seed: bytes):
    with pytest.raises(ValueError, match="32 bytes"):
        noise.gumbel(seed, 1, 4)


def test_other_arguments_are_refused():
    with pytest.raises(TypeError, match="seed of a job must be 32 bytes"):
        noise.gumbel(32, 1, 4)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="must not be negative"):
        noise.gumbel(SEED, -1, 4)
