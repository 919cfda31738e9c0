"""The names under which the place `local` knows deployments/files.py."""

from deployments.files import exclusive, write_whole

alone = exclusive  # for callers that still use the name of the first design

__all__ = ["alone", "exclusive", "write_whole"]
