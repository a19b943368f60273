"""Durable flows: sagas run against the journal. Knows no RPC."""
