"""What is set up in each interpreter before any application code runs.

Executed in a namespace of its own; `set_up` is called once, the other public
functions whenever the runtime needs them.
"""

import gc
import io
import os
import sys
import threading  # Whoever imports it first is its main thread: better us than a worker.

# What `threading` starts a thread with: where it stands, there is the thread's name.
BOOTSTRAP = threading.Thread._bootstrap.__code__

# What ends the script of a service at SIGTERM.
_exit_now = None

# The standard streams that are out of reach.
_restricted = []


def set_up(module, settings):
    """Prepare this interpreter; give the module `apache`."""
    error = settings["error"]
    _redirect("stderr", settings["stderr"])
    if not settings["is_debugged"]:
        _set_up_streams(settings)
    sys.argv = ["mod_wsgi"]
    forks = settings["forks"]
    os.register_at_fork(before=forks.begin, after_in_parent=forks.end)
    if settings["is_service"]:
        _exit_on_sigterm(error)
    elif settings["restrict_signal"]:
        _intercept_signals(settings["info"])
    if module.application_group == "":
        _show_stacks_on_signal(settings)
    _set_switch_interval(settings, module.application_group)
    _correct_environment(settings["user_name"], settings["user_home"])
    if settings["python_eggs"]:
        os.environ["PYTHON_EGG_CACHE"] = settings["python_eggs"]
    for python_path in [settings["python_path"], *settings["python_paths"]]:
        _add_directories(python_path, error)
    if settings["home"]:
        sys.path.insert(0, settings["home"])
    _find_package(module, error)
    sys.modules["mod_wsgi"] = module
    apache = settings["apache"]
    if settings["is_embedded"]:
        apache = _find_apache(settings) or apache
    sys.modules["apache"] = apache
    return apache


def _redirect(name, stream):
    text = io.TextIOWrapper(stream, "utf-8", "replace", None, True, True)
    text.mode = "w"
    setattr(sys, name, text)


def _set_up_streams(settings):
    if settings["restrict_stdin"]:
        _restrict("stdin")
    if settings["restrict_stdout"]:
        _restrict("stdout")
    else:
        _redirect("stdout", settings["stdout"])


def _restrict(name):
    class Restricted:
        """A standard stream that applications of a server should not use."""

        __slots__ = ()

        def __getattribute__(self, attribute):
            raise OSError(f"sys.{name} access restricted by mod_wsgi")

    Restricted.__module__ = "mod_wsgi"
    Restricted.__qualname__ = "Restricted"
    setattr(sys, name, Restricted())
    _restricted.append(name)


def _intercept_signals(info):
    import signal

    real = signal.signal
    pid = os.getpid()

    class SignalIntercept:
        """Keeps applications from replacing the signal handlers of the server."""

        __slots__ = ()

        def __call__(self, signum, handler, /):
            if os.getpid() != pid:
                return real(signum, handler)
            if not isinstance(signum, int):
                raise TypeError(f"signal number must be int, not {type(signum).__name__}")
            import traceback

            lines = [f"Callback registration for signal {int(signum)} ignored.\n"]
            lines += traceback.format_stack(sys._getframe(1))
            info.write("".join(lines).encode("utf-8", "replace"))
            info.flush()
            return handler

    SignalIntercept.__module__ = "mod_wsgi"
    SignalIntercept.__qualname__ = "SignalIntercept"
    signal.signal = SignalIntercept()


def _exit_on_sigterm(error):
    import signal

    def exit_now(signum, frame):
        raise SystemExit

    global _exit_now
    try:
        signal.signal(signal.SIGTERM, exit_now)
        _exit_now = exit_now
    except ValueError as reason:
        _say(error, f"WSGI0090: SIGTERM will not end the script: {reason}")


