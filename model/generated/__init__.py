"""Data sets that are drawn, not collected: pictures, questions and their answers."""
