"""``python -m snnpipe``."""

from .cli import main

main()
