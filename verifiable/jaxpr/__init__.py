"""Jaxprs as flat blocks, and what their primitives do to rounding."""
