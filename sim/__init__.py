"""Worlds, and the operators that demonstrate in them."""
