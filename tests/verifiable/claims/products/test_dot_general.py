"""`dot_general` as linear maps, against matrix products."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.contractions import Case, check_maps, dot_cases, matrix_form
from verifiable.claims.products.dot_general import DotGeneral


@given(case=dot_cases(), seed=st.integers(0, 2**32))
@settings(max_examples=16)
def test_dot_general_as_linear_maps(case: Case, seed: int):
    check_maps(case, seed)


def test_the_form_of_a_product():
    form = matrix_form(3, 4, 5)
    assert isinstance(form, DotGeneral)
    assert (form.batch, form.rows, form.contracted, form.columns) == (1, 3, 4, 5)
    assert (form.near, form.far, form.tests, form.work) == (0, 1, 3, 120)
    assert form.vectors(far_known=True) == "float/parameters/5"
    assert form.vectors(far_known=False) == "float/activations/5"
    exact = matrix_form(3, 4, 5, ("int8", "int8", "int32"))
    assert exact.vectors(far_known=True) == "exact/parameters/5"
