"""A layer as bytes: compression, tar, tar-split, changeset. Pure: no file system, clock or network."""
