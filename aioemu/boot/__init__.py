"""What is in a machine's memory and registers before its first instruction: kernel, initrd, tables, entry state."""
