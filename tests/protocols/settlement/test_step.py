"""Verdicts, votes and their collection: laws, named cheats, and every order of arrival."""

from __future__ import annotations

import functools
import hashlib
import itertools
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.settlement import (
    Accuse,
    AskVotes,
    RefuseVote,
    SettlementEffect,
    SettlementPhase,
    SettlementRules,
    SettlementState,
    SubmitSettlement,
    Tick,
    VoteReceived,
    start_epoch,
    start_rotation,
    step,
)
from protocols.settlement.committee import Committee, Member, prove_registration, registered_key
from protocols.settlement.statements import EpochStatement, Rotation, SettlementError
from protocols.settlement.submission import Head, verify_epoch, verify_rotation
from protocols.settlement.verdicts import EpochLog, VerdictRecord, verify_verdict
from protocols.settlement.votes import Equivocation, Signer, Vote, sign_epoch, sign_rotation
from tests.helpers.committees import (
    CHAIN,
    ELSEWHERE,
    POLICY,
    committee,
    holder,
    log,
    record,
    secret,
    signature,
    statement,
    submission,
    vote,
)
from verifiable import bls, encoding
from verifiable.bls import BadSignature, BatchReport, SecretKey, Signature, curve
from verifiable.errors import MalformedEncoding, MerkleError, VerificationError
from verifiable.merkle import SHA256
from verifiable.report import Verdict

FOUR = committee((1, 1, 1, 1))
NEXT = committee((1, 1, 1), first=10)
HEAD = Head(committee=FOUR)
RECORDS = [record(i) for i in range(7)]
LOG = EpochLog.of(RECORDS)
STATEMENT = statement(HEAD, LOG)
LIES = log(range(1, 8))
LIE = statement(HEAD, LIES)
ROTATION = HEAD.rotation(NEXT)
NOW = 1_000_000


# --------------------------------------------------------------------------------------- verdicts


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, word for word."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + mth(leaves[:k]) + mth(leaves[k:])).digest()


@given(st.permutations(list(range(9))), st.integers(1, 9))
def test_the_root_is_a_function_of_the_set_of_verdicts(order: list[int], size: int):
    records = [record(i) for i in order[:size]]
    made = EpochLog.of(records)
    assert made.tree.root == mth([record(i).encode() for i in sorted(order[:size])])
    assert made.records == tuple(sorted(records, key=lambda r: r.job))
    for r in records:
        index = made.index(r.job, r.worker)
        assert made.records[index] == r
        verify_verdict(r, index=index, proof=made.inclusion(index), statement=statement(HEAD, made))
    with pytest.raises(KeyError):
        made.index(record(100).job, record(100).worker)
    with pytest.raises(KeyError):
        made.index(record(order[0]).job, b"\xff" * 32)


LOGS: dict[str, tuple[str, Callable[[], EpochLog]]] = {
    "nothing": ("no-verdicts", lambda: EpochLog.of([])),
    "a verdict twice": ("unordered-verdicts", lambda: EpochLog.of([*RECORDS, RECORDS[3]])),
    "two verdicts on one run": (
        "unordered-verdicts",
        lambda: EpochLog.of([*RECORDS, replace(RECORDS[3], reason="audited")]),
    ),
    "out of order": ("unordered-verdicts", lambda: EpochLog(RECORDS[::-1])),
    "of two epochs": ("other-epoch", lambda: EpochLog.of([*RECORDS, record(9, epoch=1)])),
    "of two policies": (
        "other-policy",
        lambda: EpochLog.of([*RECORDS, record(9, policy=bytes(32))]),
    ),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_log_that_is_none_cannot_be_built(name: str):
    expected, build = LOGS[name]
    with pytest.raises(SettlementError) as raised:
        build()
    assert raised.value.reason == expected


PROOF = LOG.inclusion(2)
INNER = SHA256.node(SHA256.leaf(RECORDS[0].encode()), SHA256.leaf(RECORDS[1].encode()))
INCLUSIONS: dict[str, Callable[[], None]] = {
    "a verdict never signed": lambda: shown(record(8)),
    "accepted instead of rejected": lambda: shown(replace(RECORDS[2], checked=0)),
    "at another position": lambda: shown(RECORDS[2], index=3),
    "beyond the end": lambda: shown(RECORDS[2], index=7),
    "proof of another": lambda: shown(RECORDS[2], proof=LOG.inclusion(3)),
    "without a proof": lambda: shown(RECORDS[2], proof=()),
    "a longer proof": lambda: shown(RECORDS[2], proof=(*PROOF, bytes(32))),
    "of yesterday's epoch": lambda: shown(replace(RECORDS[2], epoch=1)),
    "under another policy": lambda: shown(replace(RECORDS[2], policy=bytes(32))),
    "a leaf taken for the root": lambda: shown(
        RECORDS[2], proof=(), of=replace(STATEMENT, root=SHA256.leaf(RECORDS[2].encode()))
    ),
    "a node taken for a leaf": lambda: shown(
        RECORDS[2], index=0, proof=PROOF[1:], of=replace(STATEMENT, size=4)
    ),
}


def shown(
    what: VerdictRecord,
    index: int = 2,
    proof: Sequence[bytes] = PROOF,
    of: EpochStatement = STATEMENT,
) -> None:
    verify_verdict(what, index=index, proof=proof, statement=of)


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"epoch": 1}, "other-epoch"), ({"policy": bytes(32)}, "other-policy")],
    ids=["epoch", "policy"],
)
def test_a_verdict_is_of_the_statements_epoch_and_policy(change: dict[str, Any], expected: str):
    """Although it is in the tree: the same root may be signed for another epoch."""
    with pytest.raises(SettlementError) as raised:
        shown(RECORDS[2], of=replace(STATEMENT, **change))
    assert raised.value.reason == expected


