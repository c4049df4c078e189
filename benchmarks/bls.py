"""BLS: what verification costs here, beside the bare libraries, a loop, and py_ecc.

The bare backend makes the same calls of the same libraries without a type or check of ours: decode
a key and a signature, hash, one pairing check. A loop verifies one signature after another, and
has its keys and signatures parsed beforehand, as a batch has, where the case does not say "bytes".
All of it runs on one core.
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator

from py_ecc.bls.ciphersuites import G2ProofOfPossession

from benchmarks.harness import Row, interleaved_medians
from verifiable import bls
from verifiable.bls import ProvenKey, PublicKey, SecretKey, Signature, SignedMessage, curve

CLAIM = (
    "Verifying costs at most 1.15 times the bare backend; a batch of 1,024 signatures costs at "
    "most 1/1.8 of a loop, 1/3 where 16 messages share each key"
)
DOMAIN = b"verifiable/benchmark/v1"


def rows(quick: bool) -> Iterator[Row]:
    """Measure; `quick` takes batches of 128 and few repeats."""
    size, repeats = (128, 3) if quick else (1024, 5)
    secret_keys = [SecretKey.generate(i.to_bytes(32, "big")) for i in range(size)]
    messages = [hashlib.sha256(key.public_key.encoded).digest() for key in secret_keys]
    yield from _one(secret_keys[0], messages, 20 if quick else 400)
    yield from _aggregates(secret_keys, 2 * repeats + 1)
    yield from _batches(secret_keys, messages, repeats)
    yield from _forgeries(secret_keys, messages, repeats)


def _one(secret: SecretKey, messages: list[bytes], repeats: int) -> Iterator[Row]:
    """One signature, from bytes to verdict, on a new message each time."""
    key = secret.public_key.encoded
    signed = [(m, secret.sign(m, domain=DOMAIN).encoded) for m in messages[:64]]
    for_us, for_them, bare = itertools.cycle(signed), itertools.cycle(signed), _bare()

    def ours() -> None:
        message, signature = next(for_us)
        bls.verify(PublicKey(key), message, Signature(signature), domain=DOMAIN)

    def theirs() -> None:
        message, signature = next(for_them)
        assert bare(key, bls.framed(message, DOMAIN), signature)

    medians = interleaved_medians({"verify": ours, "bare": theirs}, repeats)
    case = "verify, from bytes"
    yield Row(case, "verifiable", medians["verify"], "s")
    yield Row(case, "bare backend", medians["bare"], "s")
    yield Row(case, "ratio", medians["verify"] / medians["bare"], "1", "<= 1.15")
    message, signature = signed[0]
    framed = bls.framed(message, DOMAIN)
    pure = _few(lambda: G2ProofOfPossession.Verify(key, framed, signature), 3)  # pyright: ignore
    yield Row(case, "py_ecc", pure, "s")
    yield Row(case, "faster than py_ecc", pure / medians["verify"], "1")
    parts = {
        "sign": lambda: secret.sign(message, domain=DOMAIN),
        "parse a key": lambda: PublicKey(key),
        "parse a signature": lambda: Signature(signature),
        "hash to G2": lambda: curve.active().hash_to_g2(framed, bls.DST),
    }
    for part, seconds in interleaved_medians(parts, repeats).items():
        yield Row(part, "verifiable", seconds, "s")


def _aggregates(secret_keys: list[SecretKey], repeats: int) -> Iterator[Row]:
    """One signature of many signers on one message."""
    message, framed = b"epoch", bls.framed(b"epoch", DOMAIN)
    for count in sorted({min(128, len(secret_keys)), len(secret_keys)}):
        signers = secret_keys[:count]
        proven = [ProvenKey(key=k.public_key, possession=k.prove_possession()) for k in signers]
        encoded = [k.public_key.encoded for k in signers]
        total = bls.aggregate([k.sign(message, domain=DOMAIN) for k in signers])

        def cached() -> None:
            bls.fast_aggregate_verify(proven, message, total, domain=DOMAIN)  # noqa: B023

        def parsed() -> None:
            points = [PublicKey(data).point for data in encoded]  # noqa: B023
            key = PublicKey.from_point(curve.active().g1.sum(points))
            bls.verify(key, message, total, domain=DOMAIN)  # noqa: B023

        medians = interleaved_medians({"cached": cached, "parsed": parsed}, repeats)
        case = f"fast-aggregate-verify, {count} signers"
        yield Row(case, "keys cached", medians["cached"], "s")
        yield Row(case, "keys from bytes", medians["parsed"], "s")
        if count == 128:
            pure = _few(
                lambda: G2ProofOfPossession.FastAggregateVerify(encoded, framed, total.encoded),  # noqa: B023  # pyright: ignore
                1,
            )
            yield Row(case, "py_ecc, keys from bytes", pure, "s")
            yield Row(case, "faster than py_ecc", pure / medians["parsed"], "1")


def _batches(secret_keys: list[SecretKey], messages: list[bytes], repeats: int) -> Iterator[Row]:
    """Batches against loops: distinct keys and messages, shared keys, shared message."""
    size = len(messages)
    cases = {
        "distinct messages": ([(k, m) for k, m in zip(secret_keys, messages, strict=True)], 1.8),
        "16 messages a key": ([(secret_keys[i // 16], m) for i, m in enumerate(messages)], 3.0),
        "one message": ([(k, messages[0]) for k in secret_keys], None),
    }
    for name, (pairs, least) in cases.items():
        wire = [(k.public_key.encoded, m, k.sign(m, domain=DOMAIN).encoded) for k, m in pairs]
        batch = [SignedMessage(PublicKey(k), m, Signature(s)) for k, m, s in wire]

        def loop() -> None:
            for entry in batch:  # noqa: B023
                bls.verify(entry.key, entry.message, entry.signature, domain=DOMAIN)

        def loop_from_bytes() -> None:
            for key, message, signature in wire:  # noqa: B023
                bls.verify(PublicKey(key), message, Signature(signature), domain=DOMAIN)

        def batch_from_bytes() -> None:
            keys = {key: PublicKey(key) for key in {key for key, _, _ in wire}}  # noqa: B023
            entries = [SignedMessage(keys[k], m, Signature(s)) for k, m, s in wire]  # noqa: B023
            bls.verify_batch(entries, domain=DOMAIN)

        contestants: dict[str, Callable[[], object]] = {
            "loop": loop,
            "batch": lambda: bls.verify_batch(batch, domain=DOMAIN),  # noqa: B023
            "loop (bytes)": loop_from_bytes,
            "batch (bytes)": batch_from_bytes,
        }
        medians = interleaved_medians(contestants, repeats)
        bars = {"": f">= {least}" if least else None, " (bytes)": None}
        for suffix, bar in bars.items():
            case = f"{size}, {name}{suffix}"
            one, many = medians["loop" + suffix] / size, medians["batch" + suffix] / size
            yield Row(case, "loop, each", one, "s")
            yield Row(case, "batch, each", many, "s")
            yield Row(case, "times cheaper", one / many, "1", bar)


def _forgeries(secret_keys: list[SecretKey], messages: list[bytes], repeats: int) -> Iterator[Row]:
    """What naming forgeries costs, against a loop that names them too."""
    size = len(messages)
    honest = [
        SignedMessage(k.public_key, m, k.sign(m, domain=DOMAIN))
        for k, m in zip(secret_keys, messages, strict=True)
    ]
    forged = [
        SignedMessage(e.key, e.message, other.signature)
        for e, other in zip(honest, honest[1:] + honest[:1], strict=True)
    ]

    def loop() -> None:
        for entry in honest:
            bls.verify(entry.key, entry.message, entry.signature, domain=DOMAIN)

    contestants: dict[str, Callable[[], object]] = {"loop": loop}
    cases = {1: [size // 3], size // 64: list(range(0, size, 64)), size: list(range(size))}
    for count, spoilt in cases.items():
        batch = list(honest)
        for i in spoilt:
            batch[i] = forged[i]
        assert bls.find_invalid(batch, domain=DOMAIN).invalid == tuple(spoilt)
        contestants[f"{count} forged"] = lambda b=batch: bls.find_invalid(b, domain=DOMAIN)
    medians = interleaved_medians(contestants, max(repeats // 2, 1))
    for name, seconds in medians.items():
        if name != "loop":
            yield Row(f"{size}, {name}", "times a loop", seconds / medians["loop"], "1")


def _bare() -> Callable[[bytes, bytes, bytes], bool]:
    """Return a verification that is nothing but calls of the native libraries."""
    from py_arkworks_bls12381 import GT, G1Point, G2Point  # noqa: PLC0415

    try:
        from pyblst import BlstP2Element  # noqa: PLC0415  # pyright: ignore

        blst = BlstP2Element()
    except ImportError:
        blst = None
    minus_generator = -G1Point()

    def verify(key: bytes, message: bytes, signature: bytes) -> bool:
        if blst is None:
            hashed = G2Point.hash_to_curve(message, bls.DST)
        else:
            encoded = blst.hash_to_group(message, bls.DST).compress()
            hashed = G2Point.from_compressed_bytes_unchecked(encoded)
        points = [G1Point.from_compressed_bytes(key), minus_generator]
        return GT.pairing_check(points, [hashed, G2Point.from_compressed_bytes(signature)])

    return verify


def _few(call: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a call too slow to interleave; it must return something true."""
    seconds: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        assert call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
