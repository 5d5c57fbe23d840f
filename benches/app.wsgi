"""What the benchmark asks for: a short text, and under /large a large file."""

import os

LARGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "static", "large")


def application(environ, start_response):
    """Answers with as little Python as an application can have."""
    if environ["PATH_INFO"] == "/large":
        size = str(os.path.getsize(LARGE))
        start_response(
            "200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", size)]
        )
        return environ["wsgi.file_wrapper"](open(LARGE, "rb"), 65536)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world!"]
