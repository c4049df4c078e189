"""Products as claims: Freivalds' test of a contraction, and what becomes one."""
