"""Serving a release over HTTP."""
