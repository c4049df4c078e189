"""Other EVMs behind the interface of `protocols.contracts.evm.Chain`: titanoboa and anvil."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from protocols.contracts.evm import CHAIN_ID, CallReceipt, Reverted, _native_precompiles, _reason

ANVIL = "1.7.1"


class Titanoboa:
    """titanoboa's environment, with py-evm's own precompiles or the native ones."""

    chain_id = CHAIN_ID

    def __init__(self, *, native: bool):
        import boa  # noqa: PLC0415 - takes seconds, and changes py-evm where it is loaded

        self.env = boa.environment.Env()
        self.env.evm.patch.chain_id = CHAIN_ID
        if native:
            kind: Any = self.env.evm.vm.state.computation_class
            kind._precompiles = {**kind._precompiles, **_native_precompiles()}

    def next_address(self, sender: bytes) -> bytes:
        from eth._utils.address import generate_contract_address  # noqa: PLC0415

        return generate_contract_address(sender, self.env.evm.vm.state.get_nonce(sender))

    def deploy(self, initcode: bytes, *, sender: bytes) -> CallReceipt:
        address, computation = self.env.deploy(bytecode=initcode, sender=_address(sender))
        return self._receipt(computation, address.canonical_address)

    def call(self, to: bytes, data: bytes, *, sender: bytes, keep: bool = True) -> CallReceipt:
        def execute() -> Any:
            return self.env.execute_code(
                to_address=_address(to), data=data, sender=_address(sender)
            )

        if keep:
            computation = execute()
        else:
            with self.env.anchor():
                computation = execute()
        return self._receipt(computation, computation.output)

    def _receipt(self, computation: Any, output: bytes) -> CallReceipt:
        self.env.evm.reset_access_counters()
        gas = computation.net_gas_used
        if computation.is_error:
            raise Reverted(_reason(computation.output), gas, computation.error)
        return CallReceipt(output=output, gas=gas)


def _address(data: bytes) -> Any:
    from boa import environment  # noqa: PLC0415 - as above

    return environment.Address("0x" + data.hex())


class Anvil:
    """A node in its own process, on a loopback port, called by JSON-RPC.

    The gas of a receipt is for the whole transaction: with calldata, less refunds.
    """

    chain_id = CHAIN_ID

    def __init__(self, binary: Path, *, hardfork: str = "prague"):
        command = [str(binary), "--hardfork", hardfork, "--host", "127.0.0.1", "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"Listening on (127\.0\.0\.1:\d+)", line):
                self.url = f"http://{found[1]}"
                break
        else:
            raise RuntimeError("anvil ended before it listened")
        # A full pipe would stop the node.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def rpc(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        request = urllib.request.Request(  # noqa: S310 - a loopback address
            self.url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            said = json.load(answer)
        if "error" in said:
            reason = _reason(bytes.fromhex((said["error"].get("data") or "0x")[2:]))
            raise Reverted(reason, 0, said["error"].get("message"))
        return said["result"]

    def next_address(self, sender: bytes) -> bytes:
        from eth._utils.address import generate_contract_address  # noqa: PLC0415

        nonce = self.rpc("eth_getTransactionCount", "0x" + sender.hex(), "latest")
        return generate_contract_address(sender, int(nonce, 16))

    def deploy(self, initcode: bytes, *, sender: bytes) -> CallReceipt:
        done = self._send({"data": "0x" + initcode.hex()}, sender)
        return CallReceipt(output=bytes.fromhex(done["contractAddress"][2:]), gas=_number(done))

    def call(self, to: bytes, data: bytes, *, sender: bytes, keep: bool = True) -> CallReceipt:
        call = {"to": "0x" + to.hex(), "data": "0x" + data.hex(), "from": "0x" + sender.hex()}
        output = bytes.fromhex(self.rpc("eth_call", call, "latest")[2:])
        gas = _number(self._send(call, sender)) if keep else 0
        return CallReceipt(output=output, gas=gas)

    def _send(self, transaction: dict[str, str], sender: bytes) -> Any:
        address = "0x" + sender.hex()
        self.rpc("anvil_setBalance", address, hex(10**20))
        self.rpc("anvil_impersonateAccount", address)
        transaction = {**transaction, "from": address, "gas": hex(2**24)}
        sent, done = self.rpc("eth_sendTransaction", transaction), None
        while done is None:  # The block is mined a moment after the transaction is accepted.
            done = self.rpc("eth_getTransactionReceipt", sent)
        if done["status"] != "0x1":
            raise Reverted("", _number(done), "the transaction failed")
        return done

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)
        if self.process.stdout is not None:
            self.process.stdout.close()


def _number(receipt: Any) -> int:
    return int(receipt["gasUsed"], 16)


def anvil_binary(cache: Path) -> Path:
    """The node, installed once into `cache`. Skips the test, with a reason, if that fails."""
    if installed := shutil.which("anvil"):
        return Path(installed)
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("neither anvil nor npm is installed: the contract runs in one EVM only")
    machine = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}
    name = (
        f"anvil-{platform.system().lower()}-{machine.get(platform.machine(), platform.machine())}"
    )
    binary = cache / f"anvil-{ANVIL}"
    if not binary.exists():
        install = [npm, "install", "--silent", "--no-audit", "--no-fund"]
        package = f"@foundry-rs/{name}@{ANVIL}"
        # Workers may install at once, each in its own folder: the last to finish leaves its file.
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            done = subprocess.run(  # noqa: S603
                [*install, "--prefix", folder, package], capture_output=True, text=True, check=False
            )
            found = Path(folder) / "node_modules" / "@foundry-rs" / name / "bin" / "anvil"
            if done.returncode or not found.exists():
                pytest.skip(f"npm could not install {package}: {done.stderr.strip()[-200:]}")
            found.replace(binary)
    return binary
