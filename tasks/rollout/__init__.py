"""Steps of a rollout."""
