"""Surrogate derivatives, one file each."""
