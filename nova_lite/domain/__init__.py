"""Decisions about servers and their disks: pure."""
