"""Trees of files below a root that nothing gets out of: open, walk, copy, remove; attributes and marks."""
