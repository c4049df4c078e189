"""Third-party cases of BLS on BLS12-381, and @noble/curves as an independent implementation."""

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import VECTORS
from tests.helpers.signers import DOMAIN, accepted, proven, reference
from verifiable import bls
from verifiable.bls import (
    Possession,
    ProvenKey,
    PublicKey,
    SecretKey,
    Signature,
    SignedMessage,
    curve,
    keys,
    signatures,
)
from verifiable.errors import VerificationError

EXPECTED = {"bls12-381-tests": 96, "wycheproof": 167, "hash_to_curve": 5}
QUUX = b"QUUX-V01-CS02-with-BLS12381G2_XMD:SHA-256_SSWU_RO_"


@dataclass(frozen=True)
class Case:
    """One third-party case: `run` returns what `expected` holds."""

    suite: str
    name: str
    run: Callable[[], Any]
    expected: Any


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def hash_to_g2(message: bytes, dst: bytes) -> bytes:
    active = curve.active()
    return active.g2.affine(active.hash_to_g2(message, dst))


def coordinates(point: dict[str, str]) -> bytes:
    return b"".join(unhex(part) for axis in "xy" for part in point[axis].split(","))


def sign(i: dict[str, str]) -> bytes | None:
    try:
        key = SecretKey.decode(unhex(i["privkey"]))
    except ValueError:
        return None
    return key.sign(unhex(i["message"]), domain=DOMAIN).encoded


def aggregate(signatures: list[str]) -> bytes | None:
    """The draft lets infinity be a signature and a sum; the type refuses it, the group does not."""
    group = curve.active().g2
    encoded = [unhex(s) for s in signatures]
    if group.infinity in encoded:
        assert not accepted(lambda: Signature(group.infinity))
        return group.encode(group.sum([group.decode(s) for s in encoded]))
    try:
        return bls.aggregate([Signature(s) for s in encoded]).encoded
    except ValueError:
        return None


def verify(key: str, message: str, signature: str) -> bool:
    def check() -> None:
        bls.verify(
            PublicKey(unhex(key)), unhex(message), Signature(unhex(signature)), domain=DOMAIN
        )

    return accepted(check)


def fast_aggregate_verify(i: dict[str, Any]) -> bool:
    def check() -> None:
        keys = [proven(unhex(k)) for k in i["pubkeys"]]
        signature = Signature(unhex(i["signature"]))
        bls.fast_aggregate_verify(keys, unhex(i["message"]), signature, domain=DOMAIN)

    return accepted(check)


def aggregate_verify(keys: list[str], messages: list[str], signature: str) -> bool:
    def check() -> None:
        if len(keys) != len(messages):  # A list of pairs cannot even say it.
            raise VerificationError
        pairs = [(proven(unhex(k)), unhex(m)) for k, m in zip(keys, messages, strict=True)]
        bls.aggregate_verify(pairs, Signature(unhex(signature)), domain=DOMAIN)

    return accepted(check)


def batch_verify(i: dict[str, list[str]]) -> bool:
    columns = zip(i["pubkeys"], i["messages"], i["signatures"], strict=True)
    batch = [
        SignedMessage(PublicKey(unhex(k)), unhex(m), Signature(unhex(s))) for k, m, s in columns
    ]
    return accepted(lambda: bls.verify_batch(batch, domain=DOMAIN))


ETHEREUM: dict[str, Callable[[Any], Any]] = {
    "aggregate": aggregate,
    "aggregate_verify": lambda i: aggregate_verify(i["pubkeys"], i["messages"], i["signature"]),
    "batch_verify": batch_verify,
    "deserialization_G1": lambda i: accepted(lambda: curve.active().g1.decode(unhex(i["pubkey"]))),
    "deserialization_G2": lambda i: accepted(
        lambda: curve.active().g2.decode(unhex(i["signature"]))
    ),
    "fast_aggregate_verify": fast_aggregate_verify,
    "hash_to_G2": lambda i: hash_to_g2(i["msg"].encode(), QUUX),
    "sign": sign,
    "verify": lambda i: verify(i["pubkey"], i["message"], i["signature"]),
}


def ethereum() -> Iterator[Case]:
    for path in sorted((VECTORS / "bls12-381-tests").glob("*/*.json")):
        case = json.loads(path.read_text())
        expected = case["output"]
        if isinstance(expected, str):
            expected = unhex(expected)
        elif isinstance(expected, dict):
            expected = coordinates(expected)
        run = functools.partial(ETHEREUM[path.parent.name], case["input"])
        name = re.sub(r"(?<=[0-9a-f]{8})[0-9a-f]{8,}", "", path.stem)
        yield Case("bls12-381-tests", name, run, expected)


