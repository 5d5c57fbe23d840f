"""`mod_wsgi.LogHandler`: records of `logging` in httpd's error log.

Executed when somebody asks for it, in a namespace that is called `mod_wsgi` too:
importing `logging` takes longer than the rest of an interpreter's set-up.
`would_log` and `log_from` are there already.
"""

import logging

# httpd's numbers, by the least level of `logging`.
LEVELS = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
DEBUG = 7


class LogHandler(logging.Handler):
    """Writes records to the log of the request that runs, or of the server."""

    def emit(self, record):
        """Write a record, unless `LogLevel` is against it."""
        level = next((number for least, number in LEVELS if record.levelno >= least), DEBUG)
        if not would_log(level):  # noqa: F821
            return
        try:
            message = self.format(record)
            log_from(level, message, record.pathname, record.lineno)  # noqa: F821
        except Exception:
            self.handleError(record)
