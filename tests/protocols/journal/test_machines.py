"""A machine says what folds a stream, so that nothing else does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from protocols.audited import Stage, start, step
from protocols.events import Tick
from protocols.journal import AUDITED, REPLICATED, Journal, Machine, Recorded
from protocols.journal.machines import describe
from protocols.replicated import Phase
from tests.helpers.jobs import JOB, PARTIAL
from tests.helpers.journals import MemoryStore
from verifiable.encoding import tagged_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A state, an event and an effect."""

    now: int = 0
    cached: int = field(default=0, compare=False)


def machine(name: str) -> Any:
    return Machine.of(name, 1, step, event=Count, state=Count, effect=Count, ended=bool)


@pytest.mark.parametrize(
    "name", ["", "commitments", "keys", "signed", "snapshot", "Upper", "straße", "a1", "a_b"]
)
def test_a_protocol_is_named_by_a_word_that_is_free(name: str):
    with pytest.raises(ValueError, match="cannot name"):
        machine(name)
    assert machine("counted").name == "counted"


def test_the_bytes_of_audited_jobs_stay():
    """A change of a state, event or effect is a new version of the machine: raise it, then this."""
    assert AUDITED.version == 2
    assert (
        AUDITED.fingerprint.hex()
        == "8314ae9d6fb7f507b645ace3079520a79a8ceb16198754b9b638cc3d7f49b9df"
    )


def test_a_fingerprint_is_the_hash_of_all_schemas():
    found = machine("counted")
    parts = [found.codec[key].fingerprint for key in ("state", "event", "effect")]
    assert found.fingerprint == tagged_hash("journal machine", *parts)
    assert replace(REPLICATED, version=9).fingerprint == REPLICATED.fingerprint


def test_an_audited_job_ends_when_nothing_is_left_to_do():
    store = MemoryStore()
    with Journal(store) as journal:
        first = start(JOB, b"\x05" * 32, PARTIAL, now=7)
        assert not AUDITED.ended(first[0])
        recorded, _ = Recorded.begin(journal, AUDITED, "job", first, PARTIAL)
        tasks = recorded.feed(Tick(at=first[0].deadline)).result()
        assert recorded.state.stage is Stage.ENDED
        assert AUDITED.ended(recorded.state)
        assert journal.streams() == ["audited/job"]
        for task in tasks:
            recorded.done(task).result()
        assert journal.streams() == []


def test_a_replicated_job_ends_in_its_last_phase():
    """Of the state, the phase alone says so."""

    @dataclass
    class InPhase:
        phase: Phase

    assert [phase for phase in Phase if REPLICATED.ended(InPhase(phase))] == [Phase.ENDED]  # type: ignore[arg-type]


def test_rules_are_described_by_what_is_compared():
    assert describe(Count(now=1, cached=2)) == describe(Count(now=1))
    assert describe(Count(now=1)) != describe(Count(now=2))
    assert describe(Count) != describe(Machine)
    assert describe(test_rules_are_described_by_what_is_compared) != describe(machine)
