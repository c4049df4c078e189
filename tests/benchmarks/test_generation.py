"""Shards of the benchmark of texts: each text and cheat is in one of them, and counts add up."""

from __future__ import annotations

import pytest

from benchmarks import generation
from benchmarks.generation import SHARDS, added_up, rows_of
from benchmarks.measured_texts import ANSWERS
from benchmarks.texts import SAMPLERS


def test_shards_of_a_part_have_every_text_once():
    names = [name.split() for name in generation.shards_of(False, ["honest"])]
    assert len(names) == 2 * SHARDS["honest"]
    for sampler in SAMPLERS:
        fractions = [generation._fraction(name[2]) for name in names if name[1] == sampler]
        texts = [n for first, total in fractions for n in range(first, ANSWERS, total)]
        assert sorted(texts) == list(range(ANSWERS))
    assert {name.split()[0] for name in generation.shards_of(False)} == {"cost", *SHARDS}


HONEST = {
    "texts": 2,
    "tokens": 80,
    "near_ties": 1,
    "picked_otherwise": 0,
    "honest_rejected": 0,
    "honest_undecided": 0,
    "audits_not_accepted": 0,
    "decoded_again": 0,
}


def test_counts_of_shards_add_up_and_shares_are_of_all():
    found = added_up([{"a": HONEST}, {"a": HONEST | {"near_ties": 3, "honest_rejected": 1}}])
    rows = {r.measure: r for r in rows_of("a", found["a"])}
    assert rows["honest_tokens"].value == 160
    assert rows["near_ties_share"].value == 4 / 160
    assert rows["near_ties_share"].holds is False
    assert rows["honest_rejected"].holds is False


@pytest.mark.parametrize(("met", "holds"), [(12, True), (60, False), (0, False)])
def test_a_forged_token_must_be_met_at_the_rate_of_the_formula(met: int, holds: bool):
    rows = {r.measure: r for r in rows_of("a", {"audits": 200, "audits_that_met_it": met})}
    assert rows["formula"].value == 8 / 128
    assert rows["formula_within_99_%"].holds is holds


def test_one_accepted_cheat_of_any_shard_misses_the_bar():
    counts = {"cheats": 4, "without_effect": 0, "not_rejected": 0, "audits_passed": 0}
    found = added_up([{"a": counts}, {"a": counts | {"not_rejected": 1}}])
    rows = {r.measure: r for r in rows_of("a", found["a"])}
    assert rows["cheats"].value == 8
    assert rows["cheats_not_rejected"].holds is False


def test_bars_of_costs_count_seconds_of_all_cores():
    calls = "decode begin pass prove check verify read audit_2 audit_8".split()
    cost = dict.fromkeys("weights read receipt run key bytes_audit_2 bytes_audit_8".split(), 1.0)
    cost |= {f"{kind}_{name}": 1.0 for kind in ("seconds", "cpu") for name in calls}
    cost |= {"seconds_decode": 5.0, "cpu_decode": 8.0, "cpu_audit_2": 0.01}
    rows = {r.measure: r for r in rows_of("a", cost)}
    assert rows["decode_over_audit_2"].value == 8.0 / 0.01
    assert rows["decode_over_audit_2"].holds is True
    assert rows["decode_over_audit_2_wall"].value == 5.0
    assert rows["bandwidth"].value == 1.0
    counts = {"cheats": 4, "without_effect": 0, "not_rejected": 1, "audits_passed": 0}
    rows |= {r.measure: r for r in rows_of("a", cost | HONEST | counts)}
    assert rows["decode_over_audit_2"].holds is True
    assert rows["honest_texts"].value == 2
    assert rows["cheats_not_rejected"].holds is False


def test_a_move_of_the_best_logits_is_stated_in_sigma_where_near_ties_tell_it():
    moved = {"moved_median": 0.01, "moved_largest": 0.2}
    scaled = {f"{name}_in_sigma": 10 * value for name, value in moved.items()}
    rows = {r.measure: r for r in rows_of("a", HONEST | moved | scaled)}
    assert (rows["moved_largest"].value, rows["moved_largest_in_sigma"].value) == (0.2, 2.0)
    assert rows["near_ties_share"].bar is None
    alone = {r.measure for r in rows_of("a", HONEST | moved)}
    assert "moved_largest" in alone
    assert "moved_largest_in_sigma" not in alone
