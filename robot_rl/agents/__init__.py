"""What acts and learns: one algorithm a file."""
