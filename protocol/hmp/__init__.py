"""The text monitor: commands for people, at a prompt or one line at a time."""
