"""Progress of pulls as people and programs read it, on stderr."""
