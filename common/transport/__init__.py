"""Ways to move bytes between processes: one port, several adapters, one conformance suite."""
