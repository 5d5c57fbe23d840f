"""Events: who wants to hear of what happens, and telling them.

Executed once in each interpreter, in a namespace of its own that is called
`mod_wsgi` too: what is made here says so.  `set_up` is called once, the functions
named after events whenever one happens.
"""

ERROR, INFO = 3, 6

STARTED = (
    "request_id", "thread_id", "daemon_connects", "daemon_restarts", "server_pid",
    "request_start", "queue_start", "daemon_start", "application_object",
    "callable_object", "request_environ", "application_start", "request_data",
)

FINISHED = (
    "request_id", "thread_id", "server_pid", "request_start", "queue_start",
    "daemon_start", "input_reads", "input_length", "input_time", "output_length",
    "output_writes", "output_time", "cpu_user_time", "cpu_system_time", "cpu_time",
    "application_finish", "application_time", "status", "gil_wait_time",
    "gil_wait_count", "request_data",
)

# What is not there where it is not known.
OPTIONAL = {"request_id", "cpu_user_time", "cpu_system_time", "cpu_time"}

_module = None
_own = None
_say = None
_format_exception = None


def set_up(module, own, format_exception):
    """Give `mod_wsgi` its lists of subscribers and what adds to them."""
    global _module, _own, _say, _format_exception
    _module, _own, _say, _format_exception = module, own, own.say, format_exception
    module.event_callbacks = []
    module.shutdown_callbacks = []
    module.signal_callbacks = []
    module.subscribe_events = subscribe_events
    module.subscribe_shutdown = subscribe_shutdown
    module.subscribe_signals = subscribe_signals
    module.__getattr__ = _missing
    module.__dir__ = _names


def _missing(name):
    # The class takes `logging`, which not every application imports.
    if name == "LogHandler":
        return vars(_module).setdefault(name, _own.log_handler())
    raise AttributeError(f"module 'mod_wsgi' has no attribute {name!r}")


def _names():
    return sorted({*vars(_module), "LogHandler"} - {"__getattr__", "__dir__"})


def subscribe_events(callback, /):
    """Have `callback` called with the name and the details of each event."""
    _module.event_callbacks.append(callback)
    return callback


def subscribe_shutdown(callback, /):
    """Have `callback` called when the process is about to end."""
    _module.shutdown_callbacks.append(callback)
    return callback


def subscribe_signals(callback, /):
    """Have `callback` called when the daemon process gets SIGHUP or SIGUSR2."""
    if _module.process_group:
        _module.signal_callbacks.append(callback)
        return callback
    import sys
    import traceback

    lines = ["Callback for signals dropped: they are delivered in daemon mode only.\n"]
    lines += traceback.format_stack(sys._getframe(1))
    _say(INFO, "".join(lines))
    return callback


def request_started(*values):
    """Tell of it; give the application that is to be called."""
    payload = _payload(STARTED, values)
    _publish("request_started", payload)
    return payload.get("application_object")


def response_started(request_id, status, headers, exc_info, data):
    """Tell of a call of `start_response`."""
    payload = {} if request_id is None else {"request_id": request_id}
    payload.update(
        response_status=status,
        response_headers=headers,
        exception_info=exc_info,
        request_data=data,
    )
    _publish("response_started", payload)


def request_exception(request_id, error, data):
    """Tell of an exception that ends a request."""
    payload = {} if request_id is None else {"request_id": request_id}
    payload["exception_info"] = (type(error), error, error.__traceback__)
    payload["request_data"] = data
    _publish("request_exception", payload)


def request_finished(*values):
    """Tell of it."""
    _publish("request_finished", _payload(FINISHED, values))


def process_stopping(reason):
    """Tell that the process is about to end."""
    _publish("process_stopping", {"shutdown_reason": reason}, "shutdown_callbacks")


def process_signal(number):
    """Tell of a signal."""
    import signal

    payload = {"signame": signal.Signals(number).name, "signum": number}
    _publish("process_signal", payload, "signal_callbacks")


def _payload(keys, values):
    pairs = zip(keys, values)
    return {key: value for key, value in pairs if value is not None or key not in OPTIONAL}


def _publish(event, payload, more=None):
    callbacks = _subscribers(event, "event_callbacks")
    if more:
        callbacks += _subscribers(event, more)
    for callback in callbacks:
        try:
            answer = callback(event, **payload)
            if isinstance(answer, dict):
                _merge(event, payload, answer)
        except _module.RequestTimeout:
            raise
        except BaseException as error:
            _complain(event, error)


def _subscribers(event, name):
    try:
        return list(getattr(_module, name))
    except (AttributeError, TypeError) as error:
        _say(
            ERROR,
            f"WSGI0114: a list of subscribers is missing, {name} are not told of '{event}': {error}",
        )
        return []


def _merge(event, payload, answer):
    # The next one gets them as keywords, beside the event's own name.
    wrong = {
        "'event'" if isinstance(key, str) else f"of type {type(key).__name__}"
        for key in answer
        if not isinstance(key, str) or key == "event"
    }
    if not wrong:
        payload.update(answer)
        return
    keys = ", ".join(sorted(wrong))
    _say(
        ERROR,
        f"WSGI9471: a callback for '{event}' returned a dict with a key that is no name of a"
        f" detail: {keys}; nothing of it is passed on",
    )


def _complain(event, error):
    # Ours is no part of what went wrong.
    error.__traceback__ = error.__traceback__.tb_next
    if isinstance(error, SystemExit):
        header = f"WSGI0190: a callback for '{event}' called exit; that is ignored"
    else:
        header = f"WSGI0112: exception in a callback for '{event}'; it is ignored"
    _say(ERROR, "\n".join([header, *_format_exception(error)]))