@pytest.mark.parametrize("name", INCLUSIONS)
def test_what_is_not_in_the_epoch_is_not_shown_to_be(name: str):
    shown(RECORDS[2])
    with pytest.raises((MerkleError, SettlementError)):
        INCLUSIONS[name]()


def test_a_leaf_is_never_a_node():
    """No record encodes to what a node hashes, 64 bytes; and their prefixes differ."""
    assert len(min((r.encode() for r in RECORDS), key=len)) > 64
    with pytest.raises(MalformedEncoding):
        VerdictRecord.decode(bytes(64))
    assert SHA256.leaf(SHA256.leaf(RECORDS[0].encode()) + SHA256.leaf(b"")) != INNER


digests = st.binary(min_size=32, max_size=32)
uints = st.integers(0, 2**64 - 1)
codes = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=32)


@st.composite
def records(draw: st.DrawFn) -> VerdictRecord:
    verdict = draw(st.sampled_from(list(Verdict)))
    accepted = verdict is Verdict.ACCEPT
    return VerdictRecord(
        epoch=draw(uints),
        job=draw(digests),
        worker=draw(digests),
        verdict=verdict,
        reason=draw(codes),
        commitment=draw(digests if accepted else st.none() | digests),
        answer=draw(digests) if accepted else None,
        program=draw(digests),
        policy=draw(digests),
        checked=draw(uints),
        replayed=draw(uints),
    )


@settings(deadline=None)
@given(records())
def test_records_survive_the_wire(r: VerdictRecord):
    assert VerdictRecord.decode(r.encode()) == r
    assert len(r.encode()) <= VerdictRecord.MAX_SIZE


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_the_decoder_of_records_raises_nothing_else(data: st.DataObject):
    values = encoding.decode(RECORDS[0].encode(), max_size=512)
    for _ in range(data.draw(st.integers(0, 2))):
        some = st.none() | st.booleans() | uints | digests | st.text(max_size=3) | st.floats(0, 1)
        values[data.draw(st.integers(0, len(values) - 1))] = data.draw(some)
    raw = bytearray(encoding.encode(values))
    for _ in range(data.draw(st.integers(0, 1))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + 1] = data.draw(st.binary(max_size=2))
    try:
        assert VerdictRecord.decode(bytes(raw)).encode() == bytes(raw)
    except MalformedEncoding:
        return


CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "accepted without an answer": {"answer": None},
    "an answer that was not accepted": {"verdict": Verdict.REJECT},
    "accepted without a commitment": {"commitment": None},
    "no reason": {"reason": ""},
    "a reason in prose": {"reason": "It was late."},
    "a long reason": {"reason": "a" * 33},
    "a verdict as text": {"verdict": "accept"},
    "a coverage below zero": {"checked": -1},
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_records_that_contradict_themselves_cannot_be_built(name: str):
    with pytest.raises(ValueError, match=r"type, size or range|answer|nothing"):
        record(0, **CONTRADICTIONS[name])


# ---------------------------------------------------------------------------------------- signing

SIGNER = Signer(head=HEAD, policy=POLICY)