def _set_switch_interval(settings, group):
    """Set it where there is a lock that it is for."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        _skip_switch_interval(settings, group)
        return
    if settings["is_interval_skipped"]:
        message = f"interpreter '{group}' shares its lock, and so its switch interval"
        _say(settings["warning"], f"WSGI0199: WSGISwitchInterval is not used: {message}")
    if settings["switch_interval"]:
        sys.setswitchinterval(settings["switch_interval"])


def _skip_switch_interval(settings, group):
    unused = "is not used: threads do not wait for each other without a lock"
    if settings["is_interval_skipped"]:
        message = f"WSGI0205: WSGISwitchInterval for interpreter '{group}' {unused}"
    elif not settings["switch_interval"]:
        return
    elif settings["is_interval_option"]:
        message = f"WSGI0204: switch-interval {unused}"
    else:
        message = f"WSGI0203: WSGISwitchInterval {unused}"
    _say(settings["warning"], message)


def _show_stacks_on_signal(settings):
    if settings["stacks_signal"]:
        import faulthandler

        try:
            faulthandler.register(settings["stacks_signal"], file=2, all_threads=True, chain=False)
        except (OSError, RuntimeError, ValueError) as reason:
            _say(settings["warning"], f"WSGI9411: the signal will not show stacks: {reason}")


def _say(stream, message):
    stream.write(f"{message}\n".encode("utf-8", "replace"))


def _correct_environment(user_name, user_home):
    if user_name:
        for key in ("USER", "USERNAME", "LOGNAME"):
            if key in os.environ:
                os.environ[key] = user_name
    if user_home:
        os.environ["HOME"] = user_home


def _add_directories(python_path, stream):
    directories = [name for name in python_path.split(os.pathsep) if name]
    if not directories:
        return
    try:
        import site
    except Exception as error:
        _say(stream, f"WSGI0095: cannot import 'site', python-path is not used: {error}")
        return
    before = list(sys.path)
    for directory in directories:
        try:
            site.addsitedir(directory)
        except Exception as error:
            _say(stream, f"WSGI0091: cannot add '{directory}' to sys.path: {error}")
    # What was there already stands in front as well if python-path names it.
    added = [entry for entry in sys.path if entry not in before]
    named = [os.path.abspath(name) for name in directories]
    missing = [name for name in named if name in before and name not in added]
    front = added + missing
    sys.path[:] = front + [entry for entry in sys.path if entry not in front]


def _find_package(module, stream):
    try:
        from importlib.util import find_spec

        spec = find_spec("mod_wsgi")
    except Exception as error:
        _say(stream, f"WSGI9403: cannot look for a package 'mod_wsgi': {error}")
        return
    if spec is not None and spec.submodule_search_locations is not None:
        module.__path__ = list(spec.submodule_search_locations)
        module.__spec__ = spec


def _find_apache(settings):
    # Some have one of their own, from the days of mod_python.
    try:
        import apache
    except ModuleNotFoundError as reason:
        if reason.name != "apache":
            _say(settings["error"], f"WSGI9421: the module 'apache' is not used: {reason}")
        return None
    except BaseException as reason:
        _say(settings["error"], f"WSGI9421: the module 'apache' is not used: {reason!r}")
        return None
    _say(settings["info"], "Imported the module 'apache'.")
    return apache


def module_name(path):
    """Give the name under which the script at `path` (bytes) is in sys.modules."""
    import hashlib

    return "_mod_wsgi_" + hashlib.md5(path, usedforsecurity=False).hexdigest()


def format_exception(error):
    """Give the lines of a traceback, as Python prints it."""
    import traceback

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return [line for line in text.split("\n") if line]


def _forget_main_thread():
    # Up to 3.12 `threading` takes the thread that imported it first for the main
    # thread and, called from any other, waits until that one's state is deleted.
    # It may be a worker that waits for requests, or the reserve of its interpreter.
    main = threading.main_thread()
    locks = getattr(threading, "_shutdown_locks", None)
    if locks is not None and main.ident != threading.get_ident():
        with threading._shutdown_locks_lock:
            locks.discard(main._tstate_lock)


def _ignore_sigterm():
    # What a service does last is not to be ended half-way; the host has a deadline.
    # A handler of the script's own stays.
    import signal

    if _exit_now is not None and signal.getsignal(signal.SIGTERM) is _exit_now:
        try:
            # Not SIG_IGN: processes that are started now would inherit it.
            signal.signal(signal.SIGTERM, lambda signum, frame: None)
        except ValueError:
            pass  # Not on the main thread: no handler runs here.


def finish():
    """Wait for the threads of this interpreter and run its atexit callbacks."""
    import atexit

    try:
        try:
            _forget_main_thread()
            threading._shutdown()
        except SystemExit:
            pass  # A service is told to end while its main thread waits for the others.
        finally:
            _ignore_sigterm()
            atexit._run_exitfuncs()
            # Python calls it again; in a sub-interpreter of 3.12 a second time raises.
            threading._shutdown = lambda: None
    finally:
        # Python flushes what it finds there, and would say that it cannot.
        for name in _restricted:
            setattr(sys, name, None)
        # CPython 3.12 crashes if a collection that was due earlier starts inside
        # its last one, which runs although collecting is disabled.
        gc.disable()
