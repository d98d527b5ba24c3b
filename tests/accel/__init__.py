"""Tests of aioemu.accel."""
