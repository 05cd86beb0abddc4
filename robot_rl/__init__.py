"""The loop, the records and the verbs; read `types.py` first."""
