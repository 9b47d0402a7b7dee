"""State, output and manifest of a build."""
