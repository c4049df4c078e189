"""The on-chain verifier: `Settlement.vy`, and what the compiler makes of it, `Settlement.json`."""
