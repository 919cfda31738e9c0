"""Pages and pictures in the Prefect UI."""
