"""What a chip allows, and what a run costs on it."""
