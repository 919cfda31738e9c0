"""Places for the tests that are no place to work in: `memory`, a cloud without a cloud."""
