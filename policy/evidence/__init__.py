"""What live traffic proves: limits, comparison with stable, tests, analyses."""
