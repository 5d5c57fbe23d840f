"""What is set up in each interpreter before any application code runs.

Executed in a namespace of its own; `set_up` is called once, the other public
functions whenever the runtime needs them.  All of it waits for the first answer: what
few interpreters need stands in `rarely.py`, whose text is `RARELY` here.
"""

import _thread
import io
import os
import sys

# What ends the script of a service at SIGTERM.
_exit_now = None

# The standard streams that are out of reach.
_restricted = []


def _rare(name):
    if name not in globals():
        # Twice, if two threads come at once: that does no harm.
        exec(compile(RARELY, "<mod_wsgi setup>", "exec"), globals())  # noqa: F821, S102
    return globals()[name]


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
        _rare("_exit_on_sigterm")(error)
    elif settings["restrict_signal"]:
        _intercept_signals(settings["info"])
    if module.application_group == "":
        _keep_main_thread()
        _show_stacks_on_signal(settings)
    if settings["switch_interval"] or settings["is_interval_skipped"]:
        _rare("_set_switch_interval")(settings, module.application_group)
    _correct_environment(settings["user_name"], settings["user_home"])
    if settings["python_eggs"]:
        os.environ["PYTHON_EGG_CACHE"] = settings["python_eggs"]
    for python_path in [settings["python_path"], *settings["python_paths"]]:
        if python_path:
            _rare("_add_directories")(python_path, error)
    if settings["home"]:
        sys.path.insert(0, settings["home"])
    _find_package(module, error)
    sys.modules["mod_wsgi"] = module
    apache = settings["apache"]
    if settings["is_embedded"]:
        apache = _rare("_find_apache")(settings) or apache
    sys.modules["apache"] = apache
    return apache


def _redirect(name, stream):
    text = io.TextIOWrapper(stream, "utf-8", "replace", None, True, True)
    text.mode = "w"
    setattr(sys, name, text)


def _set_up_streams(settings):
    if settings["restrict_stdin"]:
        _rare("_restrict")("stdin")
    if settings["restrict_stdout"]:
        _rare("_restrict")("stdout")
    else:
        _redirect("stdout", settings["stdout"])


class _Finder:
    """Finds modules that are to be changed when they are imported."""

    # What is done to them, by name.
    changes = {}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        change = cls.changes.get(name)
        spec = _find_spec(name, cls) if change else None
        if spec is not None:
            spec.loader = _Loader(spec.loader, change)
        return spec


class _Loader:
    """Changes a module behind its loader."""

    def __init__(self, loader, change):
        self.loader, self.change = loader, change

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.change(module)


def _when_imported(name, change):
    # Not now: `signal` and `threading` take as long as the rest of an interpreter's
    # set-up, and some applications do without them.
    if name in sys.modules:
        change(sys.modules[name])
        return
    if not _Finder.changes:
        sys.meta_path.insert(0, _Finder)
    _Finder.changes[name] = change


def _find_spec(name, but=None):
    # As `importlib.util.find_spec`, whose import takes longer than the search.
    for finder in sys.meta_path:
        if finder is not but and hasattr(finder, "find_spec"):
            spec = finder.find_spec(name, None)
            if spec is not None:
                return spec
    return None


def _intercept_signals(info):
    pid = os.getpid()
    _when_imported("signal", lambda module: _rare("_intercept")(module, info, pid))


def _keep_main_thread():
    here = os.getpid(), _thread.get_ident(), _thread.get_native_id()
    _when_imported("threading", lambda module: _rare("_correct")(module, *here))


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


def _find_package(module, stream):
    try:
        spec = _find_spec("mod_wsgi")
    except Exception as error:
        _say(stream, f"WSGI9403: cannot look for a package 'mod_wsgi': {error}")
        return
    if spec is not None and spec.submodule_search_locations is not None:
        module.__path__ = list(spec.submodule_search_locations)
        module.__spec__ = spec


def format_exception(error):
    """Give the lines of a traceback, as Python prints it."""
    import traceback

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return [line for line in text.split("\n") if line]


def finish():
    """Wait for the threads of this interpreter and run its atexit callbacks."""
    _rare("_finish")()
