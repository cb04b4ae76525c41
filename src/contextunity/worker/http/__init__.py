"""What is served over HTTP; imported only where WORKER_HTTP_PORT is set."""

from .listener import listen, running_http

__all__ = ["listen", "running_http"]
