"""Mutated calls: Python, py-evm and an EVM in JavaScript decide alike (`benchmarks contract`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.evms.compare import compare
from benchmarks.evms.ethereumjs import EthereumJs, NotInstalled
from protocols.contracts import evm

SEED = 5


@pytest.fixture
def javascript() -> Iterator[EthereumJs]:
    try:
        chain = EthereumJs()
    except NotInstalled as missing:
        pytest.skip(str(missing))
    yield chain
    chain.close()


def test_python_and_the_contract_decide_alike():
    found = compare([evm.Chain(native=True)], 90, seed=SEED)
    assert not found.disagreements
    reasons = {kind: {r for k, r in found.results if k == kind} for kind, _ in found.results}
    assert all(None in reasons[kind] for kind in ("settle", "rotate", "inclusion"))
    assert len(set().union(*reasons.values())) > 10
    assert found.terms > 1


def test_an_evm_in_javascript_agrees_in_results_events_gas_and_state(javascript: EthereumJs):
    found = compare([evm.Chain(native=True), javascript], 20, seed=SEED)
    assert not found.splits
    assert not found.disagreements
    assert ("settle", None) in found.results


class Lenient(evm.Chain):
    """Accepts what the contract refuses, and counts another gas for what it accepts."""

    def call(self, to: bytes, data: bytes, *, sender: bytes, keep: bool = True) -> evm.CallReceipt:
        try:
            done = super().call(to, data, sender=sender, keep=keep)
        except evm.Reverted as error:
            return evm.CallReceipt(output=b"", gas=error.gas)
        return replace(done, gas=done.gas + 1)


def test_a_contract_that_accepts_more_and_an_evm_that_counts_otherwise_are_found():
    chains: list[Any] = [Lenient(native=True), evm.Chain(native=True)]
    found = compare(chains, 10, seed=1)
    assert found.disagreements
    assert any(line.startswith("setup") for line in found.splits)
