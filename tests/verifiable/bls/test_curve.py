"""Two libraries, one set of points: what they accept, what they hash to, what they compute."""

import functools
import secrets
import sys
from typing import Any

import py_arkworks_bls12381 as ark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiable.bls import curve
from verifiable.bls.curve import ORDER, InvalidPoint

FIELD = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab",
    16,
)
NATIVE, PLAIN = curve.Arkworks(), curve.Arkworks(blst=False)
DST = b"QUUX-V01-CS02-with-BLS12381G2_XMD:SHA-256_SSWU_RO_"


@functools.cache
def reference() -> curve.PyEcc:
    return curve.PyEcc()


def groups(name: str) -> tuple[curve.Group, curve.Group]:
    return getattr(NATIVE, name), getattr(reference(), name)


def some_point(name: str, k: int = 3**80) -> bytes:
    group = groups(name)[0]
    base = NATIVE.generator if name == "g1" else NATIVE.hash_to_g2(b"", DST)
    return group.encode(group.combine([base], [k % ORDER]))


def off_subgroup(name: str) -> bytes:
    """Return the encoding of a point on the curve that arkworks says lies outside the subgroup."""
    kind, size = (ark.G1Point, 48) if name == "g1" else (ark.G2Point, 96)
    for x in range(1, 100):
        try:
            point = kind.from_compressed_bytes_unchecked(b"\x80" + x.to_bytes(size - 1, "big"))
        except ValueError:
            continue
        if not point.is_in_subgroup():
            return point.to_compressed_bytes()
    raise AssertionError("most points of these curves lie outside the subgroup")


def flags(data: bytes, bits: int) -> bytes:
    return bytes([data[0] & 0x1F | bits << 5]) + data[1:]


def off_curve(name: str) -> bytes:
    group = groups(name)[0]
    for x in range(1, 100):
        data = b"\x80" + x.to_bytes(group.size - 1, "big")
        try:
            groups(name)[1]._from(data)
        except ValueError:
            return data
    raise AssertionError("half of all x lie off the curve")


def plus_modulus(name: str) -> bytes:
    """Return the encoding of a good point, its first coordinate increased by the modulus."""
    for k in range(1, 200):
        good = some_point(name, k)
        x = int.from_bytes(good[:48], "big") % 2**381 + FIELD
        if x < 2**381:
            return flags(x.to_bytes(48, "big"), good[0] >> 5) + good[48:]
    raise AssertionError("a fifth of all x fit")


MALFORMED = {
    "no bytes": lambda n, good: b"",
    "one byte short": lambda n, good: good[:-1],
    "one byte more": lambda n, good: good + b"\0",
    "the other group's length": lambda n, good: bytes([0x80]) + bytes(143 - len(good)),
    "a megabyte": lambda n, good: good * (1_000_000 // len(good)),
    "all zeros": lambda n, good: bytes(len(good)),
    "all ones": lambda n, good: b"\xff" * len(good),
    "without the compression flag": lambda n, good: flags(good, good[0] >> 5 & 0b011),
    "infinity flag on a point": lambda n, good: flags(good, 0b110),
    "infinity and sign flags on a point": lambda n, good: flags(good, 0b111),
    "infinity with the sign flag": lambda n, good: b"\xe0" + bytes(len(good) - 1),
    "infinity without compression": lambda n, good: b"\x40" + bytes(len(good) - 1),
    "infinity with a low bit": lambda n, good: b"\xc0" + bytes(len(good) - 2) + b"\1",
    "infinity with a high bit": lambda n, good: b"\xc1" + bytes(len(good) - 1),
    "zero without the infinity flag": lambda n, good: b"\x80" + bytes(len(good) - 1),
    "x equal to the modulus": lambda n, good: flags(FIELD.to_bytes(48, "big"), 4) + good[48:],
    "x plus the modulus": lambda n, good: plus_modulus(n),
    "flags on the second coordinate": lambda n, good: (
        good[:48] + flags(good[48:], 4) if n == "g2" else flags(good, 0b001)
    ),
    "second coordinate equal to the modulus": lambda n, good: (
        good[:48] + FIELD.to_bytes(48, "big") if n == "g2" else b"\x9f" + b"\xff" * 47
    ),
    "off the curve": lambda n, good: off_curve(n),
    "outside the subgroup": lambda n, good: off_subgroup(n),
}


@pytest.mark.parametrize("name", ["g1", "g2"])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_points_are_refused_by_both(case: str, name: str):
    data = MALFORMED[case](name, some_point(name))
    assert data != some_point(name)
    for group in groups(name):
        with pytest.raises(InvalidPoint) as caught:
            group.decode(data)
        assert caught.value.size == len(data)
        refused_unread = "must be encoded in" in str(caught.value)
        assert refused_unread == (len(data) != group.size)
        assert caught.value.data == data[:192]
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["g1", "g2"])
def test_py_ecc_alone_would_take_a_point_outside_the_subgroup(name: str):
    assert groups(name)[1]._from(off_subgroup(name)) is not None


@pytest.mark.parametrize("name", ["g1", "g2"])
def test_arkworks_alone_would_take_any_bytes_for_infinity(name: str):
    for data in (b"\xc0", b"\xff"):
        noise = data + secrets.token_bytes(groups(name)[0].size - 1)
        assert (
            groups(name)[0].encode(groups(name)[0]._decompress(noise)) == groups(name)[0].infinity
        )


