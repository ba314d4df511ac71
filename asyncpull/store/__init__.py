"""containers/storage on disk: records, locks, layers, images, containers and mounts."""
