"""Releases: sealed, signed folders under one digest."""
