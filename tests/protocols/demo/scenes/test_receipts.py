"""The fourth scene: receipts of all workers, audits of two, and the bytes of both."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from protocols import audited
from protocols.demo import devices, models
from protocols.demo.models import networks
from protocols.demo.scenes import receipts
from protocols.demo.scenes.scene import Progress, in_layers, prepare
from protocols.identities import Identity

SEED = bytes(range(32))


@functools.cache
def job() -> devices.DemoJob:
    return prepare(models.small_transformer(0, width=64, layers=2), ["a", "the cat", "by the sea"])


@functools.cache
def played() -> tuple[receipts.ReceiptsSceneEvent, ...]:
    return tuple(receipts.play(job(), seed=SEED))


def end() -> receipts.ReceiptsSummary:
    *_, last = played()
    assert isinstance(last, receipts.ReceiptsSummary)
    return last


def test_the_scan_over_stacked_layers_is_the_same_function():
    model, (ids, mask) = job().model, job().inputs
    scanned = in_layers(job()).model
    written = jax.jit(model.encode)(model.params, ids, mask)
    np.testing.assert_allclose(
        jax.jit(scanned.encode)(scanned.params, ids, mask), written, rtol=1e-4, atol=1e-6
    )
    params, forward = models.gpt(width=64, layers=2, head=32)
    x = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    np.testing.assert_allclose(
        networks.decode_scanned(networks.stacked(params, 2), x, heads=2),
        forward(params, x),
        rtol=1e-4,
        atol=1e-5,
    )


def test_new_workers_are_audited_in_part_and_the_cheat_is_rejected():
    found = {o.part.name: (o.audited, o.outcome) for o in end().outcomes}
    assert found == {
        "Hal": (True, "passed"),
        "Ivy": (True, "rejected"),
        **dict.fromkeys(("Jo", "Kai", "Lea", "Max"), (False, "unaudited")),
    }
    assert end().right
    detection = end().detection
    assert detection is not None
    assert (detection.layers, detection.audited) == (2, 1)
    assert (detection.rows, detection.audited_rows) == (3, 1)


def test_receipts_are_small_and_openings_are_a_part():
    outcomes, answer = end().outcomes, 3 * 64 * 4
    for outcome in outcomes:
        if outcome.audited:
            assert answer + 600 < outcome.sent < end().whole / 2
        else:
            assert 0 < outcome.sent - answer < 300
    assert end().sent == sum(o.sent for o in outcomes)
    assert end().sent < 6 * end().whole / 4


def test_every_piece_of_work_is_announced():
    steps = [event for event in played() if isinstance(event, Progress)]
    assert [step.done for step in steps] == list(range(len(steps)))
    assert {step.total for step in steps} == {len(steps)}


def test_an_outcome_is_right_for_honest_workers_and_cheats():
    honest, cheat = end().outcomes[:2]
    for outcome in audited.Outcome:
        for of, right in ((honest, outcome.paid), (cheat, outcome.value == "rejected")):
            assert dataclasses.replace(of, outcome=outcome.value).right is right
    none = tuple(dataclasses.replace(o, audited=False) for o in end().outcomes)
    assert not dataclasses.replace(end(), outcomes=none).right


def test_keys_follow_from_the_seed():
    one, other = (receipts.Epoch(job=job(), seed=s, now=10**9) for s in (SEED, bytes(32)))
    assert len({*one.workers, *other.workers}) == 2 * len(receipts.CAST)
    assert all(isinstance(identity, Identity) for identity in one.identities.values())
