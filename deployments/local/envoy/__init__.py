"""Envoy, the data plane of the place `local`."""