def test_a_member_signs_what_it_holds():
    after, made = sign_epoch(holder(FOUR, 2), SIGNER, STATEMENT, reversed(RECORDS))
    made.verify(FOUR)
    assert made == vote(FOUR, 2, STATEMENT)
    assert after == replace(SIGNER, epoch_signed=STATEMENT)
    again, same = sign_epoch(holder(FOUR, 2), after, STATEMENT, RECORDS)
    assert (again, same) == (after, made)


UNSIGNED: dict[str, tuple[str, dict[str, Any], Iterable[VerdictRecord], Signer]] = {
    "a root whose data it does not hold": ("other-size", {}, RECORDS[:-1], SIGNER),
    "data that nobody can fetch": ("no-verdicts", {}, [], SIGNER),
    "other verdicts": ("other-root", {}, LIES.records, SIGNER),
    "a verdict more": ("other-size", {}, [*RECORDS, record(9)], SIGNER),
    "one verdict turned": (
        "other-root",
        {},
        [*RECORDS[:-1], record(6, verdict=Verdict.REJECT, answer=None)],
        SIGNER,
    ),
    "another root over its data": ("other-root", {"root": b"\1" * 32}, RECORDS, SIGNER),
    "another size of its data": ("other-size", {"size": 8}, RECORDS, SIGNER),
    "another policy": ("other-policy", {"policy": b"\1" * 32}, RECORDS, SIGNER),
    "verdicts under a policy not its own": (
        "other-policy",
        {},
        RECORDS,
        replace(SIGNER, policy=b"\1" * 32),
    ),
    "verdicts under another policy than they say": (
        "other-policy",
        {"policy": b"\1" * 32},
        RECORDS,
        replace(SIGNER, policy=b"\1" * 32),
    ),
    "another chain": ("other-chain", {"chain_id": 1}, RECORDS, SIGNER),
    "another contract": ("other-contract", {"contract": b"\1" * 20}, RECORDS, SIGNER),
    "another committee": ("other-committee", {"committee": NEXT.id}, RECORDS, SIGNER),
    "another term": ("other-sequence", {"sequence": 1}, RECORDS, SIGNER),
    "another past": ("other-previous-root", {"previous_root": b"\1" * 32}, RECORDS, SIGNER),
    "an epoch ahead": ("epoch-ahead", {"epoch": 1}, RECORDS, SIGNER),
    "a settled epoch": (
        "epoch-settled",
        {},
        RECORDS,
        replace(SIGNER, head=replace(HEAD, epoch=1, root=STATEMENT.root)),
    ),
    "verdicts of another epoch": (
        "other-epoch",
        {},
        [record(i, epoch=1) for i in range(7)],
        SIGNER,
    ),
    "a second statement for one epoch": (
        "already-signed",
        {},
        RECORDS,
        replace(SIGNER, epoch_signed=LIE),
    ),
}


@pytest.mark.parametrize("name", UNSIGNED)
def test_a_member_signs_nothing_else(name: str):
    expected, change, held, signer = UNSIGNED[name]
    with pytest.raises(SettlementError) as raised:
        sign_epoch(holder(FOUR, 0), signer, replace(STATEMENT, **change), held)
    assert raised.value.reason == expected


def test_a_stranger_signs_nothing():
    with pytest.raises(SettlementError, match="unknown-member"):
        sign_epoch(holder(NEXT, 0), SIGNER, STATEMENT, RECORDS)


def test_a_member_signs_one_rotation_a_term():
    other = committee((1, 1, 1), first=13)
    after, made = sign_rotation(holder(FOUR, 1), SIGNER, ROTATION, NEXT)
    made.verify(FOUR)
    assert after.rotation_signed == ROTATION
    with pytest.raises(SettlementError, match="already-signed"):
        sign_rotation(holder(FOUR, 1), after, HEAD.rotation(other), other)
    with pytest.raises(SettlementError, match="other-incoming"):
        sign_rotation(holder(FOUR, 1), SIGNER, ROTATION, other)
    with pytest.raises(SettlementError, match="other-chain"):
        sign_rotation(holder(FOUR, 1), SIGNER, replace(ROTATION, chain_id=1), NEXT)
    # An epoch is another place: both may be signed in one term.
    sign_epoch(holder(FOUR, 1), after, STATEMENT, RECORDS)


def test_after_a_rotation_an_unsettled_epoch_is_signed_anew():
    """The new term is a new place: whoever sits in both committees contradicts nothing."""
    both, key = committee((2, 1, 1), first=1), secret(1)
    before, first = sign_epoch(key, SIGNER, STATEMENT, RECORDS)
    head = Head(committee=both, sequence=1)
    _, second = sign_epoch(key, before.follow(head), statement(head, LOG), RECORDS)
    with pytest.raises(SettlementError, match="no-conflict"):
        Equivocation.of(first, replace(second, member=first.member))