@pytest.mark.parametrize("name", ["g1", "g2"])
def test_infinity_has_one_encoding(name: str):
    for group in groups(name):
        assert group.encode(group.decode(group.infinity)) == group.infinity
        assert group.affine(group.decode(group.infinity)) == bytes(2 * group.size)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(["g1", "g1", "g2"]),
    flips=st.lists(st.integers(0, 767), max_size=2),
    noise=st.binary(max_size=3),
)
def test_both_accept_the_same_bytes(name: str, flips: list[int], noise: bytes):
    data = bytearray(some_point(name))
    for bit in flips:
        data[bit % (8 * len(data)) // 8] ^= 1 << bit % 8
    data[1 : 1 + len(noise)] = noise
    accepted = []
    for group in groups(name):
        try:
            point = group.decode(bytes(data))
        except InvalidPoint:
            accepted.append(None)
        else:
            assert group.encode(point) == data
            accepted.append(group.affine(point))
    assert accepted[0] == accepted[1]


@pytest.mark.parametrize("message", [b"", b"abc", bytes(range(256)) * 5], ids=len)
@pytest.mark.parametrize("dst", [b"d", DST, b"x" * 255], ids=len)
def test_all_hash_alike(message: bytes, dst: bytes):
    hashed = {c.g2.encode(c.hash_to_g2(message, dst)) for c in (NATIVE, PLAIN, reference())}
    assert len(hashed) == 1


@settings(deadline=None, max_examples=50)
@given(message=st.binary(max_size=300), dst=st.binary(min_size=1, max_size=255))
def test_blst_hashes_like_arkworks(message: bytes, dst: bytes):
    pytest.importorskip("pyblst")
    assert NATIVE.hash_to_g2(message, dst) == PLAIN.hash_to_g2(message, dst)


@pytest.mark.parametrize("name", ["g1", "g2"])
def test_both_add_and_multiply_alike(name: str):
    encoded = [some_point(name, k) for k in (1, 5**60, 7**90)]
    results = []
    for group in groups(name):
        points = [group.decode(data) for data in encoded]
        sums = [group.sum(points[:n]) for n in (1, 2, 3)]
        for n in (1, 2, 3):
            combined = group.combine(points[:n], [1, 2**128 - 1, ORDER - 1][:n])
            sums.append(combined)
        results.append([(group.encode(p), group.affine(p)) for p in sums])
    assert results[0] == results[1]


@pytest.mark.parametrize("size", [1, 2, 3, 17])
def test_a_combination_is_the_sum_of_multiples(size: int):
    group = NATIVE.g2
    points = [NATIVE.hash_to_g2(bytes([i]), DST) for i in range(size)]
    scalars = [secrets.randbelow(ORDER) for _ in points]
    single = [group.combine([p], [k]) for p, k in zip(points, scalars, strict=True)]
    assert group.combine(points, scalars) == group.sum(single)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_lists_of_different_lengths_are_refused(size: int):
    points = [NATIVE.generator] * size
    for wrong in (size - 1, size + 1):
        with pytest.raises(ValueError, match=r".+"):
            NATIVE.g1.combine(points, [1] * wrong)
        with pytest.raises(ValueError, match=r".+"):
            NATIVE.pairing_equation(
                points, [NATIVE.hash_to_g2(b"", DST)] * wrong, NATIVE.hash_to_g2(b"", DST)
            )


def test_the_pairing_equation_is_bilinear_on_both():
    for c in (NATIVE, reference()):
        q = c.hash_to_g2(b"q", DST)
        two, five = c.g1.combine([c.generator], [2]), c.g2.combine([q], [5])
        assert c.pairing_equation([two], [five], c.g2.combine([q], [10]))
        assert not c.pairing_equation([two], [five], c.g2.combine([q], [11]))
        infinity = c.g2.decode(c.g2.infinity)
        assert c.pairing_equation([c.g1.decode(c.g1.infinity)], [q], infinity)


def test_points_do_not_cross_libraries():
    with pytest.raises(TypeError):
        NATIVE.g1.sum([NATIVE.generator, reference().generator])
    with pytest.raises(TypeError):
        reference().g1.encode(NATIVE.generator)


def test_using_is_undone_even_after_an_error():
    before = curve.active()
    with pytest.raises(KeyError), curve.using(PLAIN):
        assert curve.active() is PLAIN
        raise KeyError
    assert curve.active() is before is curve.default()
    assert before.name == "py_arkworks_bls12381"


@pytest.mark.parametrize(("told", "hashes"), [({}, 1), ({"blst": True}, 1), ({"blst": False}, 0)])
def test_blst_hashes_where_it_is_installed(
    told: dict[str, bool], hashes: int, monkeypatch: pytest.MonkeyPatch
):
    pyblst = pytest.importorskip("pyblst")
    element, hashed = pyblst.BlstP2Element, list[bytes]()

    class Watched:
        def hash_to_group(self, message: bytes, dst: bytes) -> Any:
            hashed.append(message)
            return element().hash_to_group(message, dst)

    monkeypatch.setattr(pyblst, "BlstP2Element", Watched)
    curve.Arkworks(**told).hash_to_g2(b"m", DST)
    assert hashed == [b"m"] * hashes


def test_without_blst_arkworks_hashes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyblst", None)
    assert curve.Arkworks().hash_to_g2(b"m", DST) == PLAIN.hash_to_g2(b"m", DST)


def test_without_a_native_library_py_ecc_serves_with_a_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "py_arkworks_bls12381", None)
    with pytest.warns(RuntimeWarning, match="pure Python") as warned:
        fallback = curve.default.__wrapped__()
    assert warned[0].filename == __file__
    assert fallback.name == "py_ecc"
