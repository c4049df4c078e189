"""Calldata against eth-abi and Keccak, which the package does not need; the shipped contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from eth_abi import abi
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.contracts import build, calldata
from protocols.settlement.statements import Deployment
from tests.helpers.chain_cheats import incoming, office
from tests.helpers.onchain import committee_of, signed

SEAT = "(bytes32[4],uint64)"
SIGNATURES = {
    "register": f"register({SEAT}[],bytes32[8][])",
    "discard": "discard()",
    "activate": "activate()",
    "settle": (
        "settle((uint256,address,uint64,bytes32,uint64,bytes32,bytes32,uint64,bytes32),"
        "bytes,bytes32[8])"
    ),
    "rotate": "rotate((uint256,address,bytes32,uint64,bytes32),bytes,bytes32[8])",
    "verify_inclusion": "verify_inclusion(uint64,uint64,bytes,bytes32[])",
}
DEPLOYMENT = Deployment(chain_id=5, contract=b"\x07" * 20)


def decoded(data: bytes, name: str) -> tuple[Any, ...]:
    """The arguments of a call as eth-abi decodes them; eth-abi encodes them to the same bytes."""
    assert data[:4] == keccak(text=SIGNATURES[name])[:4]
    types = _split(SIGNATURES[name].partition("(")[2][:-1])
    arguments = abi.decode(types, data[4:], strict=True)
    assert abi.encode(types, arguments) == data[4:]
    return arguments


def _split(text: str) -> list[str]:
    """Types of a list, separated by the commas outside parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part]


def words(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[i : i + 32] for i in range(0, len(data), 32))


def test_settle_carries_the_submission():
    sent = office().next()
    statement, bitmap, signature = decoded(calldata.settle(sent), "settle")
    s = sent.statement
    assert statement == (
        *(s.chain_id, "0x" + s.contract.hex(), s.epoch, s.root, s.size, s.policy),
        *(s.committee, s.sequence, s.previous_root),
    )
    assert bitmap == sent.bitmap
    assert signature == words(sent.signature.eip2537())


def test_rotate_carries_the_submission():
    made = office()
    sent = signed(made.head.rotation(incoming(made)), made, range(7))
    rotation, bitmap, signature = decoded(calldata.rotate(sent), "rotate")
    r = sent.statement
    contract = "0x" + r.contract.hex()
    assert rotation == (r.chain_id, contract, r.committee, r.sequence, r.incoming)
    assert (bitmap, signature) == (sent.bitmap, words(sent.signature.eip2537()))


@pytest.mark.parametrize("size", [1, 31, 32, 33, 65])
def test_registrations_carry_the_committee_in_order(size: int):
    of = committee_of(range(size), DEPLOYMENT, range(1, size + 1))
    calls = calldata.registrations(of)
    parts = [decoded(data, "register") for data in calls]
    assert [len(members) for members, _ in parts[:-1]] == [32] * (len(parts) - 1)
    members = [member for part, _ in parts for member in part]
    proofs = [proof for _, part in parts for proof in part]
    assert members == [(words(m.key.key.eip2537()), m.weight) for m in of.members]
    assert proofs == [words(m.key.possession.eip2537()) for m in of.members]


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=100) | st.just(bytes(calldata.MAX_LEAF)),
    st.lists(st.binary(min_size=32, max_size=32), max_size=calldata.MAX_PROOF),
)
@settings(max_examples=100, deadline=None)
def test_inclusion_carries_the_proof(epoch: int, index: int, leaf: bytes, proof: list[bytes]):
    data = calldata.verify_inclusion(epoch, index, leaf, proof)
    assert decoded(data, "verify_inclusion") == (epoch, index, leaf, tuple(proof))


def test_calls_without_arguments():
    assert decoded(calldata.activate(), "activate") == ()
    assert decoded(calldata.discard(), "discard") == ()


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (lambda: calldata.deployment(b"short"), ValueError),
        (lambda: calldata.verify_inclusion(0, 0, bytes(2049), ()), ValueError),
        (lambda: calldata.verify_inclusion(0, 0, b"", [bytes(32)] * 65), ValueError),
        (lambda: calldata.verify_inclusion(0, 0, b"", [bytes(31)]), ValueError),
        (lambda: calldata.verify_inclusion(-1, 0, b"", ()), OverflowError),
        (lambda: calldata.verify_inclusion(2**256, 0, b"", ()), OverflowError),
        (lambda: calldata.rotate(office().next()), TypeError),
        (lambda: calldata.call("settle", b"not a word"), ValueError),
        (lambda: calldata.call("no such function"), KeyError),
    ],
    ids=[
        "short genesis",
        "long verdict",
        "long proof",
        "short digest",
        "negative epoch",
        "epoch beyond a word",
        "epoch as a rotation",
        "argument of no word",
        "unknown function",
    ],
)
def test_mistakes_of_the_caller_are_refused(refused: Any, error: type[Exception]):
    with pytest.raises(error):
        refused()


# ------------------------------------------------------------------------------ what is shipped


def test_the_shipped_contract_is_the_compiled_source():
    assert json.loads(build.COMPILED.read_text()) == build.compiled()


def test_the_selectors_are_those_of_the_interface():
    functions = [entry for entry in calldata.ABI if entry["type"] == "function"]
    assert {f["name"] for f in functions} == set(calldata.SELECTORS)
    for function in functions:
        types = ",".join(_type(i) for i in function["inputs"])
        signature = f"{function['name']}({types})"
        assert calldata.SELECTORS[function["name"]] == keccak(text=signature)[:4]
        assert SIGNATURES.get(function["name"], signature) == signature


def _type(entry: dict[str, Any]) -> str:
    if not entry["type"].startswith("tuple"):
        return entry["type"]
    inner = ",".join(_type(part) for part in entry["components"])
    return f"({inner}){entry['type'].removeprefix('tuple')}"


def test_deployment_appends_the_first_committee():
    assert calldata.deployment(b"c" * 32) == calldata.BYTECODE + b"c" * 32
    assert len(calldata.BYTECODE) < 24_576  # EIP-170
