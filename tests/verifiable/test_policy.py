"""Policies: what they refuse, and an id that names every number."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.contractions import matrix_form
from verifiable import encoding, policy
from verifiable.check.outputs import Output
from verifiable.policy import Policy

TYPES = ["bfloat16", "float16", "float32", "float64"]
tolerances = st.dictionaries(
    st.sampled_from(TYPES), st.floats(1e-300, 1, exclude_max=True), max_size=4
).map(lambda table: tuple(table.items()))
policies = st.builds(
    Policy,
    draws=st.integers(1, 4096),
    phi=st.floats(1e-30, 0.5),
    eps=tolerances,
    output_eps=tolerances,
    trip_limit=st.integers(1, 2**31 - 1),
    narrow_sum=st.floats(0, 1),
    narrow_replayed=st.floats(0, 8),
)


def numbers(p: Policy) -> Any:
    sums = p.narrow_sum, p.narrow_replayed
    return p.draws, p.phi, dict(p.eps), dict(p.output_eps), p.trip_limit, sums


def output(dtype: str) -> Output:
    none: frozenset[str] = frozenset()
    return Output(
        name="output",
        eps_types=frozenset({dtype}),
        replays_inexactly=True,
        discontinuities=none,
        loops=none,
    )


@given(a=policies, b=policies)
def test_ids_are_equal_for_equal_numbers_only(a: Policy, b: Policy):
    assert (a.id == b.id) == (numbers(a) == numbers(b))
    assert len(a.id) == 32


BASE = Policy(draws=16, phi=1e-9, eps=(("float32", 0.25), ("float64", 0.125)), trip_limit=9)


@pytest.mark.parametrize(
    "changes",
    [
        {"draws": 17},
        {"phi": math.nextafter(1e-9, 1)},
        {"eps": (("float32", 0.125), ("float64", 0.25))},
        {"eps": (("float32", 0.25),)},
        {"eps": (("float32", 0.25), ("float16", 0.125))},
        {"output_eps": (("float32", 0.25), ("float64", 0.125))},
        {"trip_limit": 10},
        {"tie_rate": 0.5},
        {"narrow_sum": 0.5},
        {"narrow_replayed": 1.0},
    ],
    ids=str,
)
def test_every_number_is_named(changes: dict[str, Any]):
    fields = {name: getattr(BASE, name) for name in Policy.__dataclass_fields__}
    assert Policy(**fields).id == BASE.id
    assert Policy(**(fields | changes)).id != BASE.id


def test_the_order_of_a_table_says_nothing():
    assert Policy(eps=BASE.eps[::-1]).id == Policy(eps=BASE.eps).id


def test_the_id_of_the_text():
    """Every number by its exact value, so that no two tolerances print the same."""
    base = [
        "weighted-columns-in-blocks-and-rows-of-roundings",
        16,
        (1e-9).hex(),
        [["float32", (0.25).hex()], ["float64", (0.125).hex()]],
        [[name, eps.hex()] for name, eps in sorted(BASE.output_eps)],
        9,
        (0.4).hex(),
        (2.0).hex(),
        (0.25).hex(),
        [["arithmetic", (2.0).hex()], ["function", (8.0).hex()], ["product", (16.0).hex()]],
    ]
    assert BASE.id == encoding.tagged_hash("policy", encoding.encode(base))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"draws": n}, "draws") for n in (-1, 0, 4097)),
        *(({"phi": x}, "phi") for x in (0.0, -1e-9, 1e-31, 0.6, 1.0, math.nan, math.inf)),
        *(({"losses": x}, "losses") for x in ((), (("function", 8.0),), BASE.losses * 2)),
        *(
            ({"losses": (*BASE.losses[:2], ("product", x))}, "product")
            for x in (0.0, 0.5, 2.0**17, math.nan, math.inf)
        ),
        *(({"trip_limit": n}, "trip_limit") for n in (-1, 0, 2**31)),
        *(({"narrow_sum": x}, "narrow_sum") for x in (-0.1, math.nan, math.inf)),
        *(({"narrow_replayed": x}, "narrow_replayed") for x in (-0.1, math.nan, math.inf)),
        *(
            ({table: (("float32", x),)}, "float32")
            for table in ("eps", "output_eps")
            for x in (0.0, -0.1, 1.0, 2.0, math.nan, math.inf)
        ),
        *(
            ({table: (("float32", 0.1), ("float32", 0.2))}, "float32")
            for table in ("eps", "output_eps")
        ),
    ],
    ids=str,
)
def test_a_policy_under_which_all_or_nothing_passes_is_refused(
    changes: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        Policy(**changes)


def test_the_default_of_the_design():
    assert Policy() == policy.DEFAULT
    assert (policy.DEFAULT.draws, policy.DEFAULT.phi) == (16, 1e-9)
    eps = dict(policy.DEFAULT.eps)
    assert list(eps) == TYPES
    # Wider types are held to less; each far above its rounding, and far below 1.
    assert eps["bfloat16"] > eps["float16"] > eps["float32"] > eps["float64"]
    for name, digits in (("bfloat16", 8), ("float16", 11), ("float32", 24), ("float64", 53)):
        assert 2.0 ** (1 - digits / 2) > eps[name] > 2.0**-digits
        assert dict(policy.DEFAULT.output_eps)[name] > eps[name]


@pytest.mark.parametrize(
    ("dtypes", "eps"),
    [
        (("float32", "float32", "float32"), 2.0**-16),
        (("bfloat16", "bfloat16", "float32"), 2.0**-6),
        (("float16", "float16", "float32"), 2.0**-8),
        (("bfloat16", "float32", "float32"), 2.0**-6),
        (("float64", "float64", "float64"), 2.0**-44),
        (("int8", "int8", "int32"), 0.0),
        (("uint8", "int8", "int32"), 0.0),
    ],
    ids=str,
)
def test_a_claim_takes_the_largest_tolerance_of_its_types(dtypes: Any, eps: float):
    assert policy.DEFAULT.eps_of(matrix_form(2, 3, 4, dtypes)) == eps


def test_a_type_without_a_tolerance_is_named():
    short = Policy(eps=(("float64", 0.1),), output_eps=(("float32", 0.1),))
    with pytest.raises(ValueError, match="no tolerance for float32, only for float64"):
        short.eps_of(matrix_form(2, 3, 4, ("float32",) * 3))
    with pytest.raises(ValueError, match="no tolerance for float64, only for float32"):
        short.output_eps_of(output("float64"))
    assert short.output_eps_of(output("float32")) == 0.1
