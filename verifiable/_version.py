"""The version, also of keys."""

__version__ = "0.1.0"
