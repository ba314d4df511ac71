"""Debian's nginx before a registry, started and ended by the tests: a slow link, TLS, refusals, and who asked for what.

``limit_rate`` counts per request, so over HTTP/1.1 it is the rate of a connection. nginx writes what it has, up to a
limit (``sendfile_max_chunk``, usually 2 MB), and pauses for as long as that should have taken, so that a client that
asks for small ranges would not meet the rate at all; here one write is at most 1/64 second's worth.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.docker_registry import Registry, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.certificates import Authority, Certificate

PROGRAM = "nginx"
_START_SECONDS = 90
_DRAIN_SECONDS = 90
_SMALLEST_WRITE = 16 << 10
_SUBFOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_LOG_FORMAT = (
    '{"connection":$connection,"ended":$msec,"seconds":$request_time,"status":$status,"sent":$bytes_sent,'
    '"body":$body_bytes_sent,"range":"$http_range","request":"$request","agent":"$http_user_agent"}'
)


def is_installed() -> bool:
    """Tell whether the program is on this machine (Debian: package nginx-light)."""
    return shutil.which(PROGRAM) is not None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is asked for paths that match a regular expression is answered with 429 or 503, always."""

    path: str
    status: int = 503


@dataclass(frozen=True, slots=True)
class Options:
    """How nginx serves.

    ``limit_rate`` is in bytes per second and connection. ``requests_per_second`` and ``most_requests`` (at one time)
    are limits of the whole server, those above them get 429. Every 429 and 503 says ``retry_after``, in seconds or as a
    date, unless it is None. With ``blobs_from_disk`` nginx itself reads the blobs where the registry keeps them, as
    registries do that redirect to a file store: the registry takes no processor time then, nor does it check who asks.
    ``server`` makes it speak TLS, and ``clients`` demand a certificate that this authority signed. ``send_buffer`` is
    the size, in bytes, of the kernel's buffer per connection: what lies there counts as sent, and by default that may
    be megabytes for a client that does not read, or that is dead. ``host`` is the address that it listens on.
    """

    limit_rate: int | None = None
    requests_per_second: int | None = None
    most_requests: int | None = None
    refusals: Sequence[Refusal] = ()
    retry_after: str | None = "1"
    blobs_from_disk: bool = False
    server: Certificate | None = None
    clients: Authority | None = None
    send_buffer: int = 128 << 10
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Answer:
    """A line of the access log: a request and what was sent, also if the client went away in the middle.

    ``ended`` is in seconds since the epoch, ``sent`` and ``body`` are bytes with and without the header, ``range`` is
    the request's header or empty, and ``connection`` is a serial number.
    """

    connection: int
    ended: float
    seconds: float
    status: int
    sent: int
    body: int
    range: str
    request: str
    agent: str

    @property
    def started(self) -> float:
        return self.ended - self.seconds


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx. ``address`` is ``127.0.0.1:PORT``, as in references."""

    address: str
    log: Path
    status_address: str
    """Where it says how many connections it has, whatever it wants of those who come to the other address."""

    def answers(self) -> list[Answer]:
        """Return every request answered so far, oldest end first."""
        lines = self.log.read_text(errors="replace").split("\n")[:-1]
        try:
            return [Answer(**json.loads(line)) for line in lines]
        except ValueError as error:
            raise RuntimeError(f"{self.log} has a line that is no answer: {error.args}, of {lines!r:.4000}") from error

    def drained_answers(self) -> list[Answer]:
        """Wait until nginx knows that all clients have gone, and return all answers.

        A request is logged when it has ended, and a client's death takes a moment to be noticed.
        """
        deadline = time.monotonic() + _DRAIN_SECONDS
        while (others := self.connections() - 1) > 0:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{others} connections to {self.address} are still open")
            time.sleep(0.02)
        return self.answers()

    def connections(self) -> int:
        """Return how many connections are open, the one that asks included."""
        connection = http.client.HTTPConnection(self.status_address, timeout=10)
        try:
            connection.request("GET", "/")
            return int(connection.getresponse().read().split()[2])
        finally:
            connection.close()


def answers_at_once(answers: Sequence[Answer]) -> int:
    """Return the largest number of answers that were under way at the same time."""
    changes = sorted([(each.started, 1) for each in answers] + [(each.ended, -1) for each in answers])
    running, most = 0, min(1, len(answers))  # the clock of the log has ticks of 1 ms, some answers take less
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


@contextmanager
def nginx(directory: Path, registry: Registry, options: Options | None = None) -> Iterator[Nginx]:
    """Run nginx before ``registry``, with all its files below ``directory``, and end it with the block."""
    options = options or Options()
    for name in _SUBFOLDERS:
        (directory / name).mkdir(parents=True, exist_ok=True)
    running = Nginx(f"{options.host}:{free_port()}", directory / "transfers.log", f"127.0.0.1:{free_port()}")
    configuration, errors = directory / "nginx.conf", directory / "error.log"
    configuration.write_text(_configuration(directory, registry, options, running))
    command = [PROGRAM, "-p", str(directory), "-e", str(errors), "-c", str(configuration)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(running, process, errors)
        yield running
    finally:
        process.terminate()
        process.wait()


def _configuration(directory: Path, registry: Registry, options: Options, running: Nginx) -> str:
    """Return the configuration file. One process does everything, so that the process ID is that of nginx."""
    # Root's nginx would turn into an ordinary user, who may not read below pytest's folders; others' warns of "user".
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(f"  {name}_temp_path {directory / name};" for name in _SUBFOLDERS)
    scheme = "https" if registry.certificate else "http"
    refusals = "\n".join(f"    {json.dumps(f'~{each.path}')} {each.status};" for each in options.refusals)
    return f"""\
