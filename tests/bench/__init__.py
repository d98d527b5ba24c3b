"""The project's figures, measured: `python -m tests.bench`."""
