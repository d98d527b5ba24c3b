"""The tests: a folder per package, and what several of them share."""
