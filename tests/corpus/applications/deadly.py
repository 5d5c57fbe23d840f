# What ends a process, or leaves it unable to work: the next request is served all the same.
import ctypes
import os
import signal
import sys
import threading
import time

OK = '200 OK', [('Content-Type', 'text/plain')]


# -> 200/502/nothing any
def leaves_at_once(environ, start_response):
    os._exit(7)


# -> cut/502/nothing close
def leaves_within_its_answer(environ, start_response):
    start_response('200 OK', [('Content-Length', '300000')])
    yield b'x' * 200000
    os._exit(7)


# -> 502/nothing any
def aborts(environ, start_response):
    os.abort()


# -> 502/nothing any
def reads_at_nought(environ, start_response):
    ctypes.string_at(0)


# -> 502/nothing any
def kills_itself(environ, start_response):
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)


# -> 200 any
def ends_itself_politely(environ, start_response):
    if environ['mod_wsgi.process_group']:
        os.kill(os.getpid(), signal.SIGTERM)
    start_response(*OK)
    return [b'text']


# daemon only
# -> 200/502/cut any
def closes_every_descriptor(environ, start_response):
    os.closerange(0, 21)
    start_response(*OK)
    return [b'text']


# daemon only
# -> 200/502/503/cut any
def replaces_every_descriptor(environ, start_response):
    null = os.open('/dev/null', os.O_RDWR)
    for number in range(3, 21):
        if number != null:
            os.dup2(null, number)
    start_response(*OK)
    return [b'text']


# daemon only
# -> 200/502 any
def writes_nonsense_into_every_descriptor(environ, start_response):
    for number in range(3, 40):
        try:
            os.set_blocking(number, False)
            os.write(number, b'\xff' * 100)
        except OSError:
            pass
    start_response(*OK)
    return [b'text']


# -> 200 any
def forks_and_returns_in_both(environ, start_response):
    pid = os.fork()
    start_response(*OK)
    if pid:
        os.waitpid(pid, 0)
    return [b'text']


# -> 200 any
def forks_and_lets_the_child_raise(environ, start_response):
    pid = os.fork()
    if not pid:
        raise RuntimeError('in the child')
    os.waitpid(pid, 0)
    start_response(*OK)
    return [b'text']


# -> 200 any
def forks_and_lets_the_child_exit(environ, start_response):
    pid = os.fork()
    if not pid:
        sys.exit(5)
    status = os.waitpid(pid, 0)[1]
    start_response(*OK)
    return [b'%d' % status]


# -> 200 any
def forks_in_the_iteration(environ, start_response):
    start_response(*OK)
    yield b'one'
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    yield b'two'


# daemon only
# -> 500/502 any
def overflows_the_stack_of_c(environ, start_response):
    sys.setrecursionlimit(10 ** 9)
    value = []
    for _ in range(10 ** 6):
        value = [value]
    repr(value)


# daemon only
# -> 200/500/502 any
def sends_itself_every_signal(environ, start_response):
    for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH, signal.SIGPIPE,
                   signal.SIGALRM, signal.SIGCHLD):
        os.kill(os.getpid(), number)
    start_response(*OK)
    return [b'text']


# daemon only
# -> 200/502 any
def has_no_descriptors_left(environ, start_response):
    taken = []
    try:
        while len(taken) < 20000:
            taken.append(os.open('/dev/null', os.O_RDONLY))
    except OSError:
        pass
    threading.Timer(0.5, lambda: [os.close(number) for number in taken]).start()
    start_response(*OK)
    return [b'text']
