"""The service that runs twice: nginx with the same content on both replicas, except for one page."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path
from types import MappingProxyType

from tools.lab import host
from tools.lab.scene import REPLICAS, SERVER_ADDRESS, Scene

NGINX = "/usr/sbin/nginx"
HEADERS_MORE = Path("/usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so")
HEADERS_MORE_PACKAGE = "libnginx-mod-http-headers-more-filter"

PAGE_COUNT = 40
# The answers of /host: of one length, so that a released difference does not shift the rest of the connection.
HOST_PAGE = MappingProxyType({"primary": "primary  ", "secondary": "secondary"})
# Any fixed moment: Last-Modified and ETag are made of it and must be equal on both replicas.
MODIFIED = 1_700_000_000

CONFIG = """\
{modules}user nobody nogroup;
worker_processes 1;
pid {root}/nginx.pid;
error_log {root}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    log_format lab '$request_method $request_uri $status $body_bytes_sent $request_length';
    access_log {root}/access.log lab;
    types {{ text/html html; application/octet-stream bin; }}
    default_type text/plain;
    server_tokens off;
{headers}    sendfile on;
    tcp_nodelay on;
    keepalive_timeout 75s;
    keepalive_requests 100000;
    client_max_body_size 0;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/unused;
    fastcgi_temp_path {root}/unused;
    uwsgi_temp_path {root}/unused;
    scgi_temp_path {root}/unused;
    server {{
        listen {address}:80;
        root {root}/html;
        location = /host {{ return 200 "{host_page}\\n"; }}
        location /upload/ {{ root {root}; dav_methods PUT; }}
    }}
}}
"""


def page_path(index: int) -> str:
    """The path of a small page."""
    return f"/page-{index % PAGE_COUNT:02d}.html"


def page_body(index: int) -> bytes:
    """The body of a small page: 100 B to 6 kB of text, the same in every run."""
    index %= PAGE_COUNT
    words = random.Random(index)
    line = f"<p>page {index:02d} {words.randbytes(30).hex()}</p>\n".encode()
    return (line * 80)[: 100 + index * 150]


def bulk_bytes(size: int, seed: int) -> bytes:
    """``size`` bytes that no compression shortens, the same in every run."""
    return random.Random(seed).randbytes(size)


def has_headers_more() -> bool:
    """Whether nginx can leave out Date.

    Without it the replicas' answers differ whenever they fall into different seconds: true divergences, but unplanned.
    """
    return HEADERS_MORE.exists()


def config(role: str, root: Path) -> str:
    """nginx.conf of a replica whose files are under ``root``."""
    more = has_headers_more()
    return CONFIG.format(
        modules=f"load_module {HEADERS_MORE};\n" if more else "",
        headers="    more_clear_headers Date;\n" if more else "",
        root=root,
        address=SERVER_ADDRESS,
        host_page=HOST_PAGE[role],
    )


class Servers:
    """Both nginx, each in its namespace, from files of its own."""

    def __init__(self, scene: Scene, bulk_size: int) -> None:
        self._scene = scene
        self._bulk = bulk_bytes(bulk_size, seed=50)
        self.bulk_digest = hashlib.sha256(self._bulk).hexdigest()

    def root(self, role: str) -> Path:
        """The folder of a replica."""
        return self._scene.directory / role

    def start(self) -> None:
        """Write the content, start both, wait until both listen."""
        for role in REPLICAS:
            self._write(role)
        for role in REPLICAS:
            root = self.root(role)
            # -e: before it has read its config nginx would write to the system's own error log.
            own = ("-e", str(root / "error.log"), "-p", str(root), "-c", str(root / "nginx.conf"), "-g", "daemon off;")
            process = self._scene.spawn(self._scene.inside(role, NGINX, *own), root / "error.log")
            self._await(role, process)
        self._bulk = b""

    def _await(self, role: str, process: subprocess.Popen[bytes]) -> None:
        pid_file = self.root(role) / "nginx.pid"  # written once its sockets listen
        host.wait_until(lambda: pid_file.exists() or process.poll() is not None, 60, f"nginx of the {role} to listen")
        if process.poll() is not None:
            said = (self.root(role) / "error.log").read_text().strip()
            raise host.LabError(f"nginx of the {role} ended with {process.returncode}: {said}")

    def _write(self, role: str) -> None:
        root = self.root(role)
        for folder in ("html", "upload", "body", "unused"):
            (root / folder).mkdir(parents=True)
        for folder in ("upload", "body"):
            os.chown(root / folder, 65534, 65534)
        pages = {page_path(i): page_body(i) for i in range(PAGE_COUNT)} | {"/bulk.bin": self._bulk}
        for path, body in pages.items():
            file = root / "html" / path[1:]
            file.write_bytes(body)
            os.utime(file, (MODIFIED, MODIFIED))
        (root / "nginx.conf").write_text(config(role, root))

    def served(self, role: str) -> list[str]:
        """The finished requests of a replica's access log: method, path, status, bytes sent, bytes received."""
        log = self.root(role) / "access.log"
        return log.read_text().splitlines() if log.exists() else []

    def uploaded(self, role: str, name: str) -> str:
        """SHA-256 of an uploaded file as a replica has it; empty if it has none."""
        file = self.root(role) / "upload" / name
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""
