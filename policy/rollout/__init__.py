"""A rollout: its record, what one look changes, what people may say of it."""
