"""Attacks on the design's promises, with real processes: something breaks, all settles, and everything is verified."""
