"""Benches: a look behind each driver and target, for its specifications."""
