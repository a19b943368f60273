"""The compute service: nova's words, one flow."""
