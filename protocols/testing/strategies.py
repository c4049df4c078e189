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
from typing import Any, NamedTuple

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
    """Two of three messages arrive at once; others late, twice, or never."""
    return _DELIVERIES


_PROMPT = st.just(PROMPT)
_WILD = st.tuples(
    st.integers(1, 20) | st.integers(1, _LONGEST),
    st.none() | st.integers(1, _LONGEST),
    st.integers(0, 9).map(lambda n: n == 9),
).map(lambda drawn: Delivery(delay=drawn[0], again=drawn[1], lost=drawn[2]))
_DELIVERIES = st.sampled_from((_PROMPT, _PROMPT, _WILD)).flatmap(lambda chosen: chosen)


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
    return st.tuples(
        st.sampled_from(list(roles)),
        st.sampled_from(fleet.cheats),
        st.integers(0, 1),
        st.integers(1, 40),
        st.sampled_from((True, True, False)),
        messages,
        messages,
    ).map(lambda drawn: _plan(*drawn))


def _plan(
    role: Role, cheat: str, device: int, waits: int, named: bool, commit: Delivery, run: Delivery
) -> WorkerPlan:
    return WorkerPlan(
        role=role,
        cheat=cheat if role is Role.CHEATING else None,
        device=device,
        waits=waits,
        named=named,
        commit=commit,
        run=run,
    )


def scenarios(
    fleet: Fleet,
    *,
    jobs: int = 2,
    workers: tuple[int, int] = (2, 4),
    bad: int | None = None,
    roles: Collection[Role] = tuple(Role),
    faults: bool = True,
    crashes: bool = True,
) -> st.SearchStrategy[Scenario]:
    """Scenarios of a fleet. The first worker of each job is honest.

    Args:
      fleet: whose workers play.
      jobs: the most jobs.
      workers: the fewest and the most workers of a job.
      bad: the most workers of a job that are not honest; any number by default. A coordinator that
        votes can promise nothing where most are.
      roles: of those that are not honest.
      faults: whether the network loses, repeats, delays and reorders messages.
      crashes: whether the coordinator is killed.
    """
    dishonest = [role for role in roles if role is not Role.HONEST]
    # In the first job there is nothing to replay; later, it is drawn more often.
    first = [role for role in dishonest if role is not Role.REPLAYING]
    later = dishonest + [role for role in dishonest if role is Role.REPLAYING] * 2
    most = workers[1] - 1 if bad is None else bad
    # Those that can be judged twice as often as the last, which may be none.
    inputs = [*range(len(fleet.pool.inputs)), *range(len(fleet.pool.inputs) - 1)]
    drawn = _Drawn(
        counts=st.tuples(_mostly_most(1, jobs), st.integers(*workers)),
        wrong=_mostly_most(min(1, most), most) if dishonest else st.just(0),
        honest=plans(fleet, (Role.HONEST,), faults=faults),
        first=plans(fleet, first or (Role.HONEST,), faults=faults),
        later=plans(fleet, later or (Role.HONEST,), faults=faults),
        asked=st.tuples(st.sampled_from(inputs), st.integers(0, 1)),
        crashes=st.lists(_CRASHES, max_size=2, unique=True) if crashes else st.just([]),
    )
    return _scenarios(drawn)


def _mostly_most(least: int, most: int) -> st.SearchStrategy[int]:
    """Numbers, the largest three times as often as any other: where more happens, more is found."""
    return st.sampled_from((*range(least, most), most, most, most))


_CRASHES = st.tuples(
    st.integers(0, 1),
    st.sampled_from((5, 30, COMMIT + 1, COMMIT + 4, COMMIT + HAND_IN + 2, END - 50, END + 2)),
).map(lambda drawn: PERIOD * drawn[0] + drawn[1])
_SEEDS = seeds()
_EITHER = st.booleans()
_SAME = st.sampled_from((True, True, True, False))


class _Drawn(NamedTuple):
    """Strategies of the parts of a scenario, made once: making one costs more than drawing."""

    counts: st.SearchStrategy[tuple[int, int]]
    wrong: st.SearchStrategy[int]
    honest: st.SearchStrategy[WorkerPlan]
    first: st.SearchStrategy[WorkerPlan]
    later: st.SearchStrategy[WorkerPlan]
    asked: st.SearchStrategy[tuple[int, int]]
    crashes: st.SearchStrategy[list[int]]


@st.composite
def _scenarios(draw: st.DrawFn, parts: _Drawn) -> Scenario:
    count, size = draw(parts.counts)
    found: list[JobPlan] = []
    for _ in range(count):
        wrong = min(draw(parts.wrong), size - 1)
        good = [draw(parts.honest) for _ in range(size - wrong)]
        others = [draw(parts.later if found else parts.first) for _ in range(wrong)]
        # What is replayed is wrong in most other jobs, whoever looks at its name.
        replayed = any(worker.role is Role.REPLAYING for worker in others)
        same = bool(found) and draw(_SAME if replayed else _EITHER)
        asked = (found[0].input, found[0].version) if same else draw(parts.asked)
        found.append(JobPlan(workers=(*good, *others), input=asked[0], version=asked[1]))
    crashes = tuple(sorted(draw(parts.crashes)))
    return Scenario(jobs=tuple(found), crashes=crashes, seed=draw(_SEEDS))


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
