"""snnpipe: train spiking networks, export them, and prove that what runs is what was trained."""

__version__ = "0.1.0"
