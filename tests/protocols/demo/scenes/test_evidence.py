"""The third scene: a cheat convicted, and an honest device acquitted, by a judge with the model."""

from __future__ import annotations

import dataclasses
import functools

from protocols.demo import devices, models
from protocols.demo.accusation import Accusation, judge
from protocols.demo.scenes import evidence
from protocols.demo.scenes.scene import Progress, prepare
from verifiable.program import Program

SEED = bytes(range(32))


@functools.cache
def job() -> devices.DemoJob:
    return prepare(models.small_transformer(0, width=32, layers=1), ["a", "the cat"])


@functools.cache
def played() -> tuple[evidence.EvidenceSceneEvent, ...]:
    return tuple(evidence.play(job(), seed=SEED))


def end(events) -> evidence.EvidenceSummary:
    *_, last = events
    assert isinstance(last, evidence.EvidenceSummary)
    return last


def test_the_cheat_is_convicted_and_the_honest_device_acquitted():
    summary = end(played())
    assert summary.right
    cheat, honest = summary.outcomes
    assert (cheat.device.honest, cheat.judged.judgement.guilty) == (False, True)
    assert (honest.device.honest, honest.judged.judgement.guilty) == (True, False)
    assert honest.judged.judgement.excess < 0.5 and cheat.judged.judgement.excess > 10
    # The same place in two commitments.
    one, two = cheat.judged, honest.judged
    assert (one.claim, one.trip, one.row) == (two.claim, two.trip, two.row)
    assert one.root != two.root


def test_the_file_is_what_was_judged():
    received = Accusation.decode(end(played()).file)
    assert received.texts == job().texts
    assert judge(received, job()) == end(played()).outcomes[0].judged


def test_the_judge_uses_neither_key_nor_program_of_the_coordinator(monkeypatch):
    programs: list[Program] = []

    def spy(accusation: Accusation, judges: devices.DemoJob):
        programs.append(judges.program)
        return judge(accusation, judges)

    monkeypatch.setattr(evidence, "judge", spy)
    assert end(evidence.play(job(), seed=SEED)).right
    assert len(programs) == 2
    assert all(p is not job().program and p.id == job().program.id for p in programs)


def test_steps_count_up_to_their_total():
    steps = [e for e in played() if isinstance(e, Progress)]
    assert [s.done for s in steps] == list(range(len(steps)))
    assert {s.total for s in steps} == {len(steps)}


def test_a_cheat_that_is_not_rejected_and_a_wrong_judgement_are_never_right():
    tame = devices.Device("does not cheat", False, devices.jitted)
    summary = end(evidence.play(job(), cheat=tame, seed=SEED))
    assert (summary.outcomes, summary.file, summary.right) == ((), b"", False)
    for i, outcome in enumerate(end(played()).outcomes):
        found = outcome.judged.judgement
        wrong = dataclasses.replace(found, guilty=not found.guilty)
        judged = dataclasses.replace(outcome.judged, judgement=wrong)
        outcomes = list(end(played()).outcomes)
        outcomes[i] = dataclasses.replace(outcome, judged=judged)
        assert not dataclasses.replace(end(played()), outcomes=tuple(outcomes)).right
