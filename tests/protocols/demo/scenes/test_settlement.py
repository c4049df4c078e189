"""The scene at the contract: its events and their order, and that a wrong ending is noticed."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import pytest

from protocols.contracts import evm
from protocols.demo.contract import DeployedContract
from protocols.demo.forgeries import AFTER, BEFORE
from protocols.demo.scenes import settlement
from protocols.demo.scenes.check import DeviceOutcome
from protocols.demo.scenes.scene import Progress
from protocols.demo.scenes.settlement import ForgeryOutcome, SettlementSummary
from protocols.settlement import submission
from protocols.settlement.statements import SettlementError
from protocols.settlement.verdicts import EpochLog, VerdictRecord
from verifiable.report import Verdict

SEED = bytes(range(32))
WORDS = {"job": b"j" * 32, "program": b"p" * 32, "policy": b"q" * 32}


def judged(count: int = 9) -> list[DeviceOutcome]:
    verdicts = ["accept", "reject", "indeterminate"]
    return [
        DeviceOutcome(
            device=SimpleNamespace(name=f"device {i}"),  # pyright: ignore
            verdict=verdicts[i % 3],
            reason="ok" if i % 3 == 0 else "claim-mismatch",
            claim=None,
            worst=None,
            root=bytes([i]) * 32,
        )
        for i in range(count)
    ]


def records(count: int = 9) -> list[VerdictRecord]:
    return settlement.records(judged(count), **WORDS)


@functools.cache
def events() -> tuple[Any, ...]:
    return tuple(settlement.play(records(), seed=SEED))


def summary() -> SettlementSummary:
    return events()[-1]


def test_the_epoch_is_settled_and_one_verdict_shown():
    done = summary()
    log = EpochLog.of(records())
    assert done.right
    assert done.settled
    statement = done.submission.statement
    assert (statement.root, statement.size, statement.epoch) == (log.tree.root, 9, 0)
    assert statement.policy == WORDS["policy"]
    assert done.shown in log.records
    assert done.path == len(log.inclusion(log.records.index(done.shown)))
    assert (done.members, done.total) == (7, 11)
    assert 3 * done.weight > 2 * done.total > 2 * done.weight
    assert [refusal.reason for refusal in done.refused] == ["bad-signature"]


def test_gas_is_counted_by_step():
    gas = summary().gas
    assert list(gas) == ["register", "activate", "settle", "show"]
    assert 102_900 < gas["settle"] < 300_000
    assert gas["show"] < 80_000
    assert gas["register"] > 7 * 102_900


FORGERIES = [(f.name, f.expected) for f in (*BEFORE, *AFTER)]


@pytest.mark.parametrize(("name", "expected"), FORGERIES)
def test_each_forgery_is_refused_for_its_reason(name: str, expected: str):
    (found,) = [e for e in events() if isinstance(e, ForgeryOutcome) and e.name == name]
    assert found.reason == found.expected == expected
    assert found in summary().outcomes


def test_steps_count_up_to_their_total_and_the_summary_comes_last():
    steps = [e for e in events() if isinstance(e, Progress)]
    assert [s.done for s in steps] == list(range(len(steps)))
    assert {s.total for s in steps} == {len(steps)}
    assert [e for e in events() if isinstance(e, SettlementSummary)] == [events()[-1]]
    assert [e for e in events() if isinstance(e, ForgeryOutcome)] == list(summary().outcomes)


def test_the_submission_on_chain_verifies_in_python():
    sent = summary().submission
    made = DeployedContract.deploy(SEED)
    assert submission.verify_epoch(sent, made.head).root == sent.statement.root


@pytest.mark.parametrize("count", [2, 3, 8])
def test_any_number_of_verdicts_above_one(count: int):
    *_, last = settlement.play(records(count), seed=SEED)
    assert isinstance(last, SettlementSummary)
    assert last.right
    assert last.submission.statement.size == count


def test_fresh_keys_each_time():
    first, second = (tuple(settlement.play(records(2)))[-1] for _ in range(2))
    assert first.submission.statement.committee != second.submission.statement.committee


def test_records_keep_verdict_and_commitment():
    made = records()
    assert [r.verdict for r in made[:3]] == [
        Verdict.ACCEPT,
        Verdict.REJECT,
        Verdict.INDETERMINATE,
    ]
    assert made[0].answer == made[0].commitment == bytes(32)
    assert made[1].answer is None
    assert len({r.worker for r in made}) == len(made)
    assert all(r.job == WORDS["job"] and r.program == WORDS["program"] for r in made)


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"settled": False}, False),
        ({"outcomes": ()}, False),
        ({"outcomes": (ForgeryOutcome(name="n", expected="no-quorum", reason=None),)}, False),
        ({"outcomes": (ForgeryOutcome(name="n", expected="no-quorum", reason="other"),)}, False),
    ],
)
def test_a_wrong_ending_is_told_from_a_right_one(change: dict[str, Any], right: bool):
    assert dataclasses.replace(summary(), **change).right is right


def test_a_contract_that_refuses_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DeployedContract, "refusal", lambda self, data: None)
    *_, last = settlement.play(records(2), seed=SEED)
    assert isinstance(last, SettlementSummary)
    assert last.settled
    assert not last.right


def test_a_contract_that_stores_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DeployedContract, "read", lambda self, name, epoch: bytes(32))
    *_, last = settlement.play(records(2), seed=SEED)
    assert isinstance(last, SettlementSummary)
    assert not last.right


def test_wrong_verdicts_are_refused():
    with pytest.raises(ValueError, match="two verdicts or more"):
        list(settlement.play(records(1)))
    later = [dataclasses.replace(r, epoch=1) for r in records()]
    with pytest.raises(SettlementError, match="other-epoch"):
        list(settlement.play(later))


def test_without_py_evm_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evm, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install 'py-evm>="):
        list(settlement.play(records()))
