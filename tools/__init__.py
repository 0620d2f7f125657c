"""Measurements; each file says what it measures and where its results go."""
