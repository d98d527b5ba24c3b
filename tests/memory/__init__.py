"""Tests of aioemu.memory."""
