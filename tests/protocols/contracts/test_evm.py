"""The chain in this process: its native precompiles against py-evm's own, gas, and reverting."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from eth.exceptions import VMError
from eth.precompiles import bls12_map_fp2_to_g2, bls12_pairing_check
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.contracts import evm
from tests.helpers.paths import ROOT, VECTORS
from verifiable.bls import curve

PAIRING, MAP = bytes(19) + b"\x0f", bytes(19) + b"\x11"
PURE = {PAIRING: bls12_pairing_check, MAP: bls12_map_fp2_to_g2}
NATIVE = evm._native_precompiles()
SENDER = b"\x01" * 20


def run(precompile: Any, data: bytes) -> tuple[bytes | None, int]:
    """Output, or None if it fails, and gas."""
    spent: list[int] = []
    computation = SimpleNamespace(
        msg=SimpleNamespace(data=data),
        consume_gas=lambda gas, reason: spent.append(gas),
        output=None,
    )
    try:
        precompile(computation)
    except VMError:
        return None, sum(spent)
    return computation.output, sum(spent)


def vectors(name: str) -> list[dict[str, Any]]:
    path = VECTORS / "eip2537" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is absent: the cases of EIP-2537 did not run")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("address", "name", "count"), [(PAIRING, "pairing_check_bls", 5), (MAP, "map_fp2_to_G2_bls", 5)]
)
def test_native_precompiles_pass_the_cases_of_eip_2537(address: bytes, name: str, count: int):
    cases = vectors(name)
    assert len(cases) >= count
    for case in cases:
        output, gas = run(NATIVE[address], bytes.fromhex(case["Input"]))
        assert output == bytes.fromhex(case["Expected"]), case["Name"]
        assert gas == case["Gas"], case["Name"]
    failing = vectors(f"fail-{name}")
    assert len(failing) >= count
    for case in failing:
        assert run(NATIVE[address], bytes.fromhex(case["Input"]))[0] is None, case["Name"]


@given(st.binary(min_size=128, max_size=128), st.booleans(), st.sampled_from([0, 1, 63, 64, 127]))
@settings(max_examples=10, deadline=None)
def test_native_mapping_is_that_of_py_evm(data: bytes, padded: bool, at: int):
    if padded:
        data = bytes(17) + data[17:64] + bytes(17) + data[81:]
    assert run(NATIVE[MAP], data) == run(PURE[MAP], data)
    assert run(NATIVE[MAP], data[:at]) == run(PURE[MAP], data[:at])


def test_native_pairing_is_that_of_py_evm():
    """A pairing of py-evm takes a second: one that holds, one that does not, and infinities."""
    active = curve.active()
    two = active.g1.combine([active.generator], [2])
    q = active.hash_to_g2(b"message", b"tag")

    def pair(p: Any, q: Any) -> bytes:
        numbers = active.g1.affine(p) + active.g2.affine(q)
        return b"".join(bytes(16) + numbers[i : i + 48] for i in range(0, len(numbers), 48))

    minus = active.g1.combine([active.generator], [curve.ORDER - 2])
    holds, fails = pair(two, q) + pair(minus, q), pair(two, q)
    for data, output in ((holds, 1), (fails, 0), (bytes(384), 1), (bytes(128) + fails[128:], 1)):
        assert run(NATIVE[PAIRING], data) == (
            output.to_bytes(32, "big"),
            len(data) // 384 * 32_600 + 37_700,
        )
        assert run(PURE[PAIRING], data) == run(NATIVE[PAIRING], data)
    for data in (b"", holds[:-1], holds + b"\0", b"\1" + holds[1:], holds[:-1] + b"\0"):
        assert run(NATIVE[PAIRING], data)[0] is None
        assert run(PURE[PAIRING], data)[0] is None


# Init code for small contracts: what `body` returns, or stores, when called.


def contract(body: str) -> bytes:
    code = bytes.fromhex(body)
    return bytes.fromhex("600b5981380380925939f3") + code


RETURN_42 = "602a60005260206000f3"
REVERT_EMPTY = "60006000fd"
INVALID = "fe"
COUNT = "600054600101806000555f5260205ff3"  # adds one to slot 0 and returns it


def deployed(body: str) -> tuple[evm.Chain, bytes]:
    chain = evm.Chain()
    expected = chain.next_address(SENDER)
    address = chain.deploy(contract(body), sender=SENDER).output
    assert address == expected != chain.next_address(SENDER)
    return chain, address


def test_a_call_returns_and_counts_gas_of_execution_only():
    chain, address = deployed(RETURN_42)
    done = chain.call(address, b"\xff" * 1000, sender=SENDER)
    assert done.output == (42).to_bytes(32, "big")
    assert done.gas == 6 * 3  # four pushes, a store and its word of memory: return is free


def test_what_is_not_kept_did_not_happen():
    chain, address = deployed(COUNT)
    for _ in range(2):
        assert chain.call(address, b"", sender=SENDER, keep=False).output[-1] == 1
    assert chain.call(address, b"", sender=SENDER).output[-1] == 1
    assert chain.call(address, b"", sender=SENDER).output[-1] == 2


def test_every_call_starts_cold():
    chain, address = deployed(COUNT)
    first, second, third = (chain.call(address, b"", sender=SENDER).gas for _ in range(3))
    assert second == third == first - 17_100  # a slot is written for the first time only once


def test_a_failure_has_its_reason_and_its_gas():
    chain, address = deployed(REVERT_EMPTY)
    with pytest.raises(evm.Reverted, match="no reason given") as refused:
        chain.call(address, b"", sender=SENDER)
    assert (refused.value.reason, refused.value.gas) == ("", 6)
    chain, address = deployed(INVALID)
    with pytest.raises(evm.Reverted) as refused:
        chain.call(address, b"", sender=SENDER)
    assert refused.value.gas == evm.GAS


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (b"", ""),
        (bytes.fromhex("08c379a0"), ""),
        (bytes.fromhex("4e487b71") + bytes(64), ""),
        (bytes.fromhex("08c379a0") + bytes(31) + b"\x20" + bytes(31) + b"\3abc" + bytes(29), "abc"),
        (bytes.fromhex("08c379a0") + bytes(31) + b"\x20" + b"\xff" * 32 + b"\xff", "\ufffd"),
    ],
    ids=["nothing", "selector only", "a panic", "a reason", "a length too large"],
)
def test_a_reason_is_read_from_any_output(output: bytes, reason: str):
    assert evm._reason(output) == reason


def test_a_chain_leaves_the_interpreter_as_it_was():
    """In a process of its own: importing py-evm raises the recursion limit."""
    script = (
        "import sys; before = sys.getrecursionlimit()\n"
        "from protocols.contracts import evm; evm.Chain(native=True)\n"
        "assert sys.getrecursionlimit() == before\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)  # noqa: S603


def test_without_py_evm_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evm, "find_spec", lambda name: None)
    assert not evm.available()
    with pytest.raises(ImportError, match="pip install 'py-evm>="):
        evm.Chain()
