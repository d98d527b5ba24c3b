"""Guest RAM: where it lies and how the machine's own code reads and writes it."""
