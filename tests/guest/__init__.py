"""Real guests on real accelerators."""
