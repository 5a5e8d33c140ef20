"""The event-driven C++ engine."""
