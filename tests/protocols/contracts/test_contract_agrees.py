"""Python and the contract agree: on every pair of defects, on random submissions, on proofs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.contracts import calldata, evm
from protocols.settlement import submission
from protocols.settlement.statements import EpochStatement, Rotation
from protocols.settlement.submission import SettlementSubmission
from tests.helpers import onchain
from tests.helpers.chain_cheats import EVERYONE, data_of, honest, incoming, office, python
from tests.helpers.onchain import REGISTRANT, STRANGER, found, signed
from verifiable import merkle
from verifiable.errors import VerificationError
from verifiable.merkle.paths import path

BIG = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])
WORD = st.sampled_from([bytes(32), b"\xff" * 32, b"p" * 32]) | st.binary(min_size=32, max_size=32)


@st.composite
def submissions(draw: st.DrawFn) -> SettlementSubmission[Any]:
    """Submissions like the honest one, of either kind, with up to two fields changed."""
    made = office()
    if draw(st.integers(0, 3)):
        statement = made.head.statement(root=onchain.tree(1).root, size=13, policy=onchain.POLICY)
        names = {
            "root": WORD,
            "size": st.integers(1, 2**64 - 1),
            "policy": WORD,
            "epoch": BIG,
            "previous_root": WORD,
        }
    else:
        statement = made.head.rotation(incoming(made))
        names = {"incoming": WORD | st.just(made.head.committee.id)}
    names |= {
        "chain_id": st.sampled_from([1, 31337, 31338, 2**256 - 1]),
        "contract": st.sampled_from([STRANGER, REGISTRANT, bytes(20), made.address]),
        "committee": st.sampled_from([incoming(made).id, made.head.committee.id, bytes(32)]),
        "sequence": BIG,
    }
    changed = draw(st.lists(st.sampled_from(sorted(names)), max_size=2, unique=True))
    sent = replace(statement, **{name: draw(names[name]) for name in changed})
    told = draw(st.sampled_from([sent, statement]))
    signers = draw(st.just(list(EVERYONE)) | st.lists(st.sampled_from(EVERYONE), min_size=1))
    point = onchain.joint(made.secrets[i] for i in signers)
    domain = draw(
        st.just(told.DOMAIN)
        | st.sampled_from([b"verifiable committee rotation 1", b"verifiable epoch statement 1"])
    )
    signature = point.sign(told.message, domain=domain)
    honest_bitmap = made.head.committee.bitmap(signers)
    bitmap = draw(
        st.just(honest_bitmap)
        | st.sampled_from([b"\x7f", b"\xff", b"\0", b"\x7f\0", b"\x7e"])
        | st.binary(min_size=1, max_size=32)
    )
    return SettlementSubmission(statement=sent, signature=signature, bitmap=bitmap)


REASONS = (
    "bad-signature bitmap-excess bitmap-length no-quorum other-chain other-contract epoch-ahead "
    "epoch-settled other-committee other-sequence other-previous-root other-incoming"
)


def agreed(sent: SettlementSubmission[Any]) -> str | None:
    """The reason that Python gives, after comparing it with the contract's."""
    ours, theirs = python(sent, office().head), office().refusal(data_of(sent))
    if ours == "other-incoming":
        # The contract checks the incoming committee only after it has counted the signers.
        assert theirs in {ours, "bitmap-length", "bitmap-excess", "no-quorum"}
    else:
        assert ours == theirs
    return ours


SUCCESSOR = object()
"""Stands for the id of the staged committee, which is known once there is a contract."""

# Each defect changes one part of a submission: a field of the statement, or a part named here.
DEFECTS: dict[str, tuple[str, Any]] = {
    "another chain": ("chain_id", 1),
    "the largest chain id": ("chain_id", 2**256 - 1),
    "another contract": ("contract", STRANGER),
    "no contract": ("contract", bytes(20)),
    "the committee to come": ("committee", SUCCESSOR),
    "no committee": ("committee", bytes(32)),
    "another term": ("sequence", 1),
    "the last term": ("sequence", 2**64 - 1),
    "a settled epoch": ("epoch", 0),
    "an epoch ahead": ("epoch", 2),
    "the last epoch": ("epoch", 2**64 - 1),
    "another past": ("previous_root", bytes(32)),
    "another root": ("root", bytes(32)),
    "another size": ("size", 1),
    "another policy": ("policy", b"\xff" * 32),
    "another successor": ("incoming", bytes(32)),
    "bitmap too long": ("bitmap", b"\x7f\0"),
    "bitmap of a full committee": ("bitmap", b"\x7f" + bytes(31)),
    "bit beyond the committee": ("bitmap", b"\xff"),
    "bitmap of no member": ("bitmap", b"\0"),
    "one signer not named": ("bitmap", b"\x7e"),
    "one signer": ("signers", [0]),
    "one signer missing": ("signers", list(EVERYONE)[1:]),
    "signed before the changes": ("signed", "honest"),
    "signed under the other domain": ("domain", "other"),
}


def defective(rotation: bool, changes: dict[str, Any]) -> SettlementSubmission[Any]:
    """The honest epoch or rotation, with these parts changed."""
    made = office()
    statement = made.head.rotation(incoming(made)) if rotation else honest(made).statement
    fields = {
        name: incoming(made).id if value is SUCCESSOR else value
        for name, value in changes.items()
        if name in type(statement).LAYOUT
    }
    sent = replace(statement, **fields)
    told = statement if "signed" in changes else sent
    other = EpochStatement if rotation else Rotation
    domain = other.DOMAIN if "domain" in changes else told.DOMAIN
    signers = changes.get("signers", list(EVERYONE))
    return SettlementSubmission(
        statement=sent,
        signature=onchain.joint(made.secrets[i] for i in signers).sign(told.message, domain=domain),
        bitmap=changes.get("bitmap", made.head.committee.bitmap(signers)),
    )


