"""The provider scripts: everybody who says so is let in, and runs where the path says."""


def allow_access(environ, host):
    """Others decide whether the client is let in."""
    return None if environ["REMOTE_ADDR"] == host else False


def check_password(environ, user, password):
    """The name that the user has from here on."""
    return user.upper() if password == "secret" else False


def groups_for_user(environ, user):
    """The groups of the user."""
    return ["people", b"testers"] if user == "TESTER" else []


def application_group(environ):
    """The interpreter that the path names."""
    return "%{GLOBAL}" if environ["SCRIPT_NAME"] == "/main" else "%{ENV:MOUNT}"
