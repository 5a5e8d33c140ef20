"""How a trained network leaves torch, and in which forms."""
