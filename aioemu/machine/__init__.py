"""A machine: boards as tables, the run state, and the life of everything in between."""
