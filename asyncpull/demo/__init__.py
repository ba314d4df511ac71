"""A small real image and a registry on loopback that serves it: something to pull where there is no network."""
