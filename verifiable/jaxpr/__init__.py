"""Jaxprs as flat blocks, their interpreters, and what their primitives do to rounding."""
