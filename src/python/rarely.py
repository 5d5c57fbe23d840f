"""What few interpreters need when they are set up, or any before its end.

Executed in the namespace of `setup.py` when something of it is asked for.
"""

import os
import sys


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


def _intercept(signal, info, pid):
    real = signal.signal

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
    elif settings["is_interval_option"]:
        message = f"WSGI0204: switch-interval {unused}"
    else:
        message = f"WSGI0203: WSGISwitchInterval {unused}"
    _say(settings["warning"], message)


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


def _correct(threading, pid, ident, native_id):
    # Up to 3.12 it takes the thread that imported it first for the main thread, and
    # a worker may have; later versions mistake its native id.
    main = threading.main_thread()
    if os.getpid() != pid or threading.get_ident() == ident:
        return
    main._native_id = native_id
    if main.ident == ident:
        return
    # The lock it has is released when the state of the thread that runs this ends.
    lock = threading.Lock()
    lock.acquire()
    with threading._shutdown_locks_lock:
        threading._shutdown_locks.discard(main._tstate_lock)
    with threading._active_limbo_lock:
        del threading._active[main.ident]
        main._ident, main._tstate_lock = ident, lock
        threading._active[ident] = main


def _forget_main_thread(threading):
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
    if _exit_now is None:
        return
    import signal

    if signal.getsignal(signal.SIGTERM) is _exit_now:
        try:
            # Not SIG_IGN: processes that are started now would inherit it.
            signal.signal(signal.SIGTERM, lambda signum, frame: None)
        except ValueError:
            pass  # Not on the main thread: no handler runs here.


def _finish():
    import atexit
    import gc

    threading = sys.modules.get("threading")
    try:
        try:
            if threading:
                _forget_main_thread(threading)
                threading._shutdown()
        except SystemExit:
            pass  # A service is told to end while its main thread waits for the others.
        finally:
            _ignore_sigterm()
            atexit._run_exitfuncs()
            # Python calls it again; in a sub-interpreter of 3.12 a second time raises.
            if threading:
                threading._shutdown = lambda: None
    finally:
        # Python flushes what it finds there, and would say that it cannot.
        for name in _restricted:
            setattr(sys, name, None)
        # CPython 3.12 crashes if a collection that was due earlier starts inside
        # its last one, which runs although collecting is disabled.
        gc.disable()
