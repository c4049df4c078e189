"""Plans: who draws, what a draw is, and how an opening looks as bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from verifiable import merkle, trace
from verifiable.audits.probabilities import clopper_pearson
from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding
from verifiable.trace import AuditOpening, AuditPlan
from verifiable.trace.audit_plan import MAGIC, drawn, drawn_rows

VALUES = tuple(np.arange(n, dtype=np.float32).reshape(-1, 4096) for n in (2**16, 2**15, 2**15))
COMMITTED = trace.commit(VALUES[-1], trace.Trace(values=VALUES[:-1]))


def plan(*leaves: int, seed: bytes = bytes(32)) -> AuditPlan:
    return AuditPlan(
        program=bytes(32),
        seed=seed,
        population=9,
        layers=(3,),
        names=("three",),
        leaves=leaves,
        layout=COMMITTED.layout,
    )


def test_a_draw_is_that_of_the_specification():
    seed = bytes(range(32))
    order = sorted(
        (tagged_hash("layer of an audit", seed, i.to_bytes(8, "little")), i) for i in range(30)
    )
    for count in (1, 2, 29, 30):
        assert drawn(seed, 30, count) == tuple(sorted(i for _, i in order[:count]))


def test_every_layer_is_drawn_equally_often():
    trials, counts = 1500, Counter[int]()
    for i in range(trials):
        counts.update(drawn(i.to_bytes(32, "big"), 5, 2))
    for layer in range(5):
        low, high = clopper_pearson(counts[layer], trials, confidence=0.999)
        assert low <= 2 / 5 <= high


def test_a_draw_of_rows_is_that_of_the_specification():
    seed, layer = bytes(range(32)), (3).to_bytes(8, "little")

    def order(*of: bytes) -> list[int]:
        digests = (tagged_hash("rows of an audit", *of, i.to_bytes(8, "little")) for i in range(6))
        return [i for _, i in sorted((d, i) for i, d in enumerate(digests))]

    for count in range(1, 6):
        blocks = sorted(order(seed, layer)[:count])
        rows = tuple(4 * b + i for b in blocks for i in range(4))
        assert drawn_rows(seed, 3, 24, 4 * count, block=4) == rows
    assert drawn_rows(seed, None, 6, 2) == tuple(sorted(order(seed)[:2]))
    assert drawn_rows(seed, 3, 6, 9) == tuple(range(6))


@pytest.mark.parametrize(("length", "block"), [(22, 4), (10, 4), (5, 3), (17, 8)])
def test_as_many_rows_are_drawn_where_the_last_block_is_cut_short(length: int, block: int):
    blocks = -(-length // block)
    for count in range(1, length // block + 1):
        for i in range(20):
            rows = drawn_rows(bytes([i]) * 32, 3, length, count * block, block=block)
            assert len(set(rows)) == len(rows) == count * block
            assert list(rows) == sorted(rows)
            assert 0 <= rows[0] <= rows[-1] < length
            whole = drawn_rows(bytes([i]) * 32, 3, blocks * block, count * block, block=block)
            assert {r for r in whole if r < length} <= set(rows)


def test_the_id_binds_all_that_decides_what_is_opened():
    ids = {
        p.id
        for p in (
            plan(1, 2),
            plan(1, 3),
            plan(1, 2, seed=bytes([1]) * 32),
            replace(plan(1, 2), program=bytes([1]) * 32),
            replace(plan(1, 2), layers=(4,)),
            replace(plan(1, 2), rows=((1, 2),)),
            replace(plan(1, 2), rows=((1, 3),)),
            replace(plan(1, 2), population=8),
        )
    }
    assert len(ids) == 8
    assert replace(plan(1, 2), names=("other",)).id == plan(1, 2).id


@pytest.mark.parametrize("leaves", [(0,), (1, 2, 5), tuple(range(8))])
def test_the_length_of_an_opening_is_known_beforehand(leaves: tuple[int, ...]):
    asked = plan(*leaves)
    opening = COMMITTED.open(asked)
    data = opening.encode()
    assert len(data) == asked.nbytes
    assert len(opening.proof) == merkle.multiproof_size(leaves, COMMITTED.layout.size)
    assert sum(map(len, opening.leaves)) == asked.opened
    assert data.startswith(MAGIC + asked.id)
    assert AuditOpening.decode(data, asked) == opening
    for other in (data[:-1], data + b"\0", b"", bytes([data[0] ^ 1]) + data[1:]):
        with pytest.raises(MalformedEncoding):
            AuditOpening.decode(other, asked)


def test_plans_have_leaves():
    for leaves in [(), (2, 1), (1, 1), (COMMITTED.layout.size,), (-1,)]:
        with pytest.raises(ValueError, match=r"ind(ices|ex)|leaf"):
            plan(*leaves)
