"""Decisions about volumes: pure."""
