"""What every server is asked for: one function per workload, found by PATH_INFO."""

import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
if HERE not in sys.path:
    sys.path.insert(0, HERE)
# Shared by all servers, whose own directories lie in `servers`.
LARGE = os.path.join(HERE, "..", "..", "..", "static", "large")
PIECE = 64 * 1024
TYPICAL_HEADERS = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "10240")]
TYPICAL_HEADERS += [(f"X-Header-{number}", f"the value of number {number}") for number in range(8)]
TYPICAL_BODY = b"<p>typical</p>\n".ljust(16) * 640
CHUNK = b"a small piece of an answer that comes in many\n"


def text(start_response, body):
    """Answers with a short text."""
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def hello(environ, start_response):
    """As little Python as an application can have."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world!"]


def typical(environ, start_response):
    """Reads the environ, sends ten headers and 10 KB."""
    if not all(isinstance(value, str) for key, value in environ.items() if key.isupper()):
        return text(start_response, b"odd")
    start_response("200 OK", list(TYPICAL_HEADERS))
    return [TYPICAL_BODY]


def upload(environ, start_response):
    """Reads the request body and says how long it was."""
    total = 0
    read = environ["wsgi.input"].read
    while piece := read(PIECE):
        total += len(piece)
    return text(start_response, b"%d" % total)


def chunks(environ, start_response):
    """A thousand small pieces."""
    length = str(1000 * len(CHUNK))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", length)])
    return (CHUNK for _ in range(1000))


def sleep(environ, start_response):
    """Waits as for a database."""
    time.sleep(0.05)
    return hello(environ, start_response)


def large(start_response):
    """Begins the answer with the large file."""
    headers = [("Content-Type", "application/octet-stream")]
    headers.append(("Content-Length", str(os.path.getsize(LARGE))))
    start_response("200 OK", headers)
    return open(LARGE, "rb")


def file(environ, start_response):
    """A large file by `wsgi.file_wrapper`, where there is one."""
    wrapper = environ.get("wsgi.file_wrapper")
    if wrapper is None:
        return generator(environ, start_response)
    return wrapper(large(start_response), PIECE)


def generator(environ, start_response):
    """A large file read in pieces."""
    source = large(start_response)
    try:
        while piece := source.read(PIECE):
            yield piece
    finally:
        source.close()


def pid(environ, start_response):
    """Which process answers."""
    return text(start_response, b"%d" % os.getpid())


def flask(environ, start_response):
    """The same text by Flask; imported by the first who asks."""
    import with_flask

    PATHS["/flask"] = with_flask.application
    return with_flask.application(environ, start_response)


def django(environ, start_response):
    """The same text by Django; imported by the first who asks."""
    import with_django

    PATHS["/django"] = with_django.application
    return with_django.application(environ, start_response)


PATHS = {
    f"/{function.__name__}": function
    for function in (
        hello, typical, upload, chunks, sleep, file, generator, pid, flask, django,
    )
}


def application(environ, start_response):
    """Calls the function that the path names."""
    return PATHS[environ["PATH_INFO"]](environ, start_response)
