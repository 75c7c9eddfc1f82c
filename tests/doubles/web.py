"""A real HTTPS server whose files misbehave on request, and what it was asked."""

from __future__ import annotations

import hashlib
import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cyxwiz_devcluster.certificates import Authority


@dataclass
class File:
    """What is served at a path."""

    content: bytes = b""
    ranges: bool = True
    versioned: bool = True
    announced: int | None = None
    """Content-Length, where it is not the content's."""
    breaks_after: int | None = None
    """The connection is closed after so many bytes of an answer, as often as `breaks` says."""
    breaks: int = 0
    status: int = 200
    redirect: str | None = None
    encoding: str | None = None

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


class WebServer:
    """Listens on 127.0.0.1 with a certificate of its own authority."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, File] = {}
        self.hits: list[str] = []
        """Path and Range of every request, in order."""
        authority = Authority(folder / "tls")
        pair = authority.issue("web", "web", dns_names=["localhost", "data.test"], addresses=["127.0.0.1", "::1"])
        self.certificates = str(authority.pair.certificate)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"https://{self.address}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(web: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            web.hits.append(f"{self.path} {wanted}".strip())
            file = web.files.get(self.path.partition("?")[0], File(status=404))
            if file.redirect is not None:
                self.send_response(302)
                self.send_header("Location", file.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, content = 0, file.content
            fresh = self.headers.get("If-Range", file.etag) == file.etag
            if file.ranges and wanted.startswith("bytes=") and fresh and file.status == 200:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start = int(first)
                content = content[start : int(last) + 1 if last else None]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{len(file.content)}")
            else:
                self.send_response(file.status)
            if file.versioned:
                self.send_header("ETag", file.etag)
            if file.encoding:
                self.send_header("Content-Encoding", file.encoding)
            self.send_header("Content-Length", str(len(content) if file.announced is None else file.announced))
            self.end_headers()
            if file.breaks_after is not None and file.breaks > 0 and len(content) > file.breaks_after:
                file.breaks -= 1
                self.wfile.write(content[: file.breaks_after])
                self.close_connection = True
                return
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
