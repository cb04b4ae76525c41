"""What is served over HTTP; imported only where WORKER_HTTP_PORT is set."""

from .listener import running_http

__all__ = ["running_http"]
