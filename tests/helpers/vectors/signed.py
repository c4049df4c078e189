"""Receipts of workers and of issuers."""

from __future__ import annotations

from typing import Any

from protocols.audited import TraceReceipt
from protocols.identities import Identity
from protocols.messages import receive as receive_signed
from protocols.settlement import VerdictRecord
from protocols.settlement.receipts import Receipt
from tests.helpers.vectors.values import Given, Operations, octets


def identity(given: Given) -> str:
    return Identity(public_key=octets(given["key"])).id.hex()


def receive(given: Given) -> dict[str, Any]:
    known = {who.id: who for who in (Identity(public_key=octets(key)) for key in given["keys"])}
    seats = None if "seats" not in given else set(map(octets, given["seats"]))
    data = octets(given["data"])
    signed = receive_signed(TraceReceipt, data, known, seats=seats)
    assert signed.encode() == data
    found = signed.message
    return {
        "worker": found.worker.hex(),
        "job": found.job.hex(),
        "epoch": str(found.epoch),
        "receipt": found.receipt.hex(),
        "trace_root": found.trace_root.hex(),
        "trace_size": str(found.trace_size),
        "digest": found.digest.hex(),
    }


def verify(given: Given) -> None:
    record = VerdictRecord.decode(octets(given["record"]))
    issuer = Identity(public_key=octets(given["issuer"]))
    receipt = Receipt.decode(octets(given["data"]))
    assert receipt.encode() == octets(given["data"])
    receipt.verify(record, issuer)


OPERATIONS: Operations = {
    "receipts/identity": identity,
    "receipts/receive": receive,
    "cose/verify": verify,
}
