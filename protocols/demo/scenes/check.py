"""One coordinator, some honest devices and many cheats: the first scene of `verifiable demo`.

A scene is a module with `play(job)`, which yields `Step`s, outcomes, and last a summary that says
whether everything was `right`; `protocols.display` shows summaries. All scenes share one `Job`.

In this one the coordinator draws a secret and makes its key. Then every device
runs and commits: it sends its answer, its trace, and the root of the tree over both. Only when
the last commitment has arrived is anything derived from the key used, because a cheat that saw a
verdict before committing could learn what passes. The coordinator recomputes each commitment over
what was actually sent, and checks the trace against its key.

`play` prints nothing; it yields what happens as it happens.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax

from protocols.demo.devices import Device, Job, Submission, lineup
from protocols.demo.models import Model, Tokens
from verifiable import challenge, program, trace
from verifiable.errors import CommitmentMismatch, MalformedEncoding
from verifiable.key import VerifierKey

TEXTS = (
    "How do I reset the password of my account?",
    "I cannot log in any more and need a new password.",
    "The concert in the park was cancelled because of heavy rain.",
    "Bad weather forced the organisers to call off the open-air show.",
    "Water boils at a lower temperature at high altitude.",
    "On a mountain, pasta takes longer because water boils earlier.",
    "The parcel was delivered to the wrong address yesterday.",
    "She adopted a small grey cat from the shelter.",
)
MOST_TEXTS = 64
REPEATS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Progress: `done` of `total` steps are over, and `what` comes next."""

    done: int
    total: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the coordinator found about one device.

    Attributes:
      device: whom it concerns.
      verdict: `accept`, `reject` or `indeterminate`.
      reason: stable code.
      claim: name of the first claim that failed, or None.
      worst: largest statistic over its limit among all claims, or None where none was computed.
      root: what the device had committed to.
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
class Summary:
    """Figures of the whole demo. Seconds are warm medians; bytes are of arrays in memory.

    Attributes:
      model: its name.
      outcomes: of every device, in order.
      seconds_run: the plain model, compiled as a whole.
      seconds_check: `Program.check` of an honest submission.
      seconds_root: hashing that submission, to compare it with its commitment.
      bytes_params: of the parameters.
      bytes_key: of the verifier's key.
      bytes_trace: of an answer with its trace.
      kept: the largest value that the key keeps for replay, by name, and its bytes.
      root: what an honest device commits to.
    """

    model: str
    outcomes: tuple[Outcome, ...]
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
        """Whether every verdict is right; never true of no verdicts at all."""
        return bool(self.outcomes) and all(outcome.right for outcome in self.outcomes)


Event: TypeAlias = "Step | Outcome | Summary"


def prepare(model: Model, texts: Sequence[str] = TEXTS) -> Job:
    """Compile the encoder for some texts: what all scenes are played on.

    Raises ValueError for texts that the model cannot encode.
    """
    inputs = tokenize(model, texts)
    compiled = program.compile(model.encode, model.params, *inputs)
    return Job(model=model, program=compiled, execute=jax.jit(compiled.execute), inputs=inputs)


def play(
    job: Job,
    *,
    devices: Sequence[Device] | None = None,
    seed: bytes | None = None,
    repeats: int = REPEATS,
) -> Iterator[Event]:
    """Play the scenario; yield a `Step` before each piece of work, and each `Outcome` once known.

    The last event is the `Summary`. `seed` (32 bytes) fixes the secret, for tests; by default it
    is fresh.
    """
    model, compiled = job.model, job.program
    cast = lineup(job.model.precision) if devices is None else tuple(devices)
    total, done = 2 * len(cast) + 2, 0

    yield Step(done=done, total=total, what="make the verifier's key")
    secret = challenge.secret() if seed is None else challenge.secret(seed=seed)
    key = compiled.setup(model.params, secret)

    submissions: list[Submission] = []
    for device in cast:
        yield Step(done=(done := done + 1), total=total, what=f"run: {device.name}")
        submissions.append(device.run(job))

    # Every commitment is in: from here on, and not before, the key is used.
    outcomes: list[Outcome] = []
    for device, submission in zip(cast, submissions, strict=True):
        yield Step(done=(done := done + 1), total=total, what=f"check: {device.name}")
        outcome = judge(job, key, device, submission)
        outcomes.append(outcome)
        yield outcome

    yield Step(done=(done := done + 1), total=total, what="time running and checking")
    honest = job.run()
    run, check, root = _medians(job, key, honest, repeats)
    yield Summary(
        model=model.name,
        outcomes=tuple(outcomes),
        seconds_run=run,
        seconds_check=check,
        seconds_root=root,
        bytes_params=_bytes(model.params),
        bytes_key=key.nbytes,
        bytes_trace=_bytes((honest.y, honest.trace)),
        kept=max(compiled.kept.items(), key=lambda item: item[1], default=("nothing", 0)),
        root=honest.commitment.root,
    )


def tokenize(model: Model, texts: Sequence[str]) -> Tokens:
    """Return one job's inputs. Raises ValueError for texts that the model cannot encode."""
    if len(texts) > MOST_TEXTS:
        raise ValueError(f"{len(texts)} texts; at most {MOST_TEXTS} fit in one job")
    return model.tokenize(texts)


def judge(job: Job, key: VerifierKey, device: Device, submission: Submission) -> Outcome:
    """Check one submission: first that it is what was committed to, then that it is right."""
    root, reason = submission.commitment.root, None
    try:
        trace.verify(submission.commitment, submission.y, submission.trace)
    except CommitmentMismatch:
        reason = "commitment-mismatch"
    except MalformedEncoding:
        reason = "trace-structure"
    if reason is not None:
        return rejected(device, reason, root)
    report = job.program.check(key, *job.inputs, y=submission.y, trace=submission.trace)
    return Outcome(
        device=device,
        verdict=report.verdict.value,
        reason=report.reason,
        claim=report.claim,
        worst=float(report.worst) if report.results else None,
        root=root,
    )


def rejected(device: Device, reason: str, root: bytes) -> Outcome:
    """What is found of a submission that is not what was committed to."""
    return Outcome(
        device=device, verdict="reject", reason=reason, claim=None, worst=None, root=root
    )


# Measures.


def _medians(job: Job, key: VerifierKey, honest: Submission, repeats: int) -> tuple[float, ...]:
    """Time the plain jitted model, the check and the root of a trace: warm, in turns."""
    plain, params, inputs = jax.jit(job.model.encode), job.model.params, job.inputs

    def run() -> None:
        jax.block_until_ready(plain(params, *inputs))

    def check() -> None:
        job.program.check(key, *inputs, y=honest.y, trace=honest.trace)

    def root() -> None:
        trace.verify(honest.commitment, honest.y, honest.trace)

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
