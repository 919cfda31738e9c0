"""Data sets on the disk, and how they become batches."""
