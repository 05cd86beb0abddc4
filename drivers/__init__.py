"""What carries decisions to a real arm: not built yet."""