def wycheproof() -> Iterator[Case]:
    for path in sorted((VECTORS / "wycheproof").glob("*.json")):
        for group in json.loads(path.read_text())["testGroups"]:
            for t in group["tests"]:
                name = f"{path.stem.removeprefix('bls_sig_g2_').removesuffix('_test')} {t['tcId']}"
                if "dst" in group:
                    run = functools.partial(hash_to_g2, unhex(t["msg"]), group["dst"].encode())
                    point = curve.default().g2.decode(unhex(t["expected"]))
                    yield Case("wycheproof", name, run, curve.default().g2.affine(point))
                    continue
                if "pubkeys" in t:
                    run = functools.partial(aggregate_verify, t["pubkeys"], t["messages"], t["sig"])
                else:
                    run = functools.partial(verify, group["publicKey"]["pk"], t["msg"], t["sig"])
                yield Case(
                    "wycheproof", name, under(group["ciphersuite"], run), t["result"] == "valid"
                )


def under(ciphersuite: str, run: Callable[[], Any]) -> Callable[[], Any]:
    """Run with another domain separation tag: most of wycheproof is of the NUL ciphersuite."""

    def patched() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signatures, "DST", ciphersuite.encode())
            return run()

    return patched


def hash_to_curve() -> Iterator[Case]:
    for path in sorted((VECTORS / "hash_to_curve").glob("*.json")):
        suite = json.loads(path.read_text())
        for v in suite["vectors"]:
            run = functools.partial(hash_to_g2, v["msg"].encode(), suite["dst"].encode())
            yield Case("hash_to_curve", f"RFC 9380 {v['msg'][:9]!r}", run, coordinates(v["P"]))


CASES = [*ethereum(), *wycheproof(), *hash_to_curve()]
SAMPLE = [c for c in CASES if "deserialization" in c.name] + CASES[7::14]


@pytest.fixture
def unframed(monkeypatch: pytest.MonkeyPatch):
    """Sign and verify bare messages, as the vectors do: they know of no domains."""
    for module in (signatures, keys):
        monkeypatch.setattr(module, "framed", lambda message, domain: message)


def test_all_vectors_are_there():
    counts = {suite: sum(c.suite == suite for c in CASES) for suite in EXPECTED}
    if not CASES:
        pytest.skip(f"0 of {sum(EXPECTED.values())} third-party cases ran: none at {VECTORS}")
    assert counts == EXPECTED


@pytest.mark.usefixtures("unframed")
@pytest.mark.parametrize("blst", [True, False], ids=["blst", "plain"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_vectors(case: Case, blst: bool):
    with nullcontext() if blst else curve.using(plain()):
        assert case.run() == case.expected


@pytest.mark.usefixtures("unframed")
@pytest.mark.parametrize("case", SAMPLE, ids=lambda c: c.name)
def test_a_sample_of_vectors_on_py_ecc(case: Case):
    with curve.using(reference()):
        assert case.run() == case.expected


@functools.cache
def plain() -> curve.Curve:
    return curve.Arkworks(blst=False)


# ----------------------------------------------------------------------------------------- interop

NODE = """
import { bls12_381 } from '@noble/curves/bls12-381.js';
const bls = bls12_381.longSignatures;
const [dst, pop, secret, message, keys, signature, proof] = process.argv.slice(2);
const bytes = hex => Uint8Array.from(Buffer.from(hex, 'hex'));
const hex = point => Buffer.from(point.toBytes()).toString('hex');
const hashed = bls.hash(bytes(message), dst);
const total = bls.aggregatePublicKeys(keys.split(',').map(bytes));
const first = bytes(keys.split(',')[0]);
const own = bls.getPublicKey(bytes(secret));
console.log(JSON.stringify({
  verified: bls.verify(bytes(signature), hashed, total),
  refused: !bls.verify(bytes(signature), bls.hash(bytes(message + '00'), dst), total),
  proven: bls.verify(bytes(proof), bls.hash(first, pop), first),
  key: hex(own),
  signature: hex(bls.sign(hashed, bytes(secret))),
  proof: hex(bls.sign(bls.hash(own.toBytes(), pop), bytes(secret))),
}));
"""


def test_noble_curves_agrees(tmp_path: Path):
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed: no comparison with @noble/curves")
    install = [npm, "install", "--silent", "--no-audit", "--no-fund", "@noble/curves@2.4.0"]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        pytest.skip(f"npm could not install @noble/curves: {done.stderr.strip()[-200:]}")
    (tmp_path / "check.mjs").write_text(NODE)
    secret = b"\7" * 32
    keys = [SecretKey.generate(bytes([i]) * 32) for i in range(3)]
    total = bls.aggregate([k.sign(b"epoch 7", domain=DOMAIN) for k in keys])
    arguments = [
        bls.DST.decode(),
        bls.POSSESSION_DST.decode(),
        secret.hex(),
        bls.framed(b"epoch 7", DOMAIN).hex(),
        ",".join(k.public_key.encoded.hex() for k in keys),
        total.encoded.hex(),
        keys[0].prove_possession().encoded.hex(),
    ]
    command = [node, "check.mjs", *arguments]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603
    said = json.loads(run.stdout)
    assert (said["verified"], said["refused"], said["proven"]) == (True, True, True)
    theirs = PublicKey(unhex(said["key"]))
    assert theirs == SecretKey.decode(secret).public_key
    bls.verify(theirs, b"epoch 7", Signature(unhex(said["signature"])), domain=DOMAIN)
    ProvenKey(key=theirs, possession=Possession(unhex(said["proof"])))
