"""First scene: one coordinator, honest devices and cheats; every submission is checked.

The coordinator draws a secret and makes its key. Every device runs the job and sends its answer,
its trace, and the commitment to both. The key is first used after the last commitment has arrived:
a cheat that saw a verdict before it committed could learn what passes. The coordinator hashes what
was sent, compares it with the commitment, and checks the trace.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax

from protocols.demo.cheats import lineup
from protocols.demo.devices import DemoJob, Device
from protocols.demo.scenes.scene import Counter, Progress
from verifiable import challenge, trace
from verifiable.key import VerifierKey
from verifiable.submission import Submission
from verifiable.trace import Commitment

REPEATS = 9
"""How often running, checking and hashing are timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOutcome:
    """What the coordinator found about one device.

    Attributes:
      device: the device.
      verdict: `accept`, `reject` or `indeterminate`.
      reason: stable code.
      claim: name of the first claim that failed, or None.
      worst: largest statistic over its limit among all claims, or None where none was computed.
      root: root of the trace that the device committed to, 32 bytes.
    """

    device: Device
    verdict: str
    reason: str
    claim: str | None
    worst: float | None
    root: bytes

    @property
    def right(self) -> bool:
        """Whether an honest device was accepted, or a cheat was not."""
        return (self.verdict == "accept") == self.device.honest


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSummary:
    """All outcomes, and figures. Seconds are warm medians; bytes are of arrays in memory.

    Attributes:
      model: its name.
      outcomes: one for every device, in order.
      seconds_run: the plain model, compiled as a whole.
      seconds_check: `Program.check` of an honest submission.
      seconds_root: hashing that submission, to compare it with its commitment.
      bytes_params: size of the parameters.
      bytes_key: size of the verifier's key.
      bytes_trace: size of an answer with its trace.
      kept: the largest value that the key keeps for replay: its name and its bytes.
      root: root of an honest trace, 32 bytes.
    """

    model: str
    outcomes: tuple[DeviceOutcome, ...]
    seconds_run: float
    seconds_check: float
    seconds_root: float
    bytes_params: int
    bytes_key: int
    bytes_trace: int
    kept: tuple[str, int]
    root: bytes

    @property
    def right(self) -> bool:
        """Whether there are verdicts, and all of them are right."""
        return bool(self.outcomes) and all(outcome.right for outcome in self.outcomes)


CheckSceneEvent: TypeAlias = "Progress | DeviceOutcome | CheckSummary"


def play(
    job: DemoJob,
    *,
    devices: Sequence[Device] | None = None,
    seed: bytes | None = None,
    repeats: int = REPEATS,
) -> Iterator[CheckSceneEvent]:
    """Play the scene: yield progress, every outcome as soon as it is known, and the summary.

    Args:
      job: from `scene.prepare`.
      devices: by default, all devices for the precision of the model.
      seed: 32 bytes that fix the secret, for tests; by default it is fresh.
      repeats: how often running, checking and hashing are timed.
    """
    cast = lineup(job.model.precision) if devices is None else tuple(devices)
    counter = Counter(total=2 * len(cast) + 2)

    yield counter.start("make the verifier's key")
    secret = challenge.secret() if seed is None else challenge.secret(seed=seed)
    key = job.program.setup(job.model.params, secret)

    submissions: list[Submission] = []
    for device in cast:
        yield counter.start(f"run: {device.name}")
        submissions.append(device.run(job))

    # All commitments have arrived: from here on, and not before, the key is used.
    commitments = [submission.commitment for submission in submissions]
    outcomes: list[DeviceOutcome] = []
    for device, submission, commitment in zip(cast, submissions, commitments, strict=True):
        yield counter.start(f"check: {device.name}")
        outcomes.append(judge(job, key, device, submission, commitment))
        yield outcomes[-1]

    yield counter.start("time running and checking")
    yield _summary(job, key, tuple(outcomes), repeats)


def judge(
    job: DemoJob,
    key: VerifierKey,
    device: Device,
    submission: Submission,
    commitment: Commitment,
) -> DeviceOutcome:
    """Check one submission: first against its commitment, then every claim.

    Args:
      job: the job.
      key: the coordinator's key.
      device: the device that sent the submission.
      submission: answer and trace.
      commitment: what the coordinator received before the key was used.
    """
    report = job.program.verify(
        key, *job.inputs, submission, commitment=commitment, parameters=job.root
    )
    return DeviceOutcome(
        device=device,
        verdict=report.verdict.value,
        reason=report.reason,
        claim=report.claim,
        worst=float(report.worst) if report.results else None,
        root=commitment.root,
    )


def _summary(
    job: DemoJob,
    key: VerifierKey,
    outcomes: tuple[DeviceOutcome, ...],
    repeats: int,
) -> CheckSummary:
    honest = job.run()
    run, check, root = _medians(job, key, honest, repeats)
    return CheckSummary(
        model=job.model.name,
        outcomes=outcomes,
        seconds_run=run,
        seconds_check=check,
        seconds_root=root,
        bytes_params=_bytes(job.model.params),
        bytes_key=key.nbytes,
        bytes_trace=_bytes((honest.y, honest.trace)),
        kept=max(job.program.kept.items(), key=lambda item: item[1], default=("nothing", 0)),
        root=honest.commitment.root,
    )


def _medians(job: DemoJob, key: VerifierKey, honest: Submission, repeats: int) -> tuple[float, ...]:
    """Time the jitted model, the check and the hash of a trace: warm, in turns; in seconds."""
    plain, params, inputs = jax.jit(job.model.encode), job.model.params, job.inputs

    def run() -> None:
        jax.block_until_ready(plain(params, *inputs))

    def check() -> None:
        job.program.check(key, *inputs, y=honest.y, trace=honest.trace)

    def root() -> None:
        trace.verify(honest.commitment, honest.y, honest.trace, layout=job.program.layout)

    seconds: list[list[float]] = [[], [], []]
    for repeat in range(repeats + 1):
        for measured, work in zip(seconds, (run, check, root), strict=True):
            start = time.perf_counter()
            work()
            if repeat:
                measured.append(time.perf_counter() - start)
    return tuple(map(statistics.median, seconds))


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