def parts(rotation: bool) -> list[tuple[str, Any]]:
    """Defects that this kind of statement can have."""
    layout = (Rotation if rotation else EpochStatement).LAYOUT
    others = {"bitmap", "signers", "signed", "domain"}
    return [d for d in DEFECTS.values() if d[0] in layout or d[0] in others]


def test_python_and_the_contract_agree_on_every_pair_of_defects():
    """So both check in the same order; among the results are an acceptance and every reason."""
    seen: set[str | None] = set()
    for rotation in (False, True):
        seen.add(agreed(defective(rotation, {})))
        possible = parts(rotation)
        seen |= {agreed(defective(rotation, dict([defect]))) for defect in possible}
        for pair in itertools.combinations(possible, 2):
            if pair[0][0] != pair[1][0]:
                seen.add(agreed(defective(rotation, dict(pair))))
    assert seen == {None, *REASONS.split()}


@given(submissions())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_python_and_the_contract_agree_on_random_submissions(sent: SettlementSubmission[Any]):
    agreed(sent)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_every_bit_of_a_submission_counts(data: st.DataObject):
    """A flipped bit is refused, unless it is padding of the bitmap, which has no meaning."""
    good = calldata.settle(honest(office()))
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    flipped = bytearray(good)
    flipped[bit // 8] ^= 1 << bit % 8
    padding = bit // 8 > len(good) - 32
    assert (office().refusal(bytes(flipped)) is None) is padding


def leaf_of(data: st.DataObject, epoch: int) -> tuple[int, bytes, list[bytes]]:
    tree, leaves = onchain.tree(epoch), onchain.leaves(epoch)
    index = data.draw(st.integers(0, len(leaves) - 1))
    return index, leaves[index], list(tree.inclusion(index))


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_python_and_the_contract_agree_on_every_inclusion_proof(data: st.DataObject):
    index, leaf, proof = leaf_of(data, 0)
    changes = st.sampled_from(["index", "leaf", "drop", "add", "swap", "flip", "none", "sibling"])
    match data.draw(changes):
        case "index":
            index = data.draw(st.integers(0, 14) | st.integers(0, 2**64 - 1))
        case "leaf":
            leaf = data.draw(st.binary(max_size=70) | st.sampled_from(onchain.leaves(0)))
        case "drop":
            proof.pop(data.draw(st.integers(0, len(proof) - 1)))
        case "add":
            more = data.draw(st.integers(1, calldata.MAX_PROOF - len(proof)))
            proof[:0] = [data.draw(st.binary(min_size=32, max_size=32))] * more
        case "swap":
            proof.reverse()
        case "flip":
            at = data.draw(st.integers(0, len(proof) - 1))
            proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        case "sibling":
            # An inner node, or a pair of digests, shown as a verdict.
            leaf, proof = merkle.SHA256.leaf(leaf) + proof[0], proof[1:]
        case _:
            pass
    tree = onchain.tree(0)
    try:
        merkle.verify_inclusion(
            proof,
            leaf=merkle.SHA256.leaf(leaf),
            index=index,
            size=tree.size,
            root=tree.root,
            suite=merkle.SHA256,
        )
        ours = None
    except VerificationError as error:
        ours = type(error).__name__
    theirs = office().refusal(calldata.verify_inclusion(0, index, leaf, proof))
    expected = {
        None: {None},
        "RootMismatch": {"root-mismatch"},
        "MalformedProof": {"proof-length", "no-such-verdict"},
    }
    assert theirs in expected[ours]


def test_inclusion_in_trees_of_many_shapes_and_large_ones():
    """An independent oracle for sizes that no list of leaves reaches: `root_from_inclusion`."""
    made = found(evm.Chain(native=True))
    leaf, digests = b"verdict", [bytes([i]) * 32 for i in range(64)]
    sizes = [1, 2, 3, 5, 8, 2**20, 2**20 + 1, 2**32 - 1, 2**63 + 12345, 2**64 - 1]
    for size in sizes:
        index = (size - 1) & 0xAAAA_AAAA_AAAA_AAAA
        proof = digests[: len(path(index, index + 1, size))]
        root = merkle.root_from_inclusion(
            proof,
            leaf=merkle.SHA256.leaf(leaf),
            index=index,
            size=size,
            suite=merkle.SHA256,
        )
        epoch = made.head.epoch
        statement = made.head.statement(root=root, size=size, policy=bytes(32))
        sent = signed(statement, made, EVERYONE)
        made.call(calldata.settle(sent))
        made.head = submission.verify_epoch(sent, made.head)
        made.call(calldata.verify_inclusion(epoch, index, leaf, proof))
        for wrong in (leaf + b"!", b""):
            data = calldata.verify_inclusion(epoch, index, wrong, proof)
            assert made.refusal(data) == "root-mismatch"
        data = calldata.verify_inclusion(epoch, index, leaf, [*proof, bytes(32)][:64])
        assert made.refusal(data) == ("proof-length" if len(proof) < 64 else None)
        if proof:
            data = calldata.verify_inclusion(epoch, index, leaf, proof[:-1])
            assert made.refusal(data) in {"proof-length", "root-mismatch"}
        assert made.refusal(calldata.verify_inclusion(epoch, size % 2**64, leaf, proof)) in {
            "no-such-verdict",
            "root-mismatch",
        }
