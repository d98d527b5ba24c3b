"""Rules of the project's style that are held by tests."""
