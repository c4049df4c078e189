"""Tests of what fails a test, without the second look, which compiles a replay for each claim."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from verifiable.check.judging import verdict


@contextmanager
def first_look_only() -> Iterator[None]:
    """Judge by the failed tests alone; `test_second_look.py` has what follows a failed test."""
    with mock.patch.object(verdict, "look_again", lambda *_: None):
        yield
