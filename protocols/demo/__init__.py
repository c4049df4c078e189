"""The demo: one coordinator, honest devices, named cheats."""
