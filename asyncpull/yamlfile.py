"""YAML files of people: read safely, and strict about keys that are there twice; the only importer of the parser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def parse_yaml(path: Path, raw: bytes) -> object:
    """What ``raw``, the bytes of the file ``path``, hold. Raises ConfigurationError."""
    import yaml

    class Loader(yaml.CSafeLoader):
        """Safe, and strict."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
            keys: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        problem = f"{key.value!r} is there twice"
                        raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                    keys.add(key.value)
            found: dict[object, object] = super().construct_mapping(node, deep)
            return found

    try:
        return yaml.load(raw, Loader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # The middle ones for a value that is not what its tag says: !!timestamp x, !!int "", !!bool x.
        raise ConfigurationError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
