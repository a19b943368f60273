"""The machine we run on: its clock, its commands, its locks."""
