"""Verify one contraction on its own, without a program: see `verifiable.claims.freivalds`."""

from verifiable.claims.standalone import verify_conv_general_dilated, verify_dot_general

__all__ = ["verify_conv_general_dilated", "verify_dot_general"]
