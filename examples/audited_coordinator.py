"""A coordinator of `examples/audited_device.py`: two logs, two draws, and audits of a part."""

from __future__ import annotations

import os
from typing import Any

from protocols import audited, messages
from protocols.audited.device import receipt_of
from protocols.audited.judging import Judge, plan_of
from protocols.events import Tick
from verifiable.challenge import Beacon, CommitmentLog


class Coordinator:
    """One job at several devices. `protocols.journal.AUDITED` makes it durable."""

    def __init__(self, judge: Judge, rules: audited.PartialRules, sign: Any, now: int):
        """Judge and rules are the same for all devices."""
        self.judge, self.rules, self.sign, self.now = judge, rules, sign, now
        self.states: dict[bytes, audited.PartialState] = {}

    def do(self, name: bytes, event: Any) -> Any:
        """The last task that an event leads to, if any."""
        self.states[name], tasks = audited.step(self.states[name], event)
        return tasks[-1] if tasks else None

    def draw(self, receipts: dict[bytes, Any], closed: Any) -> dict[bytes, Any]:
        """Close a log, and draw with the round of the beacon after it: the tasks of all devices."""
        log, beacon = CommitmentLog(), self.rules.beacon
        for receipt in receipts.values():
            log.append(receipt.message.digest)
        head = log.close(chain=beacon.chain, closed_at=beacon.after(self.now))
        for name in receipts:
            self.do(name, closed(at=self.now, log=head))
        drawn = Beacon(chain=head.chain, round=head.closed_at + 1, value=os.urandom(32))
        self.now = beacon.appears(drawn.round)
        return {n: self.do(n, audited.RoundSeen(at=self.now, beacon=drawn)) for n in receipts}

    def play(self, devices: dict[bytes, Any], x: Any) -> None:
        """Run the job at all devices, to the end of each: `states`."""
        job, known = self.judge.job, {name: device.identity for name, device in devices.items()}
        answers, traces = dict[bytes, Any](), dict[bytes, Any]()
        for name, device in devices.items():
            self.states[name], _ = audited.start(job, name, self.rules, now=self.now)
            data, y = device.run(job, x)
            answers[name] = messages.receive(audited.AnswerReceipt, data, known, seats={name})
            if answers[name].message == receipt_of(y, worker=name, job=job):
                self.do(name, audited.ReceiptCame(at=self.now, receipt=answers[name]))
        for name, ask in self.draw(answers, audited.LogClosed).items():
            if isinstance(ask, audited.AskTrace) and (
                data := devices[name].commit(self.order(ask))
            ):
                traces[name] = messages.receive(audited.TraceReceipt, data, known, seats={name})
                self.do(name, audited.TraceCame(at=self.now, receipt=traces[name]))
        for name, ask in self.draw(traces, audited.TraceLogClosed).items():
            note, payload = devices[name].open(self.order(ask))
            request, plan = audited.order(job, ask), plan_of(self.judge.program, ask)
            upload = messages.announced(note, request, known, most=plan.most_nbytes)
            messages.require_payload(payload, upload)
            content, found = messages.content_digest(payload), self.judge.judge(ask, payload)
            self.do(name, audited.OpeningCame(at=self.now, content=content))
            how: Any = {"verdict": found.verdict, "reason": found.reason}
            self.do(name, audited.OpeningJudged(at=self.now, content=content, **how))
        for name, state in self.states.items():
            self.do(name, Tick(at=state.deadline))

    def order(self, ask: Any) -> bytes:
        """What a device is asked for, signed."""
        return messages.sign(audited.order(self.judge.job, ask), self.sign).encode()
