"""Tests of claims tile by tile."""