def test_a_signer_never_goes_back():
    ahead = SIGNER.follow(replace(HEAD, epoch=2, sequence=1))
    for head in (replace(HEAD, epoch=1, sequence=1), replace(HEAD, epoch=2, sequence=0)):
        with pytest.raises(ValueError, match="never goes back"):
            ahead.follow(head)
    away = Head(committee=committee((1, 1, 1), 10, ELSEWHERE))
    with pytest.raises(ValueError, match="one contract"):
        SIGNER.follow(away)


def test_a_signer_killed_after_signing_remembers():
    """What is stored before the vote leaves is enough to sign nothing else afterwards."""
    before, _ = sign_epoch(holder(FOUR, 0), SIGNER, STATEMENT, RECORDS)
    before, _ = sign_rotation(holder(FOUR, 0), before, ROTATION, NEXT)
    again = Signer.decode(before.encode(), HEAD)
    assert again == before
    with pytest.raises(SettlementError, match="already-signed"):
        sign_epoch(holder(FOUR, 0), again, LIE, LIES.records)
    assert Signer.decode(SIGNER.encode(), HEAD) == SIGNER
    ahead = replace(HEAD, epoch=3, sequence=2)
    assert Signer.decode(before.encode(), ahead) == before.follow(ahead)


def test_stored_memory_is_of_one_chain_and_never_ahead():
    stored = SIGNER.follow(replace(HEAD, epoch=3)).encode()
    with pytest.raises(ValueError, match="never goes back"):
        Signer.decode(stored, HEAD)
    with pytest.raises(ValueError, match="one contract"):
        Signer.decode(stored, Head(committee=committee((1, 1, 1), 10, ELSEWHERE), epoch=3))
    fields = encoding.decode(stored, max_size=1024)
    wrong = {
        0: "vote",
        1: 2,
        2: None,
        3: b"",
        4: "1",
        5: None,
        6: b"\1" * 287,
        7: STATEMENT.message,
    }
    for at, value in wrong.items():
        changed = encoding.encode([*fields[:at], value, *fields[at + 1 :]])
        with pytest.raises((MalformedEncoding, ValueError)):
            Signer.decode(changed, replace(HEAD, epoch=3))
    with pytest.raises(MalformedEncoding):
        Signer.decode(encoding.encode(fields[:-1]), replace(HEAD, epoch=3))


# ------------------------------------------------------------------------------- votes, evidence


def test_votes_and_evidence_survive_the_wire():
    made = vote(FOUR, 1, STATEMENT)
    assert Vote.decode(EpochStatement, made.encode()) == made
    turn = vote(FOUR, 1, ROTATION)
    assert Vote.decode(Rotation, turn.encode()) == turn
    evidence = Equivocation.of(made, vote(FOUR, 1, LIE))
    assert evidence == Equivocation.of(vote(FOUR, 1, LIE), made)
    assert Equivocation.decode(EpochStatement, evidence.encode()) == evidence
    evidence.verify(FOUR)
    with pytest.raises(MalformedEncoding):
        Vote.decode(Rotation, made.encode())
    with pytest.raises(MalformedEncoding):
        Equivocation.decode(Rotation, evidence.encode())
    with pytest.raises(MalformedEncoding):
        Vote.decode(EpochStatement, evidence.encode())


def test_a_second_rotation_is_evidence_too():
    other = HEAD.rotation(committee((1, 1, 1), first=13))
    Equivocation.of(vote(FOUR, 3, ROTATION), vote(FOUR, 3, other)).verify(FOUR)


