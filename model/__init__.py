"""The network's programs: executed, never imported. Their contract is in README.md."""
