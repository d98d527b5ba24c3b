"""Tests of aioemu.machine."""
