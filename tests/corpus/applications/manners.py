# What applications do to what they are given, and to what is around them.
import atexit
import builtins
import gc
import io
import os
import signal
import sys
import threading
import time

import mod_wsgi

OK = '200 OK', [('Content-Type', 'text/plain')]
kept = {}


# -> 200 keep
def writes_and_returns(environ, start_response):
    write = start_response(*OK)
    write(b'one')
    return [b'two']


# -> 200 keep
def keeps_its_write(environ, start_response):
    kept['write'] = start_response(*OK)
    kept['start'], kept['environ'] = start_response, environ
    return [b'text']


# -> 200 keep
# body: RuntimeError RuntimeError RuntimeError
def uses_what_another_request_kept(environ, start_response):
    found = []
    for use in (lambda: kept['write'](b'evil'), lambda: kept['start'](*OK),
                kept['environ']['wsgi.input'].read):
        try:
            use()
            found.append('nothing')
        except Exception as error:
            found.append(type(error).__name__)
    start_response(*OK)
    return [' '.join(found).encode()]


# -> 200 keep
def writes_from_a_thread_after_the_end(environ, start_response):
    write = start_response(*OK)
    go = kept['go'] = threading.Event()

    def later():
        go.wait(20)
        for _ in range(100):
            try:
                write(b'evil')
            except Exception as error:
                kept['later'] = type(error).__name__

    kept['thread'] = threading.Thread(target=later)
    kept['thread'].start()
    return [b'text']


# -> 200 keep
# body: RuntimeError
def looks_at_the_thread_after_the_end(environ, start_response):
    kept['go'].set()
    kept['thread'].join(20)
    start_response(*OK)
    return [kept['later'].encode()]


