"""Receipts: what one costs a coordinator, and what a device that is not audited pays for its own.

`validated` reads a receipt from bytes and applies it to its job (`protocols.audited.step`), which
waits; `with signatures` authenticates it first, as `messages.receive` does. One core, one
thread. The device runs the plain function, hashes its answer, and signs: no trace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.harness import Row, interleaved_medians
from benchmarks.killed_jobs import PARTIAL
from protocols import messages
from protocols.audited import AnswerReceipt, PartialState, ReceiptCame, start, step
from protocols.audited.device import receipt_of
from protocols.demo import models
from protocols.identities import Identity
from protocols.messages import Job, Signed

CLAIM = (
    "A core reads and validates 20,000 receipts of answers a second, 4,000 with their signatures, "
    "and a device that is not audited pays at most 1 % more than the plain run."
)
NOW, ZERO = 1_000_000, bytes(32)
RULES = replace(PARTIAL, rate=0.01)
CASES = ((768, 256, 4), (2048, 128, 4))
QUICK = ((256, 128, 2),)


def rows(quick: bool) -> Iterator[Row]:
    """Measure; `quick` takes a tenth of the receipts and a small model."""
    yield from _coordinator(2_000 if quick else 20_000)
    for width, tokens, layers in QUICK if quick else CASES:
        yield from _device(width, tokens, layers, 5 if quick else 31)


def job(number: int) -> Job:
    """A job of its own for every receipt."""
    return Job(
        coordinator=ZERO,
        epoch=7,
        nonce=number.to_bytes(32, "big"),
        expiry=NOW + 10**6,
        program=ZERO,
        parameters=ZERO,
        input=ZERO,
    )


def _coordinator(count: int) -> Iterator[Row]:
    key = Ed25519PrivateKey.generate()
    me = Identity(public_key=key.public_key().public_bytes_raw())
    known, states, sent = {me.id: me}, list[PartialState](), list[bytes]()
    for number in range(count):
        own = job(number)
        states.append(start(own, me.id, RULES, now=NOW)[0])
        receipt = AnswerReceipt(worker=me.id, job=own.digest, epoch=7, answer=ZERO)
        sent.append(messages.sign(receipt, key.sign).encode())

    def read(data: bytes) -> Signed[AnswerReceipt]:
        return Signed(message=AnswerReceipt.decode(data[:-66]), signature=data[-64:])

    def authenticate(data: bytes) -> Signed[AnswerReceipt]:
        return messages.receive(AnswerReceipt, data, known)

    case = f"{count} receipts of {len(sent[0])} bytes"
    for name, take, bar in (
        ("validated a second", read, 20_000),
        ("validated a second, with signatures", authenticate, 4_000),
    ):
        yield Row(case, name, count / _seconds(take, states, sent), "1/s", f">= {bar}")
    yield Row(case, "bytes of a signed receipt", len(sent[0]), "bytes", "<= 300")


def _seconds(
    take: Callable[[bytes], Signed[AnswerReceipt]], states: list[PartialState], sent: list[bytes]
) -> float:
    """Processor time to take all receipts, each by its own job; a refused one is an error."""
    begun = time.process_time()
    for state, data in zip(states, sent, strict=True):
        after, _ = step(state, ReceiptCame(at=NOW, receipt=take(data)))
        if after.receipt is None:
            raise RuntimeError("a receipt was refused")
    return time.process_time() - begun


def _device(width: int, tokens: int, layers: int, repeats: int) -> Iterator[Row]:
    params, forward = models.gpt(width=width, layers=layers)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((tokens, width)), jnp.float32)
    plain, key, own = jax.jit(forward), Ed25519PrivateKey.generate(), job(0)

    def run() -> Any:
        return plain(params, x).block_until_ready()

    def receipted() -> bytes:
        receipt = receipt_of(run(), worker=ZERO, job=own)
        return messages.sign(receipt, key.sign).encode()

    seconds = interleaved_medians({"plain": run, "receipt": receipted}, repeats)
    case = f"width={width} tokens={tokens} layers={layers}"
    yield Row(case, "seconds_plain", seconds["plain"], "s")
    yield Row(case, "ratio with a receipt", seconds["receipt"] / seconds["plain"], "1", "<= 1.01")
