"""One scenario, event by event: workers send, the network delays, the coordinator is watched.

Job k opens at START + PERIOD k. Its commitments are due after COMMIT seconds, its runs HAND_IN
seconds later, and everything is decided at END. No message arrives at a deadline itself, so whether
a coordinator counts that second as late plays no part.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from protocols.messages import MAX_VALUE, Job, Reveal
from protocols.replicated.runs import answer_of, input_digest
from protocols.testing import laws
from protocols.testing.adapter import CommitSent, CoordinatorAdapter, FleetJob, Ledger, RunSent
from protocols.testing.laws import LawBroken
from protocols.testing.party import FleetPart, Party
from protocols.testing.pool import Pool
from protocols.testing.scenario import Delivery, Role, Scenario
from verifiable.encoding import tagged_hash
from verifiable.errors import VerificationError

START: Final = 1_700_000_000
PERIOD: Final = 1_000
COMMIT: Final = 60
HAND_IN: Final = 60
END: Final = 600

_NEVER = frozenset(
    {
        *(Role.COPYING, Role.FISHING, Role.SILENT, Role.VANISHING, Role.UNSEATED),
        *(Role.SWITCHING, Role.FORGING),
    }
)
_HONEST = frozenset({Role.HONEST, Role.HASTY})
_CLAIMS_HONEST = frozenset({Role.HONEST, Role.HASTY, Role.REPLAYING})


@dataclass(eq=False, kw_only=True)
class Game:
    """A scenario that is being played.

    Attributes:
      pool: of runs.
      scenario: what is played.
      adapter: the coordinator under test.
      now: the time.
      ledger: what had left the coordinator by then.
    """

    pool: Pool
    scenario: Scenario
    adapter: CoordinatorAdapter
    now: int = START
    ledger: Ledger = field(default_factory=Ledger)
    parts: list[FleetPart] = field(default_factory=list)
    _queue: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _order: Any = field(default_factory=itertools.count)
    _judged: dict[bytes, int] = field(default_factory=dict)

    def play(self) -> Ledger:
        """Play the scenario to its end, and return what has left the coordinator."""
        for place in range(len(self.scenario.jobs)):
            self._open(place, START + PERIOD * place)
        for seconds in self.scenario.crashes:
            self._at(START + seconds, self._crash)
        while self._queue:
            self.now, _, event = heapq.heappop(self._queue)
            event()
            self._watch()
        return self.ledger

    # ------------------------------------------------------------------------------------- jobs

    def _open(self, place: int, opens: int) -> None:
        plan = self.scenario.jobs[place]
        parties = [Party.of(n) for n in range(len(plan.workers))]
        seated = [
            party.identity.id
            for party, worker in zip(parties, plan.workers, strict=True)
            if worker.role is not Role.UNSEATED
        ]
        program, inputs = self.pool.program, self.pool.inputs[plan.input]
        job = FleetJob(
            message=Job(
                coordinator=tagged_hash("coordinator of a fleet"),
                epoch=1 + place,
                nonce=tagged_hash("job of a fleet", self.scenario.seed, place.to_bytes(8)),
                expiry=opens + PERIOD,
                program=program.id,
                parameters=self.pool.work(plan.version, plan.input).parameters,
                input=input_digest(*inputs),
                answer=self.pool.form,
            ),
            program=program,
            params=self.pool.versions[plan.version],
            inputs=inputs,
            workers=tuple(seated),
            identities={party.identity.id: party.identity for party in parties},
            commit_by=opens + COMMIT,
            hand_in_by=opens + COMMIT + HAND_IN,
            ends=opens + END,
            seed=tagged_hash("seed of a fleet's job", self.scenario.seed, place.to_bytes(8)),
        )
        self._at(opens, lambda: self.adapter.start(job, self.now))
        for time in (job.commit_by, job.hand_in_by, job.ends):
            self._at(time + 1, lambda: self.adapter.tick(self.now))
        for worker, party in zip(plan.workers, parties, strict=True):
            part = FleetPart(worker, party, job, place)
            self.parts.append(part)
            self._at(opens + worker.waits, lambda part=part: self._begin(part))
            self._at(job.commit_by + 2, lambda part=part: self._unasked(part))

    def _begin(self, part: FleetPart) -> None:
        """What a worker does at first."""
        plan, job = part.plan, self.scenario.jobs[part.place]
        role, version, number = plan.role, job.version, job.input
        if role is Role.SILENT or role is Role.FISHING:
            return None
        if role is Role.COPYING:
            return self._copy(part)
        if role is Role.REPLAYING and self._replay(part):
            return self._commit(part)
        part.honest = role in _CLAIMS_HONEST
        part.sent = self.pool.honest(version, number, plan.device)
        if role in (Role.STALE, Role.FORGING):
            part.sent = self.pool.stale(version, number)
        if role is Role.CHEATING and plan.cheat is not None:
            cheated = self.pool.cheated(version, number, plan.cheat)
            part.honest, part.sent = cheated is None, cheated or part.sent
        part.answer = self.pool.lie(version, number) if role is Role.LYING else part.sent.y
        part.reveal = self._reveal(part)
        if role is Role.SWITCHING:
            other = self.pool.stale(version, number).commitment
            part.reveal = replace(part.reveal, trace_root=other.root)
        victim = self._victim(part) if role is Role.FORGING else None
        if victim is not None:
            part.goes_by = victim.name
            part.reveal = replace(part.reveal, worker=victim.name)
        self._commit(part)
        if role is Role.HASTY:
            self._send_run(part, early=True)
        return None

    def _replay(self, part: FleetPart) -> bool:
        """Take an honest run of the first job; False in the first job itself."""
        first, plan = self.parts[0].job, self.scenario.jobs[0]
        if part.job is first:
            return False
        part.sent = self.pool.honest(plan.version, plan.input, part.plan.device)
        part.answer = part.sent.y
        part.reveal = self._reveal(replace(part, job=first, place=0))
        return True

    def _reveal(self, part: FleetPart) -> Reveal:
        sent, form = part.sent, part.job.message.answer
        if sent is None:
            raise ValueError("there is no run to reveal")
        try:
            value = answer_of(form, part.answer)[:MAX_VALUE]
        except TypeError:  # a cheat's answer may be no array at all
            value = b""
        return Reveal(
            worker=part.name,
            job=part.job.id,
            epoch=part.job.message.epoch,
            salt=tagged_hash("salt of a fleet", part.name, part.job.id),
            value=value,
            trace_root=sent.commitment.root,
            trace_size=sent.commitment.size,
        )

    # --------------------------------------------------------------------------------- messages

    def _commit(self, part: FleetPart, *, of: Reveal | None = None) -> None:
        """Send a commitment, to its own reveal or to that of another."""
        reveal, sent = of or part.reveal, part.sent
        if reveal is None or sent is None:
            return
        commit = replace(reveal.commit, worker=part.goes_by, job=part.job.id)
        commit = replace(commit, epoch=part.job.message.epoch)
        message = CommitSent(
            sender=part.name, job=part.job.id, commit=commit, submission=sent, key=part.party.key
        )

        def arrive() -> None:
            if part.committed is None and self.now < part.job.commit_by:
                part.committed = self.now
            self._give(message)

        self._deliver(part, part.plan.commit, arrive)

    def _send_run(self, part: FleetPart, *, early: bool = False) -> None:
        if part.reveal is None or part.sent is None or part.plan.role is Role.VANISHING:
            return
        message = RunSent(
            sender=part.name,
            job=part.job.id,
            reveal=part.reveal,
            answer=part.answer,
            submission=part.sent,
            key=part.party.key,
        )

        def arrive() -> None:
            # A run that was sent too early may arrive in time all the same.
            part.arrived |= self._asked(part) and self.now < part.job.hand_in_by
            self._give(message)

        self._deliver(part, part.plan.run, arrive)
        if not early and part.plan.role is Role.HONEST:
            self._seen(part)

    def _asked(self, part: FleetPart) -> bool:
        """Whether the coordinator takes the run of a worker by now."""
        if self.ledger.asked is None:
            return self.now > part.job.commit_by
        return (part.job.id, part.goes_by) in self.ledger.asked

    def _copy(self, part: FleetPart) -> None:
        """Repeat the commitment of an honest worker as soon as it has sent one."""
        victim = self._victim(part)
        if victim is None or victim.reveal is None:
            if victim is not None and self.now < part.job.commit_by:
                self._at(self.now + 5, lambda: self._copy(part))
            return
        part.sent, part.answer = victim.sent, victim.answer
        own = replace(victim.reveal, worker=part.name)
        part.reveal = victim.reveal if part.plan.named else own
        self._commit(part, of=victim.reveal)

    def _seen(self, victim: FleetPart) -> None:
        """Others see the run that an honest worker hands in, once it is on its way."""
        for part in self.parts:
            fishing = part.plan.role is Role.FISHING and part.job is victim.job
            if fishing and part.reveal is None:
                part.sent, part.answer = victim.sent, victim.answer
                part.reveal = self._reveal(part)
                self._commit(part)

    def _victim(self, part: FleetPart) -> FleetPart | None:
        found = (p for p in self.parts if p.job is part.job and p.plan.role is Role.HONEST)
        return next(found, None)

    def _unasked(self, part: FleetPart) -> None:
        """Hand in without being asked, where the coordinator never asks."""
        if self.ledger.asked is None:
            self._hand_in(part)

    def _hand_in(self, part: FleetPart) -> None:
        if not part.handed:
            part.handed = True
            self._send_run(part)

    def _deliver(self, part: FleetPart, how: Delivery, arrive: Callable[[], None]) -> None:
        if how.lost:
            return
        for delay in (how.delay, how.again and how.delay + how.again):
            if delay is not None:
                time = self.now + delay
                self._at(time + (time in (part.job.commit_by, part.job.hand_in_by)), arrive)

    def _give(self, message: CommitSent | RunSent) -> None:
        with contextlib.suppress(VerificationError):  # refused
            self.adapter.receive(message, self.now)

    def _crash(self) -> None:
        self.adapter.restart(self.now)

    def _at(self, time: int, event: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time, next(self._order), event))

    # -------------------------------------------------------------------------------- watching

    def _watch(self) -> None:
        """See what has left the coordinator; workers hand in what they are asked for."""
        self.ledger = self.adapter.ledger()
        for job, _ in (*self.ledger.paid, *self.ledger.punished):
            self._judged.setdefault(job, self.now)
        for part in self.parts:
            asked = (part.job.id, part.goes_by) in (self.ledger.asked or ())
            if asked and not part.handed:
                part.handed = True
                self._at(self.now + 1, lambda part=part: self._send_run(part))

    # ------------------------------------------------------------------------------------ laws

    def require(self, *, sampled: bool = False, paying: bool = False) -> None:
        """Require the laws of what has left the coordinator.

        Args:
          sampled: runs are audited by chance, so any run that is in time may be paid; `paid_cheats`
            counts the cheats.
          paying: an honest worker with whom nothing went wrong must be paid.

        Raises:
          LawBroken: a law does not hold.
        """
        parts = {(part.job.id, part.name): part for part in self.parts}
        for place in self.ledger.punished:
            part = parts.get(place)
            if part is not None and part.honest:
                raise LawBroken(laws.HONEST_PUNISHED, str(part))
        if len(self.ledger.paid) != len(set(self.ledger.paid)):
            raise LawBroken(laws.PAID_TWICE, "a worker was paid twice for one job")
        statements: dict[bytes, bytes] = {}
        for about, statement in self.ledger.signed:
            if statements.setdefault(about, statement) != statement:
                raise LawBroken(laws.SIGNED_TWICE, f"two statements about {about.hex()[:16]}")
        for place in self.ledger.paid:
            self._require_payable(parts.get(place), place[0], sampled=sampled)
        if paying:
            self._require_paid(parts)

    def _require_payable(self, part: FleetPart | None, job: bytes, *, sampled: bool) -> None:
        if part is None or part.plan.role is Role.UNSEATED:
            raise LawBroken(laws.CHEAT_PAID, "a worker that the job was not sent to was paid")
        if part.committed is None:
            raise LawBroken(laws.CHEAT_PAID, f"{part} was paid, and did not commit in time")
        unasked = sampled and (job, part.name) not in (self.ledger.asked or ())
        if not (part.arrived or unasked):
            raise LawBroken(laws.CHEAT_PAID, f"{part} was paid, and handed nothing in in time")
        # Who would vanish when it is asked has not vanished before.
        never = _NEVER - ({Role.VANISHING} if unasked else set())
        if part.plan.role in never or part.reveal is None or part.reveal.job != job:
            raise LawBroken(laws.CHEAT_PAID, f"{part} was paid for what it has not computed")
        reason = self._unpayable(part)
        if reason is not None and not sampled:
            raise LawBroken(laws.CHEAT_PAID, f"{part} was paid, but {reason}")
        if part.committed > self._judged[job]:
            raise LawBroken(
                laws.VERDICT_BEFORE_CLOSE,
                f"{part} was paid for a commitment that came after a verdict on the job had left",
            )

    def _unpayable(self, part: FleetPart) -> str | None:
        plan = self.scenario.jobs[part.place]
        if part.sent is None:
            return "it has no run"
        return self.pool.unpayable(plan.version, plan.input, part.sent, part.answer)

    def _require_paid(self, parts: dict[tuple[bytes, bytes], FleetPart]) -> None:
        for place, part in parts.items():
            good = part.plan.role in _HONEST and part.committed is not None and part.arrived
            calm = not self.scenario.crashes and place not in self.ledger.paid
            if good and calm and self._unpayable(part) is None:
                raise LawBroken(laws.HONEST_UNPAID, str(part))

    def paid_cheats(self) -> tuple[int, int]:
        """How many cheats of numbers were paid, and how many could have been.

        Those count that committed in time, and handed in what they were asked for.
        """
        tried = [
            part
            for part in self.parts
            if part.committed is not None
            and (part.arrived or (part.job.id, part.name) not in (self.ledger.asked or ()))
            and part.plan.role in (Role.CHEATING, Role.STALE, Role.LYING)
            and not part.honest
            and self._unpayable(part) is not None
        ]
        paid = set(self.ledger.paid)
        return sum((part.job.id, part.name) in paid for part in tried), len(tried)
