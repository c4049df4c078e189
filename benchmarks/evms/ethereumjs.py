"""@ethereumjs/vm behind the interface of `protocols.contracts.evm.Chain`: an EVM in JavaScript.

It shares no code with py-evm, and its pairings are noble's. Node runs `evm.mjs`, which reads one
call a line. npm installs the versions of `package-lock.json`, once.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from protocols.contracts import evm

HERE = Path(__file__).parent


class NotInstalled(Exception):
    """Node or npm is absent, or npm could not install the packages; the message says which."""


def install() -> str:
    """Path of node, once the packages are there. Raises NotInstalled."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotInstalled("node or npm is absent: the contract does not run in JavaScript")
    if not (HERE / "node_modules" / ".package-lock.json").exists():
        done = subprocess.run(  # noqa: S603
            [npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=HERE,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotInstalled(f"npm could not install @ethereumjs/vm: {done.stderr[-200:]}")
    return node


class EthereumJs:
    """A chain in a process of Node. Close it.

    Attributes:
      chain_id: the `chain.id` that the contract reads.
      root: state root after the last call that was kept.
    """

    chain_id = evm.CHAIN_ID

    def __init__(self):
        """Start Node. Raises NotInstalled."""
        self.root = b""
        self.process = subprocess.Popen(  # noqa: S603
            [install(), str(HERE / "evm.mjs"), str(self.chain_id)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._nonces: dict[bytes, int] = {}

    def next_address(self, sender: bytes) -> bytes:
        """Address of the contract that this account deploys next."""
        from eth._utils.address import generate_contract_address  # noqa: PLC0415

        return generate_contract_address(sender, self._nonces.get(sender, 0))

    def deploy(self, initcode: bytes, *, sender: bytes) -> evm.CallReceipt:
        """Create a contract; the output is its address. Raises Reverted if it fails."""
        self._nonces[sender] = self._nonces.get(sender, 0) + 1
        done = self._run(None, initcode, sender, keep=True)
        # Of init code, a transaction pays for every word (EIP-3860); py-evm counts it as execution.
        return replace(done, gas=done.gas + 2 * (-(-len(initcode) // 32)))

    def call(self, to: bytes, data: bytes, *, sender: bytes, keep: bool = True) -> evm.CallReceipt:
        """Call a contract, and undo its effects unless `keep`. Raises Reverted if it fails."""
        return self._run(to, data, sender, keep=keep)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()

    def _run(self, to: bytes | None, data: bytes, sender: bytes, *, keep: bool) -> evm.CallReceipt:
        assert self.process.stdin is not None and self.process.stdout is not None
        message = {
            "to": None if to is None else "0x" + to.hex(),
            "from": "0x" + sender.hex(),
            "data": "0x" + data.hex(),
            "gas": evm.GAS,
            "keep": keep,
        }
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        done: dict[str, Any] = json.loads(self.process.stdout.readline())
        output = _bytes(done["output"])
        if keep:
            self.root = _bytes(done["root"])
        if done["error"] is not None:
            raise evm.Reverted(evm._reason(output), done["gas"], done["error"])
        logs = tuple((tuple(map(_bytes, topics)), _bytes(body)) for topics, body in done["logs"])
        return evm.CallReceipt(output=output, gas=done["gas"], logs=logs)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
