"""The miss path: one exchange upstream per key, however many wait for it (DESIGN 5, FIELD 1)."""
