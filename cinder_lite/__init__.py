"""The volume service: cinder's words, one flow."""
