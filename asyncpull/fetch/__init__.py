"""Moving blobs from sources into spools."""
