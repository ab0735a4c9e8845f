"""A container's log file, read back and carried to log servers."""
