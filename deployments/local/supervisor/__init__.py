"""supervisord, which keeps the servers of the place `local` running."""
