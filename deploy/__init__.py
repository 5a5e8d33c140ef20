"""How an exported network runs, here."""
