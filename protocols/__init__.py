"""Roles and messages that compose the primitives of `verifiable`, and the command line."""
