"""QEMU's own test programs, built from Debian's source package and run against aioemu."""
