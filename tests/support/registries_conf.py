"""Cases of registries.conf: where a reference is looked for; ``!`` marks an endpoint that may be insecure.

The expectations are those of containers-registries.conf(5); the doubtful ones were tried with skopeo 1.22.
"""

from __future__ import annotations

DIGEST = "sha256:" + "0" * 64


def table(**values: str) -> str:
    return "[[registry]]\n" + "".join(f"{key.replace('_', '-')} = {value}\n" for key, value in values.items())


MIRROR = '[[registry.mirror]]\nlocation = "m.example"\n'

# the text of the file, a reference, and the references in the order to be tried; None where no table counts
LOCATIONS: list[tuple[str, str, list[str] | None]] = [
    # prefix
    (table(location='"a.example"'), "a.example/x", ["a.example/x:latest"]),
    (table(location='"a.example"'), "b.example/x", None),
    (table(location='"a.example"'), "a.example.org/x", None),
    (table(location='"a.example/"'), "a.example/x", ["a.example/x:latest"]),
    (table(prefix='""', location='"a.example"'), "a.example/x", ["a.example/x:latest"]),
    (table(prefix='"a.example/ns"', location='"b.example"'), "a.example/ns/x:1", ["b.example/x:1"]),
    (table(prefix='"a.example/ns"', location='"b.example"'), "a.example/nsx:1", None),
    (table(prefix='"a.example/ns/x"', location='"b.example/y"'), "a.example/ns/x:1", ["b.example/y:1"]),
    # What the library calls a mistake of its own, but does: a prefix without a port matches any.
    (table(prefix='"a.example"', location='"b.example"'), "a.example:5000/x", ["b.example:5000/x:latest"]),
    (table(prefix='"a.example:5000"', location='"b.example"'), "a.example/x", None),
    # The tag is not part of what is matched.
    (table(prefix='"a.example/x:1"', location='"b.example/x:1"'), "a.example/x:1", None),
    # the longest prefix wins, wherever it stands
    (
        table(prefix='"a.example/ns"', location='"long.example"') + table(location='"a.example"'),
        "a.example/ns/x",
        ["long.example/x:latest"],
    ),
    (
        table(location='"a.example"') + table(prefix='"a.example/ns"', location='"long.example"'),
        "a.example/ns/x",
        ["long.example/x:latest"],
    ),
    (
        table(prefix='"a.example"', location='"first.example"')
        + table(prefix='"a.example"', location='"second.example"'),
        "a.example/x",
        ["first.example/x:latest"],
    ),
    # wildcards
    (table(prefix='"*.example.com"'), "a.example.com/x", ["a.example.com/x:latest"]),
    (table(prefix='"*.example.com"'), "a.b.example.com/x", ["a.b.example.com/x:latest"]),
    (table(prefix='"*.example.com"'), "a.example.com:5000/x", ["a.example.com:5000/x:latest"]),
    (table(prefix='"*.example.com"'), "example.com/x", None),
    (table(prefix='"*.example.com"'), "aexample.com/x", None),
    (table(prefix='"*.example.com"'), "a.example.com.org/x", None),
    (table(prefix='"*.example.com"'), "b.org/a.example.com/x", None),
    (table(prefix='"*.example.com"', location='"b.org/all"'), "a.example.com/x", ["b.org/all/x:latest"]),
    (
        table(prefix='"*.com"', location='"short.org"') + table(prefix='"*.example.com"', location='"long.org"'),
        "a.example.com/x",
        ["long.org/x:latest"],
    ),
    # Of the same length is only a wildcard and a name of one letter more; the wildcard sorts first.
    (
        table(prefix='"a.example.com"', location='"name.org"') + table(prefix='"*.example.com"', location='"wild.org"'),
        "a.example.com/x",
        ["wild.org/x:latest"],
    ),
    # location
    (table(prefix='"a.example"', location='"b.example/c"'), "a.example/x:1", ["b.example/c/x:1"]),
    (
        table(prefix='"a.example"', location='"b.example"'),
        f"a.example/x@{DIGEST}",
        [f"b.example/x@{DIGEST}"],
    ),
    (table(prefix='"a.example"', location='"docker.io/library"'), "a.example/x", ["docker.io/library/x:latest"]),
    (table(prefix='"docker.io/library"', location='"b.example"'), "alpine:3", ["b.example/alpine:3"]),
    (table(prefix='"docker.io"', location='"localhost:5000"'), "alpine", ["localhost:5000/library/alpine:latest"]),
    # insecure
    (table(location='"a.example"', insecure="true"), "a.example/x", ["!a.example/x:latest"]),
    (table(location='"a.example"', insecure="false"), "a.example/x", ["a.example/x:latest"]),
    # mirror
    (
        table(location='"a.example"') + MIRROR + '[[registry.mirror]]\nlocation="n.example/a"\ninsecure=true',
        "a.example/x",
        ["m.example/x:latest", "!n.example/a/x:latest", "a.example/x:latest"],
    ),
    (
        table(location='"a.example"', insecure="true") + MIRROR,
        "a.example/x",
        ["m.example/x:latest", "!a.example/x:latest"],
    ),
    (table(prefix='"*.example.com"') + MIRROR, "a.example.com/x", ["m.example/x:latest", "a.example.com/x:latest"]),
    # mirror-by-digest-only
    (table(location='"a.example"', mirror_by_digest_only="true") + MIRROR, "a.example/x", ["a.example/x:latest"]),
    (
        table(location='"a.example"', mirror_by_digest_only="true") + MIRROR,
        f"a.example/x@{DIGEST}",
        [f"m.example/x@{DIGEST}", f"a.example/x@{DIGEST}"],
    ),
    # pull-from-mirror
    *(
        (
            table(location='"a.example"') + MIRROR + f'pull-from-mirror = "{value}"',
            f"a.example/x{suffix}",
            ([f"m.example/x{suffix}"] if is_asked else []) + [f"a.example/x{suffix}"],
        )
        for value, suffix, is_asked in [
            ("all", ":1", True),
            ("all", f"@{DIGEST}", True),
            ("", ":1", True),
            ("digest-only", ":1", False),
            ("digest-only", f"@{DIGEST}", True),
            ("tag-only", ":1", True),
            ("tag-only", f"@{DIGEST}", False),
        ]
    ),
    # keys in other capitals, which Go's decoder takes too
    ('[[Registry]]\nLocation = "a.example"\nINSECURE = true', "a.example/x", ["!a.example/x:latest"]),
    # version 1
    ('[registries.insecure]\nregistries = ["a.example/"]', "a.example/x", ["!a.example/x:latest"]),
]
