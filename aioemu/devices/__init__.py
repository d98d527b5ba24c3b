"""Chips, one per file, from their data sheets: what is on the board, not where."""
