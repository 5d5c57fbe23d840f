"""The handler script: answers as the application does."""


def handle_request(environ, start_response):
    """A small answer."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["mod_wsgi.handler_script"].encode()]
