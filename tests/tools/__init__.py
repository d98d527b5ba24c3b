"""Programs that other people wrote for QEMU, unmodified, against the installed command."""
