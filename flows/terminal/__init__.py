"""What people ask and tell the loop from a terminal."""
