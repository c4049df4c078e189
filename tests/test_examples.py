"""The examples run: a coordinator and a network with one cheat each, and web3.py against a node."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from protocols.settlement import submission
from tests.helpers import onchain
from tests.helpers.chains import Anvil, anvil_binary
from tests.helpers.onchain import found
from tests.helpers.paths import ROOT

EXAMPLES = ROOT / "examples"
KEY = "0x" + "11" * 32


@pytest.fixture(scope="module")
def office(request: pytest.FixtureRequest) -> Iterator[onchain.Office]:
    node = Anvil(anvil_binary(request.config.cache.mkdir("anvil")))
    chain: Any = node
    yield found(chain)
    node.close()


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example() -> Any:
    return load("submit_with_web3")


def test_the_coordinator_accepts_the_honest_and_convicts_the_cheat() -> None:
    verdicts = load("coordinator").main()
    assert verdicts == {"honest": "accept: ok", "cheat": "reject: claim-mismatch, convicted"}


def test_a_network_convicts_the_liar_and_reads_its_record_again(tmp_path: Path) -> None:
    assert load("network").main(tmp_path / "network.journal") == {
        "outcome": "accept: audited",
        "agree": ["Ann", "Cy"],
        "dissent": ["Bob"],
        "convicted": ["Bob"],
    }


def test_an_audited_epoch_pays_the_honest_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    for name in ("audited_coordinator", "audited_device"):
        lines = (EXAMPLES / f"{name}.py").read_text().splitlines()
        assert sum(map(bool, lines)) <= 60
    assert load("audited_epoch").main() == {
        "honest": "passed: ok",
        "lying": "rejected: output-mismatch",
        "vanishing": "silent: silent",
    }


@pytest.mark.parametrize("signed_here", [False, True])
def test_an_epoch_is_submitted_once(
    office: onchain.Office,
    example: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    signed_here: bool,
):
    node: Any = office.chain
    file, key = tmp_path / "submission", tmp_path / "key"
    sent = office.next()
    file.write_bytes(sent.encode())
    key.write_text(KEY + "\n")
    node.rpc("anvil_setBalance", Account.from_key(KEY).address, hex(10**20))
    unlocked = node.rpc("eth_accounts")[0]
    sender = ["--key-file", str(key)] if signed_here else ["--from", unlocked]
    assert example.main([node.url, str(file), *sender]) == 0
    assert f"epoch {sent.statement.epoch} settled" in capsys.readouterr().out
    office.head = submission.verify_epoch(sent, office.head)
    assert example.main([node.url, str(file), *sender]) == 1
    assert "epoch-settled" in capsys.readouterr().err


def test_a_submission_for_another_chain_is_not_sent(office: onchain.Office, example: Any):
    node: Any = office.chain
    w3 = example.Web3(example.HTTPProvider(node.url))
    elsewhere = onchain.signed(
        office.head.statement(root=bytes(32), size=1, policy=bytes(32)), office, range(7)
    )
    elsewhere = replace(elsewhere, statement=replace(elsewhere.statement, chain_id=1))
    with pytest.raises(RuntimeError, match="signed for chain 1, not 31337"):
        example.submit(w3, node.rpc("eth_accounts")[0], elsewhere)
