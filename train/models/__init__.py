"""Network architectures to train, one file each."""
