"""What the threads of an interpreter run, where no lock keeps them from running on.

Executed in the namespace of `setup.py`, where Python is built to do without its lock.
`faulthandler` stops all threads of the interpreter while it looks.
"""

import os
import sys

try:
    import faulthandler
except ImportError:  # An interpreter with a lock of its own, in a Python that keeps its lock.
    faulthandler = None


def stacks():
    """Give number, name or None, and calls, of the other threads that run Python code."""
    if faulthandler is None:
        raise RuntimeError("this interpreter cannot have faulthandler")
    with open(os.memfd_create("stacks"), "w+b") as shown:
        faulthandler.dump_traceback(shown, True)
        shown.seek(0)
        text = shown.read().decode("utf-8", "backslashreplace")
    # Not every application has imported it.
    threads = getattr(sys.modules.get("threading"), "_active", {})
    names = {number: thread.name for number, thread in list(threads.items())}
    found = []
    for block in text.split("\n\n"):
        header, *calls = block.strip("\n").split("\n")
        calls = [_call(line) for line in calls if line.startswith("  File ")]
        if header.startswith("Thread 0x") and calls:
            number = int(header.split()[1], 16)
            found.append((number, names.get(number), calls[::-1]))
    return found


def _call(line):
    # As a traceback has it.
    place, _, name = line.rpartition(" in ")
    return f"{place}, in {name}"