A, B = vote(FOUR, 1, STATEMENT), vote(FOUR, 1, LIE)
FRAMES: dict[str, tuple[str, Callable[[], None]]] = {
    "one statement twice": ("no-conflict", lambda: Equivocation.of(A, A).verify(FOUR)),
    "two members": (
        "no-conflict",
        lambda: Equivocation.of(A, vote(FOUR, 2, LIE)).verify(FOUR),
    ),
    "two epochs": (
        "no-conflict",
        lambda: Equivocation.of(A, vote(FOUR, 1, replace(LIE, epoch=1))).verify(FOUR),
    ),
    "two terms": (
        "no-conflict",
        lambda: Equivocation.of(A, vote(FOUR, 1, replace(LIE, sequence=1))).verify(FOUR),
    ),
    "two chains": (
        "no-conflict",
        lambda: Equivocation.of(A, vote(FOUR, 1, replace(LIE, chain_id=1))).verify(FOUR),
    ),
    "out of order": (
        "no-conflict",
        lambda: Equivocation(
            first=max(A, B, key=lambda v: v.statement.message),
            second=min(A, B, key=lambda v: v.statement.message),
        ).verify(FOUR),
    ),
    "another's signature on the second": (
        "BadSignature",
        lambda: Equivocation.of(A, replace(B, signature=signature(FOUR, 2, LIE))).verify(FOUR),
    ),
    "the first signature again": (
        "BadSignature",
        lambda: Equivocation.of(A, replace(B, signature=A.signature)).verify(FOUR),
    ),
    "members of another committee": (
        "other-committee",
        lambda: Equivocation.of(A, B).verify(NEXT),
    ),
    "a member that there is not": (
        "unknown-member",
        lambda: Equivocation.of(replace(A, member=4), replace(B, member=4)).verify(FOUR),
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_nobody_is_framed(name: str):
    expected, accuse = FRAMES[name]
    with pytest.raises(VerificationError) as raised:
        accuse()
    found = raised.value
    assert (found.reason if isinstance(found, SettlementError) else type(found).__name__) == (
        expected
    )


@pytest.mark.parametrize("side", ["first", "second"])
def test_both_votes_of_the_evidence_are_verified(side: str):
    evidence = Equivocation.of(A, B)
    true = getattr(evidence, side)
    forged = replace(true, signature=signature(FOUR, 2, true.statement))
    with pytest.raises(BadSignature):
        replace(evidence, **{side: forged}).verify(FOUR)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_decoders_of_votes_raise_nothing_else(data: st.DataObject):
    for made in (A, Equivocation.of(A, B)):
        raw = bytearray(made.encode())
        for _ in range(data.draw(st.integers(1, 2))):
            at = data.draw(st.integers(0, len(raw)))
            raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        try:
            read = type(made).decode(EpochStatement, bytes(raw))
            assert read.encode() == bytes(raw)
            read.verify(FOUR)
        except VerificationError:
            continue
        assert read == made


@pytest.mark.parametrize("member", [256, -1, 2**64 - 1, True, None, b"\1", 1.0])
def test_members_have_numbers(member: Any):
    fields = ["epoch vote", 1, member, STATEMENT.message, A.signature.encoded]
    with pytest.raises(MalformedEncoding):
        Vote.decode(EpochStatement, encoding.encode(fields))
    with pytest.raises((ValueError, TypeError)):
        Vote(statement=STATEMENT, member=member, signature=A.signature)


# ------------------------------------------------------------------------------------- collection


@functools.cache
def holds(entry: bls.SignedMessage, domain: bytes) -> bool:
    try:
        bls.verify(entry.key, entry.message, entry.signature, domain=domain)
    except BadSignature:
        return False
    return True


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch):
    """Each signature is verified once, alone, however many orders are tried."""

    def find(batch: Sequence[bls.SignedMessage], *, domain: bytes) -> BatchReport:
        invalid = tuple(i for i, entry in enumerate(batch) if not holds(entry, domain))
        return BatchReport(size=len(batch), invalid=invalid, tests=0, bound=0.0)

    monkeypatch.setattr(bls, "find_invalid", find)


@functools.cache
def settles(made: Any, head: Head) -> Head:
    return verify_epoch(made, head)


def run(
    state: SettlementState[Any], events: Iterable[Tick | VoteReceived[Any]]
) -> tuple[SettlementState[Any], list[SettlementEffect]]:
    effects: list[SettlementEffect] = []
    for event in events:
        state, more = step(state, event)
        effects += more
    return state, effects


def kinds(effects: Iterable[SettlementEffect], kind: type[Any]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


FORGED = replace(vote(FOUR, 0, STATEMENT), signature=signature(FOUR, 1, STATEMENT))
ARRIVALS = {
    "member 0": vote(FOUR, 0, STATEMENT),
    "member 1": vote(FOUR, 1, STATEMENT),
    "member 2": vote(FOUR, 2, STATEMENT),
    "member 3 equivocates": vote(FOUR, 3, STATEMENT),
    "member 3": vote(FOUR, 3, LIE),
    "forged for member 0": FORGED,
    "member 1 again": vote(FOUR, 1, STATEMENT),
}


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("grace", [0, 5])
def test_every_order_of_arrival(batch: int, grace: int):
    rules = SettlementRules(batch=batch, ask_seconds=10, grace_seconds=grace)
    start, (ask,) = start_epoch(HEAD, LOG, rules, now=NOW)
    assert ask == AskVotes(statement=STATEMENT, members=(0, 1, 2, 3), deadline=NOW + 10)
    ends: set[Any] = set()
    for order in itertools.permutations(ARRIVALS.values()):
        events: list[Tick | VoteReceived[Any]] = [VoteReceived(at=NOW + 1, vote=v) for v in order]
        state, effects = run(start, [*events, Tick(at=NOW + 100), Tick(at=NOW + 200)])
        (submit,) = kinds(effects, SubmitSettlement)
        settles(submit.submission, HEAD)
        (accused,) = kinds(effects, Accuse)
        assert accused.evidence.first.member == 3
        reasons = sorted((r.member, r.reason) for r in kinds(effects, RefuseVote))
        assert reasons == [(0, "bad-signature"), (1, "duplicate"), (3, "other-statement")]
        assert (state.phase, state.pending, state.deadline) == (SettlementPhase.DONE, (), None)
        ends.add((tuple(sorted(state.signatures.items())), tuple(state.strays.items())))
    assert len(ends) == 1
    accused.evidence.verify(FOUR)


@pytest.mark.usefixtures("remembered")
def test_every_set_of_votes_with_losses_and_ticks():
    """Submitted iff the quorum voted; nobody accused but for two signatures; all asked again."""
    rules = SettlementRules(batch=2, ask_seconds=10)
    start, _ = start_epoch(HEAD, LOG, rules, now=NOW)
    names = list(ARRIVALS)
    for size in range(len(names) + 1):
        for chosen in itertools.combinations(names, size):
            events: list[Tick | VoteReceived[Any]] = []
            for at, name in enumerate(chosen):
                events += [
                    VoteReceived(at=NOW + 4 * at, vote=ARRIVALS[name]),
                    Tick(at=NOW + 4 * at),
                ]
            state, effects = run(start, [*events, Tick(at=NOW + 100)])
            valid = {
                v.member
                for v in map(ARRIVALS.__getitem__, chosen)
                if v.statement == STATEMENT and v is not FORGED
            }
            assert set(state.signatures) == valid
            assert len(kinds(effects, SubmitSettlement)) == (len(valid) >= 3)
            both = {"member 3", "member 3 equivocates"} <= set(chosen)
            assert len(kinds(effects, Accuse)) == both
            if len(valid) < 3:
                ask = kinds(effects, AskVotes)[-1]
                assert set(ask.members) == {0, 1, 2, 3} - valid
                assert state.deadline == ask.deadline > NOW + 100


def received(*votes: Vote[Any], at: int = NOW + 1) -> list[VoteReceived[Any]]:
    return [VoteReceived(at=at, vote=v) for v in votes]


def begin(**change: int) -> SettlementState[EpochStatement]:
    return start_epoch(HEAD, LOG, SettlementRules(**change), now=NOW)[0]


def test_a_coordinator_killed_at_any_point_goes_on():
    """The state is a value: stored and read back between all events, it does the same."""
    events = [*received(*ARRIVALS.values()), Tick(at=NOW + 60)]
    state, stored = begin(batch=3), begin(batch=3)
    for event in events:
        state, effects = step(state, event)
        stored, same = step(pickle.loads(pickle.dumps(stored)), event)  # noqa: S301
        assert (stored, same) == (state, effects)
    assert state.phase is SettlementPhase.DONE


def test_the_quorum_submits_at_once():
    state, effects = run(begin(), received(*(vote(FOUR, i, STATEMENT) for i in (3, 0, 2))))
    (submit,) = effects
    assert submit == SubmitSettlement(submission=submission(FOUR, [0, 2, 3], STATEMENT))
    assert verify_epoch(submit.submission, HEAD).epoch == 1
    _, after = run(state, received(vote(FOUR, 1, STATEMENT)))
    assert after == []


def test_grace_lets_the_rest_join():
    votes = [vote(FOUR, i, STATEMENT) for i in range(4)]
    state, effects = run(begin(grace_seconds=5), received(*votes[:3]))
    assert (effects, state.phase, state.deadline) == ([], SettlementPhase.GRACE, NOW + 6)
    _, (full,) = run(state, received(votes[3], at=NOW + 2))
    assert full == SubmitSettlement(submission=submission(FOUR, [0, 1, 2, 3], STATEMENT))
    state, effects = run(state, [Tick(at=NOW + 5)])
    assert effects == []
    _, (rest,) = run(state, [Tick(at=NOW + 6)])
    assert rest == SubmitSettlement(submission=submission(FOUR, [0, 1, 2], STATEMENT))


def test_time_never_goes_back():
    state, _ = step(begin(), Tick(at=NOW + 7))
    state, _ = step(state, Tick(at=NOW))
    assert state.now == NOW + 7


def shifted(v: Vote[Any], by: Any) -> Vote[Any]:
    point = curve.active().g2.sum([v.signature.point, by])
    return replace(v, signature=Signature.from_point(point))


def test_a_forged_batch_whose_errors_cancel():
    """S1 + D and S2 - D add up to a valid sum; neither is a vote."""
    d = signature(FOUR, 3, LIE).point
    minus = curve.active().g2.combine([d], [curve.ORDER - 1])
    forged = [shifted(vote(FOUR, 0, STATEMENT), d), shifted(vote(FOUR, 1, STATEMENT), minus)]
    total = bls.aggregate([v.signature for v in forged])
    assert total == bls.aggregate([signature(FOUR, i, STATEMENT) for i in (0, 1)])
    state, effects = run(begin(), received(*forged, vote(FOUR, 2, STATEMENT)))
    assert kinds(effects, SubmitSettlement) == []
    assert [(r.member, r.reason) for r in kinds(effects, RefuseVote)] == [
        (0, "bad-signature"),
        (1, "bad-signature"),
    ]
    # Forgeries in their names keep nobody from voting.
    state, effects = run(state, received(vote(FOUR, 0, STATEMENT), vote(FOUR, 1, STATEMENT)))
    assert len(kinds(effects, SubmitSettlement)) == 1


def test_messages_swapped_within_a_batch():
    """Each signature is under the other's statement."""
    swapped = [
        replace(vote(FOUR, 0, STATEMENT), signature=signature(FOUR, 1, LIE)),
        replace(vote(FOUR, 1, LIE), signature=signature(FOUR, 0, STATEMENT)),
    ]
    _, effects = run(begin(), [*received(*swapped), Tick(at=NOW + 60)])
    reasons = [r.reason for r in kinds(effects, RefuseVote)]
    assert reasons == ["bad-signature", "bad-signature"]


STRANGERS: dict[str, tuple[str, Callable[[], Vote[Any]]]] = {
    "a member that there is not": (
        "unknown-member",
        lambda: replace(vote(FOUR, 0, STATEMENT), member=4),
    ),
    "another epoch": ("other-place", lambda: vote(FOUR, 0, replace(STATEMENT, epoch=1))),
    "another chain": ("other-place", lambda: vote(FOUR, 0, replace(STATEMENT, chain_id=1))),
    "another contract": (
        "other-place",
        lambda: vote(FOUR, 0, replace(STATEMENT, contract=b"\1" * 20)),
    ),
    "another term": ("other-place", lambda: vote(FOUR, 0, replace(STATEMENT, sequence=1))),
    "yesterday's committee": (
        "other-place",
        lambda: vote(NEXT, 0, replace(STATEMENT, committee=NEXT.id)),
    ),
    "a rotation": ("other-place", lambda: vote(FOUR, 0, ROTATION)),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_votes_on_something_else_are_turned_away(name: str):
    expected, make = STRANGERS[name]
    made = make()
    state, effects = run(begin(), received(made))
    assert effects == [RefuseVote(member=made.member, reason=expected)]
    assert state.pending == ()


def test_a_member_is_accused_once():
    third = statement(HEAD, log(range(2, 9)))
    votes = [vote(FOUR, 3, s) for s in (STATEMENT, LIE, third)]
    for order in itertools.permutations(votes):
        _, effects = run(begin(batch=1), received(*order))
        (accusation,) = kinds(effects, Accuse)
        accusation.evidence.verify(FOUR)


def test_equivocation_is_seen_after_the_submission():
    state, _ = run(begin(), received(*(vote(FOUR, i, STATEMENT) for i in (0, 1, 2))))
    assert state.phase is SettlementPhase.DONE
    state, effects = run(state, received(vote(FOUR, 2, LIE)))
    (accusation,) = kinds(effects, Accuse)
    assert accusation.evidence == Equivocation.of(vote(FOUR, 2, LIE), vote(FOUR, 2, STATEMENT))
    _, effects = run(state, received(FORGED, vote(FOUR, 2, LIE)))
    assert [r.reason for r in kinds(effects, RefuseVote)] == ["bad-signature", "duplicate"]


def test_two_quorums_share_equivocators():
    """More than a third of the weight: the reason for the two thirds."""
    for first in itertools.combinations(range(4), 3):
        for second in itertools.combinations(range(4), 3):
            shared = set(first) & set(second)
            assert 3 * FOUR.weight(frozenset(shared)) > FOUR.total
            state, _ = run(begin(), received(*(vote(FOUR, i, STATEMENT) for i in first)))
            _, effects = run(state, received(*(vote(FOUR, i, LIE) for i in second)))
            accused = {a.evidence.first.member for a in kinds(effects, Accuse)}
            assert accused == shared
        if first == (0, 1, 3):
            break


def test_keys_that_cancel_out_delay_and_do_no_more():
    x = SecretKey.generate(b"\x77" * 32)
    minus = SecretKey(curve.ORDER - int.from_bytes(x.encode(), "big"))

    def member(held: SecretKey, weight: int) -> Member:
        proof = prove_registration(held, CHAIN, b"\1" * 20)
        key = registered_key(held.public_key, proof, CHAIN, b"\1" * 20)
        return Member(key=key, weight=weight)

    third = SecretKey.generate(b"\x78" * 32)
    of = Committee.of(CHAIN, [member(x, 4), member(minus, 4), member(third, 1)])
    head = Head(committee=of)
    s = statement(head, LOG)

    def by(held: SecretKey) -> Vote[EpochStatement]:
        return Vote(
            statement=s,
            member=of.index(held.public_key),
            signature=held.sign(s.message, domain=s.DOMAIN),
        )

    state, _ = start_epoch(head, LOG, SettlementRules(), now=NOW)
    state, effects = run(state, [*received(by(x), by(minus)), Tick(at=NOW + 60)])
    assert kinds(effects, SubmitSettlement) == []
    _, effects = run(state, received(by(third)))
    (submit,) = kinds(effects, SubmitSettlement)
    assert verify_epoch(submit.submission, head).epoch == 1


def test_a_rotation_is_collected_the_same_way():
    state, (ask,) = start_rotation(HEAD, NEXT, SettlementRules(), now=NOW)
    assert isinstance(ask, AskVotes)
    assert ask.statement == ROTATION
    _, effects = run(state, received(*(vote(FOUR, i, ROTATION) for i in range(3))))
    (submit,) = kinds(effects, SubmitSettlement)
    assert verify_rotation(submit.submission, HEAD, NEXT) == Head(committee=NEXT, sequence=1)


def test_an_epoch_starts_in_its_turn():
    with pytest.raises(SettlementError, match="other-epoch"):
        start_epoch(HEAD, log([1], epoch=1), SettlementRules(), now=NOW)
    for change in ({"batch": 0}, {"ask_seconds": 0}, {"grace_seconds": -1}):
        with pytest.raises(ValueError, match="positive"):
            SettlementRules(**change)


def test_from_verdicts_to_the_head_and_on():
    """Two epochs and a rotation between them, each member with its own memory."""
    head, incoming = HEAD, NEXT
    signers = {i: Signer(head=head, policy=POLICY) for i in range(4)}
    for epoch in range(2):
        records = [record(i, epoch=epoch) for i in range(5 + epoch)]
        state, (ask,) = start_epoch(head, EpochLog.of(records), SettlementRules(), now=NOW)
        assert isinstance(ask, AskVotes)
        submits: list[SubmitSettlement[Any]] = []
        for i in ask.members:
            key = holder(head.committee, i)
            signers[i], made = sign_epoch(key, signers[i], ask.statement, records)
            wire = Vote.decode(EpochStatement, made.encode())
            state, effects = step(state, VoteReceived(at=NOW, vote=wire))
            submits += kinds(effects, SubmitSettlement)
        (submit,) = submits
        head = verify_epoch(submit.submission, head)
        if epoch == 0:
            turn = submission(head.committee, [0, 1, 2], head.rotation(incoming))
            head = verify_rotation(turn, head, incoming)
            signers = {i: Signer(head=head, policy=POLICY) for i in range(3)}
    assert (head.epoch, head.sequence, head.committee) == (2, 1, NEXT)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_batch_test_and_one_by_one_agree(data: st.DataObject):
    """The real batch verification, on random arrivals, against each signature alone."""
    pool = [*ARRIVALS.values(), vote(FOUR, 0, LIE), vote(FOUR, 1, LIE)]
    chosen = data.draw(st.lists(st.sampled_from(pool), max_size=8))
    batch = data.draw(st.integers(1, 8))
    state, effects = run(begin(batch=batch), [*received(*chosen), Tick(at=NOW + 60)])
    valid = {v.member for v in chosen if v.statement == STATEMENT and v is not FORGED}
    assert set(state.signatures) == valid
    assert bool(kinds(effects, SubmitSettlement)) == FOUR.has_quorum(frozenset(valid))
