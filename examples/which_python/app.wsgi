"""A WSGI application without any framework: says which Python it runs under."""

import json
import os
import sys


def application(environ, start_response):
    """Answers with facts about the process and its Python."""
    facts = {
        "version": sys.version,
        "prefix": sys.prefix,
        "pid": os.getpid(),
        "uid": os.getuid(),
        "process_group": environ.get("mod_wsgi.process_group", ""),
        "application_group": environ.get("mod_wsgi.application_group", ""),
    }
    body = json.dumps(facts, indent=2).encode() + b"\n"
    start_response(
        "200 OK",
        [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
    )
    return [body]
