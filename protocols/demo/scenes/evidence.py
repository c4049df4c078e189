"""Third scene: evidence of one cheat, judged by a party that shares nothing but the model.

The coordinator rejects a run by its secret vectors, and makes evidence of the rejection: a file. A
judge has the model, and neither key nor challenge. It decodes the file, compiles the program anew
for the texts that the file names, and decides. An accuser then points at the same place in the
commitment of an honest device, and must not convict it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from protocols.demo.accusation import Accusation, judge
from protocols.demo.cheats.computations import int4, with_kernels
from protocols.demo.devices import HONEST, DemoJob, Device
from protocols.demo.scenes.scene import Counter, Progress, prepare
from protocols.judging import Judged
from verifiable import challenge
from verifiable.check.judging.evidence import evidence_of
from verifiable.report import Verdict

CHEAT = Device("weights rounded to int4", honest=False, run=with_kernels(int4))
"""The cheat that is rejected, and whose evidence becomes a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOutcome:
    """What the judge found about one device.

    Attributes:
      device: the device.
      judged: where it is accused, and the judgement.
    """

    device: Device
    judged: Judged

    @property
    def right(self) -> bool:
        """Whether a cheat is convicted, or an honest device is not."""
        return self.judged.judgement.guilty is not self.device.honest


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSummary:
    """How the accusations ended.

    Attributes:
      outcomes: of the cheat, then of the honest device; none if the cheat was not rejected.
      file: the accusation of the cheat, encoded; empty if it was not rejected.
    """

    outcomes: tuple[JudgeOutcome, ...]
    file: bytes

    @property
    def right(self) -> bool:
        """Whether there are judgements, and all of them are right."""
        return bool(self.outcomes) and all(outcome.right for outcome in self.outcomes)


EvidenceSceneEvent: TypeAlias = "Progress | JudgeOutcome | EvidenceSummary"


def play(
    job: DemoJob, *, cheat: Device = CHEAT, seed: bytes | None = None
) -> Iterator[EvidenceSceneEvent]:
    """Play the scene: yield progress, then both outcomes, then the summary.

    Args:
      job: from `scene.prepare`.
      cheat: the device whose rejection becomes evidence.
      seed: 32 bytes that fix the coordinator's secret, for tests; by default it is fresh.
    """
    counter, honest = Counter(total=5), HONEST[0]
    yield counter.start("evidence: make a key")
    secret = challenge.secret() if seed is None else challenge.secret(seed=seed)
    key = job.program.setup(job.model.params, secret)
    yield counter.start(f"evidence: run and check {cheat.name}")
    sent, right = cheat.run(job), honest.run(job)
    report = job.program.verify(
        key, *job.inputs, sent, commitment=sent.commitment, parameters=job.root
    )
    if report.verdict is not Verdict.REJECT:
        yield EvidenceSummary(outcomes=(), file=b"")
        return
    file = Accusation.of(job, evidence_of(job.program, report, sent)).encode()
    # The same report makes a false accusation: it names the place, and nobody can check the rest.
    framing = Accusation.of(job, evidence_of(job.program, report, right)).encode()

    yield counter.start("evidence: compile the judge's own program")
    received = Accusation.decode(file)
    judges = prepare(job.model, received.texts)
    outcomes: list[JudgeOutcome] = []
    for device, data in ((cheat, file), (honest, framing)):
        yield counter.start(f"evidence: judge {device.name}")
        judged = judge(Accusation.decode(data), judges)
        outcomes.append(JudgeOutcome(device=device, judged=judged))
        yield outcomes[-1]
    yield EvidenceSummary(outcomes=tuple(outcomes), file=file)
