"""Tests of aioemu.blockdev."""
