"""Commitments: binding, hiding, and different for every job."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from blake3 import blake3

from protocols.messages import (
    Reveal,
)
from tests.helpers.wire import (
    ALICE_ID,
    COMMIT,
    JOB,
    MALLORY_ID,
    REVEAL,
)


def test_a_commitment_is_the_hash_of_the_specification():
    hasher = blake3(derive_key_context="verifiable v1 answer commitment")
    parts = (
        REVEAL.worker,
        REVEAL.job,
        (7).to_bytes(8, "little"),
        REVEAL.salt,
        REVEAL.value,
        REVEAL.trace_root,
        (9).to_bytes(8, "little"),
    )
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little") + part)
    assert REVEAL.commitment == COMMIT.commitment == hasher.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"worker": MALLORY_ID.id},
        {"job": b"\x09" * 32},
        {"epoch": 8},
        {"salt": b"\x09" * 32},
        {"value": b"answes"},
        {"value": b"answer\0"},
        {"trace_root": b"\x09" * 32},
        {"trace_size": 10},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_commitment_binds_every_field(change: dict[str, Any]):
    assert dataclasses.replace(REVEAL, **change).commitment != REVEAL.commitment


def test_a_fresh_reveal_hides_its_answer():
    a, b = (
        Reveal.fresh(worker=ALICE_ID.id, job=JOB, value=b"yes", trace_root=bytes(32), trace_size=1)
        for _ in range(2)
    )
    assert (a.job, a.epoch) == (JOB.digest, JOB.epoch)
    assert a.salt != b.salt
    assert a.commitment != b.commitment


def test_two_jobs_differ_by_their_nonce_alone():
    assert dataclasses.replace(JOB, nonce=bytes(32)).digest != JOB.digest
