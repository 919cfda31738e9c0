"""The life of the local stack: up, down, health."""
