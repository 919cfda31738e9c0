"""Prometheus metrics of the ledger, the rollouts and the endpoints."""
