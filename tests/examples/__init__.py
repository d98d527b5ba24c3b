"""Every example runs as its reader would run it."""
