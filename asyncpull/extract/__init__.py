"""From the bytes of a layer to an overlay diff directory, in worker processes."""
