"""Where an exported network can run, one file each."""
