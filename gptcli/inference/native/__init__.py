"""Decoding on a CPU in compiled loops: one call a step, all threads in it."""
