"""The qcow2 driver against the tools that people trust, against crashes and against hostile images."""
