"""Decisions: pure functions and records. No clock, no file, no socket, no log."""
