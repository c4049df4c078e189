"""Strategies of hypothesis: scenarios for a fleet, and messages of the protocols.

    from protocols.testing import fleet, strategies as pst

    workers = fleet(program, params, (x,))

    @given(pst.scenarios(workers))
    def test_my_coordinator(scenario):
        workers.play(MyAdapter, scenario)

Extra `testing`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hypothesis import strategies as st

from protocols.audited import AnswerReceipt, TraceReceipt
from protocols.messages import Commit, Job, Reveal
from protocols.testing.fleet import Fleet
from protocols.testing.game import COMMIT, END, HAND_IN, PERIOD
from protocols.testing.scenario import PROMPT, Delivery, JobPlan, Role, Scenario, WorkerPlan
from verifiable.challenge import Beacon
from verifiable.testing.strategies import seeds
from verifiable.voting.decide import Ballot

_LONGEST = COMMIT + HAND_IN + 20


def deliveries() -> st.SearchStrategy[Delivery]:
    """Half of all messages arrive at once; others late, twice, or never."""
    delays = st.integers(1, 20) | st.integers(1, _LONGEST)
    again = st.none() | st.integers(1, _LONGEST)
    wild = st.builds(
        Delivery, delay=delays, again=again, lost=st.integers(0, 9).map(lambda n: not n)
    )
    return st.just(PROMPT) | wild


def plans(
    fleet: Fleet, roles: Collection[Role] = tuple(Role), *, faults: bool = True
) -> st.SearchStrategy[WorkerPlan]:
    """What one worker does.

    Args:
      fleet: whose cheats a cheating worker tries.
      roles: that it may have.
      faults: whether the network loses, repeats, delays and reorders its messages.
    """
    messages = deliveries() if faults else st.just(PROMPT)
    drawn = st.builds(
        WorkerPlan,
        role=st.sampled_from(list(roles)),
        device=st.integers(0, 1),
        waits=st.integers(1, 40),
        named=st.booleans(),
        commit=messages,
        run=messages,
    )
    return drawn.flatmap(lambda plan: _with_cheat(plan, fleet))


def _with_cheat(plan: WorkerPlan, fleet: Fleet) -> st.SearchStrategy[WorkerPlan]:
    if plan.role is not Role.CHEATING:
        return st.just(plan)
    names = st.sampled_from(fleet.cheats)
    return names.map(lambda name: _named(plan, name))


def _named(plan: WorkerPlan, name: str) -> WorkerPlan:
    return WorkerPlan(
        role=plan.role,
        cheat=name,
        device=plan.device,
        waits=plan.waits,
        named=plan.named,
        commit=plan.commit,
        run=plan.run,
    )


@st.composite
def scenarios(
    draw: st.DrawFn,
    fleet: Fleet,
    *,
    jobs: int = 2,
    workers: tuple[int, int] = (2, 4),
    bad: int | None = None,
    roles: Collection[Role] = tuple(Role),
    faults: bool = True,
    crashes: bool = True,
) -> Scenario:
    """Scenarios of a fleet. The first worker of each job is honest.

    Args:
      draw: given by hypothesis.
      fleet: whose workers play.
      jobs: the most jobs.
      workers: the fewest and the most workers of a job.
      bad: the most workers of a job that are not honest; any number by default. A coordinator that
        votes can promise nothing where most are.
      roles: of those that are not honest.
      faults: whether the network loses, repeats, delays and reorders messages.
      crashes: whether the coordinator is killed.
    """
    count = draw(st.integers(1, jobs))
    size = draw(st.integers(*workers))
    dishonest = [role for role in roles if role is not Role.HONEST]
    found: list[JobPlan] = []
    for _ in range(count):
        most = size - 1 if bad is None else min(bad, size - 1)
        wrong = draw(st.integers(min(1, most), most)) if dishonest else 0
        first = [draw(plans(fleet, (Role.HONEST,), faults=faults)) for _ in range(size - wrong)]
        # What can be replayed only later is drawn more often then, and the job is often the same.
        later = [Role.REPLAYING] * 3 if found and Role.REPLAYING in dishonest else []
        others = [draw(plans(fleet, dishonest + later, faults=faults)) for _ in range(wrong)]
        same = bool(found) and draw(st.booleans())
        kinds = (st.integers(0, len(fleet.pool.inputs) - 1), st.integers(0, 1))
        asked = (found[0].input, found[0].version) if same else tuple(map(draw, kinds))
        found.append(JobPlan(workers=(*first, *others), input=asked[0], version=asked[1]))
    times = st.builds(
        lambda place, seconds: PERIOD * place + seconds,
        st.integers(0, count - 1),
        st.sampled_from((5, 30, COMMIT + 1, COMMIT + 4, COMMIT + HAND_IN + 2, END - 50, END + 2)),
    )
    killed = draw(st.lists(times, max_size=2, unique=True)) if crashes else []
    return Scenario(jobs=tuple(found), crashes=tuple(sorted(killed)), seed=draw(seeds()))


# -------------------------------------------------------------------------------------- messages


def jobs() -> st.SearchStrategy[Job]:
    """Jobs of any program."""
    numbers = st.integers(0, 2**64 - 1)
    return st.builds(
        Job,
        coordinator=seeds(),
        epoch=numbers,
        nonce=seeds(),
        expiry=numbers,
        program=seeds(),
        parameters=seeds(),
        input=seeds(),
    )


def reveals(job: Job | None = None) -> st.SearchStrategy[Reveal]:
    """Reveals of any worker, for a job or for any; `commit` is the message that each opens."""
    fields: dict[str, Any] = {
        "job": seeds() if job is None else st.just(job.digest),
        "epoch": st.integers(0, 2**64 - 1) if job is None else st.just(job.epoch),
    }
    return st.builds(
        Reveal,
        worker=seeds(),
        salt=seeds(),
        value=st.binary(max_size=64),
        trace_root=seeds(),
        trace_size=st.integers(1, 2**32),
        **fields,
    )


def commits(job: Job | None = None) -> st.SearchStrategy[Commit]:
    """Commits of any worker, for a job or for any."""
    return reveals(job).map(lambda reveal: reveal.commit)


def answer_receipts(job: Job | None = None) -> st.SearchStrategy[AnswerReceipt]:
    """Receipts of answers, of audits of a part."""
    fields: dict[str, Any] = {
        "job": seeds() if job is None else st.just(job.digest),
        "epoch": st.integers(0, 2**64 - 1) if job is None else st.just(job.epoch),
    }
    return st.builds(AnswerReceipt, worker=seeds(), answer=seeds(), **fields)


def trace_receipts(receipt: AnswerReceipt) -> st.SearchStrategy[TraceReceipt]:
    """Receipts of traces for the answer that was receipted."""
    return st.builds(
        TraceReceipt,
        worker=st.just(receipt.worker),
        job=st.just(receipt.job),
        epoch=st.just(receipt.epoch),
        receipt=st.just(receipt.digest),
        trace_root=seeds(),
        trace_size=st.integers(1, 2**32),
    )


def ballots(
    values: st.SearchStrategy[Any], *, fewest: int = 1, most: int = 9
) -> st.SearchStrategy[list[Ballot]]:
    """Ballots of different workers.

    Args:
      values: what they vote for, of the type that the job's agreement reads.
      fewest: ballots at least.
      most: ballots at most.
    """
    one = st.builds(Ballot, seeds(), values)
    return st.lists(one, min_size=fewest, max_size=most, unique_by=lambda ballot: ballot.worker)


def beacons(chain: str = "drand", *, after: int = 0) -> st.SearchStrategy[Beacon]:
    """Rounds of a beacon after one that is known."""
    return st.builds(
        Beacon,
        chain=st.just(chain),
        round=st.integers(after + 1, after + 2**32),
        value=st.binary(min_size=16, max_size=64),
    )
