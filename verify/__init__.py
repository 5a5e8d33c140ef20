"""Whether the deployed network does what was trained, and at what cost."""
