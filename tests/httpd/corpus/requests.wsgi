# What the hostile requests are sent to: says what it was asked, in ways the path chooses.
import time


def describe(environ, body):
    lines = {key: value for key, value in environ.items() if isinstance(value, str)}
    if body is not None:
        lines['corpus.body'] = body if len(body) < 1000 else len(body)
    text = ''.join(f'{key} {value!r}\n' for key, value in sorted(lines.items()))
    return text.encode('utf-8', 'backslashreplace')


def application(environ, start_response):
    path = environ['PATH_INFO']
    stream = environ['wsgi.input']
    headers = [('Content-Type', 'text/plain')]
    if path.isascii() and path.isprintable() and len(path) < 100:
        headers.append(('X-Path', path))
    if path == '/raise':
        raise RuntimeError('as asked')
    if path in ('/204', '/304'):
        start_response(path[1:] + ' Nothing', headers)
        return []
    if path == '/missing':
        start_response('404 Not Found', headers)
        return [b'missing']
    body = None
    if path == '/some':
        stream.read(10)
    elif path not in ('/unread', '/late', '/forgiving'):
        body = stream.read()
    start_response('200 OK', headers)
    if path == '/stream':
        return (b'piece %d\n' % i for i in range(10))
    if path == '/endless':
        return iter(lambda: time.sleep(0.001) or b'x' * 65536, b'')
    if path == '/late':
        return late(stream)
    if path == '/forgiving':
        return forgiving(stream)
    return [describe(environ, body)]


def late(stream):
    yield b'early'
    stream.read()
    yield b'late'


def forgiving(stream):
    yield b'early'
    try:
        stream.read()
    except OSError:
        yield b', and late'
