"""The scenes of the demo, in order."""
