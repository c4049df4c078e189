"""Roundings as claims: values just after a cast or quantisation, in the rows that they have."""
