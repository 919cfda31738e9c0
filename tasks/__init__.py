"""Steps: one retried, visible call each."""
