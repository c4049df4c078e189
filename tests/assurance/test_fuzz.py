"""The targets reach every decoder, and a broken law or another error is a finding."""

from __future__ import annotations

import inspect
import itertools
from types import SimpleNamespace

import pytest

from assurance.fuzz import contexts, sent, targets
from assurance.fuzz.targets import ABSTRACT, TARGETS
from tests.test_decoders import DECODERS
from verifiable.errors import MalformedEncoding


def test_every_decoder_is_fuzzed():
    names = {name.removeprefix("decoders/") for name in TARGETS if name.startswith("decoders/")}
    missing = set(DECODERS) - names
    assert all(name.endswith(tuple(f".{base}" for base in ABSTRACT)) for name in missing)
    assert len(missing) == len(ABSTRACT)


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_is_given_what_it_needs(name: str):
    if name.endswith(tuple(f".{base}" for base in ABSTRACT)):
        return
    parameters = inspect.signature(DECODERS[name]).parameters.values()
    needed = {p.name for p in parameters if p.default is p.empty and p.name != "data"}
    assert needed <= targets.arguments_of(name).keys()


@pytest.mark.parametrize("operation", sent.SENT)
def test_cases_of_vectors_come_back_from_the_bytes_that_are_fuzzed(operation: str):
    cases = sent.cases(operation)
    assert cases
    for case in cases:
        packed = sent.packed(case, sent.SENT[operation])
        assert case | sent.unpacked(packed, sent.SENT[operation], case) == case
        for size in range(0, len(packed), 37):
            sent.unpacked(packed[:size], sent.SENT[operation], case)


def test_honest_encodings_are_accepted_by_their_decoders():
    accepted = dict.fromkeys(
        "Commit Reveal Decision Job Upload Assignment TextReceipt ModelCard SavedText OpenedText "
        "Equivocation Justification BrokenReport SettlementSubmission VerdictRecord".split(),
        0,
    )
    messages, settlement = contexts._messages(), contexts._settlement()
    for data in itertools.chain(messages, settlement, contexts._texts()):
        for name in accepted:
            [target] = [t for n, t in TARGETS.items() if n.endswith(f".{name}.decode")]
            try:
                accepted[name] += target.run(data)
            except MalformedEncoding:
                continue
    assert all(accepted.values()), accepted


def test_a_second_encoding_is_a_finding():
    with pytest.raises(AssertionError, match="other bytes"):
        targets._canonical(SimpleNamespace(encode=lambda: b"a"), b"b")
    assert targets._canonical(SimpleNamespace(encode=lambda: b"a"), b"a")


def test_what_moves_on_when_it_is_decoded_has_other_bytes_once():
    def later(data: bytes) -> SimpleNamespace:
        return SimpleNamespace(encode=lambda: max(data, b"c"))

    assert targets._canonical(later(b"a"), b"a", later)
    with pytest.raises(AssertionError, match="other bytes"):
        targets._canonical(later(b"a"), b"a", lambda data: later(data + b"d"))
