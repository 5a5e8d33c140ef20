"""Lava as a referee: its private environment, the worker process, and plans for its programs."""
