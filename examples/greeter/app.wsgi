"""A small Flask application; the demo runs it embedded in httpd."""

import os
import sys

from flask import Flask, jsonify, request

application = Flask(__name__)


@application.get("/")
def index() -> str:
    """Greets, and says where it runs."""
    group = request.environ.get("mod_wsgi.process_group", "")
    where = f"in daemon process group '{group}'" if group else "embedded in httpd"
    return f"<p>Hello from Flask, {where}, process {os.getpid()}.</p>\n"


@application.get("/where")
def where() -> object:
    """Tells a script the same."""
    group = request.environ.get("mod_wsgi.process_group", "")
    return jsonify(process_group=group, pid=os.getpid(), python=sys.version.split()[0])


@application.post("/echo")
def echo() -> object:
    """Sends back the JSON it was sent."""
    return jsonify(request.get_json())