daemon off;
master_process off;
pid {directory / "nginx.pid"};
{user}
events {{ worker_connections 2048; }}
http {{
{temporary}
  log_format transfers escape=json '{_LOG_FORMAT}';
  access_log {running.log} transfers;
  map $request_uri $refusal {{
    default 0;
{refusals}
  }}
  map $status $retry_after {{
    default "";
    "~^(429|503)$" "{options.retry_after or ""}";
  }}
  upstream registry {{
    server {registry.address};
    keepalive 16;
  }}
{_limits(options)}
  server {{
    listen {running.address} sndbuf={options.send_buffer}{" ssl" if options.server else ""};
{_tls(options)}
    add_header Retry-After $retry_after always;
    client_max_body_size 0;
    keepalive_requests 1000000;
    sendfile on;
    if ($refusal = 429) {{ return 429; }}
    if ($refusal = 503) {{ return 503; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_request_buffering off;
    proxy_buffers 16 64k;
    proxy_busy_buffers_size 512k;
    proxy_max_temp_file_size 0;
    proxy_read_timeout 300s;
    location / {{ proxy_pass {scheme}://registry; }}
{_blobs_from_disk(registry.data) if options.blobs_from_disk else ""}
    location @registry {{ proxy_pass {scheme}://registry; }}
  }}
  server {{
    listen {running.status_address};
    access_log off;
    location / {{ stub_status; }}
  }}
}}
"""


def _limits(options: Options) -> str:
    lines: list[str] = []
    if options.limit_rate:
        lines += [f"limit_rate {options.limit_rate};"]
        lines += [f"sendfile_max_chunk {max(_SMALLEST_WRITE, options.limit_rate // 64)};"]
    if options.requests_per_second:
        lines += [f"limit_req_zone $server_port zone=requests:64k rate={options.requests_per_second}r/s;"]
        lines += ["limit_req zone=requests;", "limit_req_status 429;"]
    if options.most_requests:
        lines += ["limit_conn_zone $server_port zone=connections:64k;"]
        lines += [f"limit_conn connections {options.most_requests};", "limit_conn_status 429;"]
    return "\n".join(f"  {line}" for line in lines)


def _tls(options: Options) -> str:
    lines: list[str] = []
    if options.server:
        lines += [f"ssl_certificate {options.server.path};", f"ssl_certificate_key {options.server.key};"]
    if options.clients:
        lines += [f"ssl_client_certificate {options.clients.path};", "ssl_verify_client on;"]
    return "\n".join(f"    {line}" for line in lines)


def _blobs_from_disk(data: Path) -> str:
    return f"""\
    location ~ "^/v2/.+/blobs/sha256:(?<digest>(?<prefix>[0-9a-f]{{2}})[0-9a-f]{{62}})$" {{
      alias {data}/docker/registry/v2/blobs/sha256/$prefix/$digest/data;
      types {{ }}
      default_type application/octet-stream;
      add_header Docker-Content-Digest sha256:$digest;
      add_header Retry-After $retry_after always;
      error_page 404 = @registry;
      log_not_found off;
    }}
"""


def _wait_until_it_answers(running: Nginx, process: subprocess.Popen[bytes], errors: Path) -> None:
    """Ask until nginx answers; it has no way to tell when it is ready."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            running.connections()
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{PROGRAM} did not start: {errors.read_text()[-2000:]}") from error
            time.sleep(0.02)
        else:
            return
