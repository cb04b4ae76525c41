"""A collector that takes what is sent by OTLP over HTTP, and drops it; run as a process."""

from __future__ import annotations

import http.server


class _Dropping(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Writes nothing."""


def main() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Dropping) as server:
        print(f"listens on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