# -> 200 keep
def writes_from_eight_threads(environ, start_response):
    write = start_response(*OK)
    threads = [threading.Thread(target=lambda: [write(b'x' * 100) for _ in range(50)])
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return []


# method: POST
# -> 200 keep
# body: hello
def reads_in_eight_threads(environ, start_response):
    pieces = []
    stream = environ['wsgi.input']
    threads = [threading.Thread(target=lambda: pieces.append(stream.read()))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    start_response(*OK)
    return [b''.join(pieces)]


# method: POST
# -> 500 close
def reads_with_a_string(environ, start_response):
    environ['wsgi.input'].read('all')


# method: POST
# -> 200/500 any
def reads_a_huge_size(environ, start_response):
    start_response(*OK)
    return [environ['wsgi.input'].read(2 ** 62)]


# -> 500 close
def reads_a_size_beyond_all_numbers(environ, start_response):
    environ['wsgi.input'].read(2 ** 100)


# -> 200 keep
def closes_its_input(environ, start_response):
    environ['wsgi.input'].close()
    environ['wsgi.errors'].flush()
    start_response(*OK)
    return [b'text']


# -> 200 keep
def empties_its_environ(environ, start_response):
    environ.clear()
    start_response(*OK)
    return [b'text']


# -> 200 keep
def fills_its_environ(environ, start_response):
    environ.update({'wsgi.input': None, 'wsgi.errors': 42, 1: 2, 'wsgi.file_wrapper': str})
    environ['self'] = environ
    start_response(*OK)
    return [b'text']


# -> 200 keep
def deletes_modules(environ, start_response):
    saved = dict(sys.modules)
    try:
        for name in ['io', 'traceback', 'threading', 'mod_wsgi', 'sys', 'builtins', 'os']:
            sys.modules.pop(name, None)
        start_response(*OK)
        return [b'text']
    finally:
        kept['modules'] = saved


# -> 200 keep
def serves_without_modules(environ, start_response):
    start_response(*OK)
    return [b'text']


# -> 500 close
def raises_without_modules(environ, start_response):
    raise RuntimeError('no traceback module')


# -> 200 keep
def puts_the_modules_back(environ, start_response):
    # What `import sys` gives meanwhile is another one from 3.14 on.
    kept['modules']['sys'].modules.update(kept['modules'])
    start_response(*OK)
    return [b'text']


# -> 200 keep
def bends_mod_wsgi(environ, start_response):
    for name in list(vars(mod_wsgi)):
        if not name.startswith('__'):
            kept.setdefault('mod_wsgi', {})[name] = getattr(mod_wsgi, name)
            try:
                setattr(mod_wsgi, name, None)
            except (AttributeError, TypeError):
                pass
    start_response(*OK)
    return [b'text']


# -> 500 close
def raises_with_a_bent_mod_wsgi(environ, start_response):
    raise RuntimeError('bent')


# -> 200 keep
def straightens_mod_wsgi(environ, start_response):
    for name, value in kept['mod_wsgi'].items():
        try:
            setattr(mod_wsgi, name, value)
        except (AttributeError, TypeError):
            pass
    start_response(*OK)
    return [b'text']


# -> 200 keep
def bends_builtins(environ, start_response):
    kept['builtins'] = {name: getattr(builtins, name) for name in ('bytes', 'str', 'open', 'len')}
    for name in kept['builtins']:
        setattr(builtins, name, None)
    try:
        start_response(*OK)
        return [b'text']
    finally:
        for name, value in kept['builtins'].items():
            setattr(builtins, name, value)


# -> 200 keep
def calls_the_server_by_itself(environ, start_response):
    for make in (type(environ['wsgi.input']), type(start_response), mod_wsgi.FileWrapper):
        try:
            make()
        except TypeError:
            pass
    start_response(*OK)
    return [b'text']


# -> 200 keep
def closes_its_output(environ, start_response):
    for stream in (sys.stdout, sys.stderr, environ['wsgi.errors']):
        try:
            stream.close()
        except Exception:
            pass
    print('after close')
    start_response(*OK)
    return [b'text']


# -> 500 close
def raises_after_its_output_is_closed(environ, start_response):
    raise RuntimeError('closed output')


# -> 200 keep
def loses_its_output(environ, start_response):
    saved = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = None
    print('nowhere')
    kept['streams'] = saved
    start_response(*OK)
    return [b'text']


# -> 500 close
def raises_without_output(environ, start_response):
    raise RuntimeError('no output')


# -> 200 keep
def has_its_output_back(environ, start_response):
    sys.stdout, sys.stderr = kept['streams']
    start_response(*OK)
    return [b'text']


# -> 200 keep
# log: x\\r\\n[Sun Nov 22 00:00:00 2026] [core:emerg] evil
def injects_into_the_log(environ, start_response):
    print('x\r\n[Sun Nov 22 00:00:00 2026] [core:emerg] evil'.replace('\r\n', '\\r\\n'),
          file=environ['wsgi.errors'])
    print('y\r[Sun Nov 22 00:00:00 2026] [core:emerg] evil\x1b[2J\0\x07',
          file=environ['wsgi.errors'])
    start_response(*OK)
    return [b'text']


# -> 200 keep
def logs_a_megabyte(environ, start_response):
    print('m' * 1000000, file=environ['wsgi.errors'])
    environ['wsgi.errors'].write('n' * 1000000)
    print('no latin: \u20ac\U0001f40d\udcff', file=environ['wsgi.errors'])
    start_response(*OK)
    return [b'text']


# -> 200 keep
def logs_bytes_and_nonsense(environ, start_response):
    for line in (b'bytes', None, 42, memoryview(b'view')):
        for write in (environ['wsgi.errors'].write, environ['wsgi.errors'].buffer.write):
            try:
                write(line)
            except TypeError:
                pass
    start_response(*OK)
    return [b'text']


# -> 200 keep
def changes_directory(environ, start_response):
    os.chdir('/')
    os.umask(0o777)
    start_response(*OK)
    return [b'text']


# -> 200 keep
def sets_signal_handlers(environ, start_response):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
        try:
            signal.signal(number, signal.SIG_IGN)
        except ValueError:
            pass
    start_response(*OK)
    return [b'text']


# -> 200 keep
def leaves_exit_hooks(environ, start_response):
    atexit.register(lambda: 1 / 0)
    start_response(*OK)
    return [b'text']


# -> 200 keep
def leaves_daemon_threads(environ, start_response):
    if not hasattr(sys, 'implementation') or mod_wsgi.application_group == '':
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    start_response(*OK)
    return [b'text']


class Unraisable:
    def __del__(self):
        raise RuntimeError('in del')


# -> 200 keep
def raises_where_nobody_looks(environ, start_response):
    Unraisable()
    threading.Thread(target=lambda: 1 / 0).start()
    start_response(*OK)
    return [b'text']


class Resurrected:
    def __init__(self, start_response):
        self.start_response = start_response

    def __del__(self):
        try:
            self.start_response(*OK)
        except RuntimeError:
            kept['resurrected'] = self


# -> 200 keep
def leaves_cycles(environ, start_response):
    cycle = Resurrected(start_response)
    environ['cycle'] = environ, cycle
    start_response(*OK)
    return [b'text']


# -> 200 keep
def collects_cycles(environ, start_response):
    gc.collect()
    start_response(*OK)
    return [b'text']


# -> 500 close
def traces_everything(environ, start_response):
    sys.settrace(lambda *args: 1 / 0)
    sys.setprofile(lambda *args: 1 / 0)
    sys.setrecursionlimit(10000)
    sys.settrace(None)
    sys.setprofile(None)
    start_response(*OK)
    return [b'text']


def wrap(environ, start_response, file, headers=()):
    start_response('200 OK', list(headers))
    return environ['wsgi.file_wrapper'](file)


def real_file(text=b'0123456789'):
    import tempfile
    file = tempfile.TemporaryFile()
    file.write(text)
    file.seek(0)
    return file


class LyingFile:
    def __init__(self, file, **lies):
        self.file, self.lies = file, lies

    def __getattr__(self, name):
        lie = self.lies.get(name, self)
        return (lambda *args: lie) if lie is not self else getattr(self.file, name)


# -> 200/500 any
def wraps_a_file_with_a_wrong_descriptor(environ, start_response):
    return wrap(environ, start_response, LyingFile(real_file(), fileno=99999))


# -> 200/500 any
def wraps_a_file_with_a_negative_descriptor(environ, start_response):
    return wrap(environ, start_response, LyingFile(real_file(), fileno=-1))


# -> 200/500 any
def wraps_a_file_with_no_descriptor(environ, start_response):
    return wrap(environ, start_response, LyingFile(real_file(), fileno='three'))


# -> 200/500/cut any
def wraps_a_file_that_tells_lies(environ, start_response):
    return wrap(environ, start_response, LyingFile(real_file(), tell=2 ** 62))


# -> 200/500/cut any
def wraps_a_file_that_tells_a_negative_place(environ, start_response):
    return wrap(environ, start_response, LyingFile(real_file(), tell=-5))


# -> 500 close
def wraps_a_file_that_reads_text(environ, start_response):
    return wrap(environ, start_response, io.StringIO('text'))


# -> 500 close
def wraps_a_number(environ, start_response):
    return wrap(environ, start_response, 42)


# -> 500 close
def wraps_a_closed_file(environ, start_response):
    file = real_file()
    file.close()
    return wrap(environ, start_response, file)


# -> 500 close
def wraps_a_file_shorter_than_its_length(environ, start_response):
    return wrap(environ, start_response, real_file(), [('Content-Length', '1000')])


# -> 200 keep
# body: 0123
def wraps_a_file_longer_than_its_length(environ, start_response):
    return wrap(environ, start_response, real_file(), [('Content-Length', '4')])


# -> 200 keep
def wraps_a_directory(environ, start_response):
    descriptor = os.open('/', os.O_RDONLY)
    file = LyingFile(io.BytesIO(b'text'), fileno=descriptor)
    kept['directory'] = descriptor
    return wrap(environ, start_response, file)


# -> 200 keep
def wraps_a_pipe(environ, start_response):
    reading, writing = os.pipe()
    os.write(writing, b'text')
    os.close(writing)
    return wrap(environ, start_response, open(reading, 'rb', 0))


# -> left
def never_ends_and_the_client_leaves(environ, start_response):
    kept['closed'] = 0
    start_response(*OK)
    return Endless()


class Endless:
    def __iter__(self):
        return iter(lambda: time.sleep(0.001) or b'x' * 65536, b'')

    def close(self):
        kept['closed'] += 1


# -> 200 keep
# body: closed 1
def looks_whether_what_never_ends_was_closed(environ, start_response):
    end = time.monotonic() + 20
    while not kept.get('closed') and time.monotonic() < end:
        time.sleep(0.01)
    start_response(*OK)
    return [b'closed %d' % kept.get('closed', -1)]


# -> 200 keep
def answers_at_length_after_all(environ, start_response):
    start_response(*OK)
    for _ in range(100):
        yield b'x' * 10000
