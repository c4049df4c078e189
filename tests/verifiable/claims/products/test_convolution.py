"""Convolutions as linear maps, against matrix products."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.contractions import Case, check_maps, conv, conv_cases
from verifiable.claims.products.convolution import Convolution
from verifiable.claims.products.product import contraction


@given(case=conv_cases(), seed=st.integers(0, 2**32))
@settings(max_examples=8)
def test_conv_general_dilated_as_linear_maps(case: Case, seed: int):
    check_maps(case, seed)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolutions_of_known_kernels_have_a_check(dims: int):
    form = contraction(conv(dims))
    assert isinstance(form, Convolution)
    assert form.work == 2 * 4 * 4**dims * 8 * 4 * 2**dims
    assert contraction(conv(dims), near=1) is None


def test_other_convolutions_have_none():
    assert contraction(conv(4)) is None
    assert contraction(conv(0)) is None
    assert contraction(conv(batch_group_count=2)) is None
