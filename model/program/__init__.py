"""What every program needs: console, settings, errors, files and paths."""
