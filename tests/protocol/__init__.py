"""Tests of the monitor: framing, sessions, commands, text, and real clients."""
