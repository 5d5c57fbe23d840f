"""A page of Flask."""

from flask import Flask

application = Flask(__name__)


@application.get("/flask")
def hello():
    """A short text."""
    return "Hello, world!"
