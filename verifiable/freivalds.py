"""Verify one contraction on its own, without a program: see `claims.products.freivalds`."""

from verifiable.claims.products.standalone import verify_conv_general_dilated, verify_dot_general

__all__ = ["verify_conv_general_dilated", "verify_dot_general"]
