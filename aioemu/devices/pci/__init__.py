"""PCI and PCI Express: configuration space, functions, bridges and interrupts by message."""
