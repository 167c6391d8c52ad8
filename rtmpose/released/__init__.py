"""Weights that others have released: what they are called, where they lie, and how they become ours."""
