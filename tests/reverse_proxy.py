"""A reverse proxy before a server, as nginx is: with the path prefix stripped or passed on."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_OF_A_CONNECTION = frozenset(
    {"connection", "transfer-encoding", "content-length", "date", "server", "keep-alive"}
)


class Proxy(ThreadingHTTPServer):
    """Passes on what is below `prefix`; `outside` notes each request for anything else."""

    daemon_threads = True

    def __init__(self, prefix: str, *, strips: bool, keeps_host: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.prefix, self.strips, self.keeps_host = prefix, strips, keeps_host
        self.backend = ""
        self.outside = list[str]()

    @property
    def address(self) -> str:
        """The public address, with the prefix."""
        return f"http://127.0.0.1:{self.server_port}{self.prefix}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it is called by
        """Log nothing."""

    def do_GET(self) -> None:
        proxy = self.server
        if not self.path.startswith(f"{proxy.prefix}/"):
            proxy.outside.append(self.path)
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        host = urlsplit(proxy.backend).netloc
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        if not proxy.keeps_host:
            headers["Host"] = host
        asked = http.client.HTTPConnection(host, timeout=20)
        try:
            path = self.path.removeprefix(proxy.prefix) if proxy.strips else self.path
            asked.request(self.command, path, body, headers)
            answer = asked.getresponse()
            data = answer.read()
        finally:
            asked.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_A_CONNECTION:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_POST = do_HEAD = do_GET  # noqa: N815 - as http.server calls them


@contextmanager
def proxy(prefix: str, *, strips: bool, keeps_host: bool = False) -> Iterator[Proxy]:
    """Run a proxy while the block lasts; set its `backend` to the address of a server."""
    server = Proxy(prefix, strips=strips, keeps_host=keeps_host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
