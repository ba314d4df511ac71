"""Instructions that change the configuration of an image."""

from __future__ import annotations

import pytest

from asyncpull.errors import UsageError
from asyncpull.spec.instruction import apply_instructions, parse_instruction

BEFORE = {
    "Cmd": ["old"],
    "Env": ["PATH=/bin", "A=0"],
    "Labels": {"a": "0"},
    "WorkingDir": "/srv",
    "ExposedPorts": {"1/tcp": {}},
    "OnBuild": ["RUN first"],
}


@pytest.mark.parametrize(
    ("lines", "changed"),
    [
        (['CMD ["a", "b c"]'], {"Cmd": ["a", "b c"]}),
        (["CMD=a b"], {"Cmd": ["/bin/sh", "-c", "a b"]}),
        (['ENTRYPOINT=["run"]'], {"Entrypoint": ["run"], "Cmd": None}),
        (['CMD ["x"]', 'entrypoint ["run"]'], {"Entrypoint": ["run"], "Cmd": ["x"]}),
        (["ENV=A=1"], {"Env": ["PATH=/bin", "A=1"]}),
        (['ENV A="1 2" B=3'], {"Env": ["PATH=/bin", "A=1 2", "B=3"]}),
        (["ENV A one two"], {"Env": ["PATH=/bin", "A=one two"]}),
        (["LABEL b=1", "LABEL a=x=y"], {"Labels": {"a": "x=y", "b": "1"}}),
        (["EXPOSE 80 53/udp"], {"ExposedPorts": {"1/tcp": {}, "80/tcp": {}, "53/udp": {}}}),
        (["USER app:app"], {"User": "app:app"}),
        (["STOPSIGNAL=SIGTERM"], {"StopSignal": "SIGTERM"}),
        (["VOLUME /data /more"], {"Volumes": {"/data": {}, "/more": {}}}),
        (['VOLUME ["/a b"]'], {"Volumes": {"/a b": {}}}),
        (["WORKDIR sub", "WORKDIR ../other"], {"WorkingDir": "/srv/other"}),
        (["WORKDIR=/"], {"WorkingDir": "/"}),
        (["ONBUILD RUN second"], {"OnBuild": ["RUN first", "RUN second"]}),
    ],
)
def test_what_an_instruction_changes(lines: list[str], changed: dict[str, object]) -> None:
    settings: dict[str, object] = dict(BEFORE)
    apply_instructions(settings, [parse_instruction(line) for line in lines])
    expected = {key: value for key, value in (BEFORE | changed).items() if value is not None}
    assert settings == expected


@pytest.mark.parametrize(
    "line",
    ["", "RUN x", "CMD", "CMD ", "ENV", "ENV A", "ENV =1", "LABEL a=1 b", "EXPOSE x", "USER a b", 'USER "', "COPY=a b"],
)
def test_what_is_none_is_refused(line: str) -> None:
    with pytest.raises(UsageError):
        parse_instruction(line)
