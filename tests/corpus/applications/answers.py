# What applications call start_response with, return and yield.
OK = '200 OK', [('Content-Type', 'text/plain')]


# -> 500 close
def returns_none(environ, start_response):
    start_response(*OK)


# -> 500 close
def returns_a_number(environ, start_response):
    start_response(*OK)
    return 42


# -> 500 close
def returns_a_string(environ, start_response):
    start_response(*OK)
    return 'text'


# -> 200 keep
# body: bytes one by one
def returns_an_iterable_of_one_byte_pieces(environ, start_response):
    start_response(*OK)
    return [b'%c' % byte for byte in b'bytes one by one']


# -> 500 close
def returns_bytes_which_iterate_as_numbers(environ, start_response):
    start_response(*OK)
    return b'bytes'


# -> 500 close
def yields_a_string(environ, start_response):
    start_response(*OK)
    yield 'text'


# -> 500 close
def yields_none(environ, start_response):
    start_response(*OK)
    yield None


# -> 500 close
def yields_a_bytearray(environ, start_response):
    start_response(*OK)
    yield bytearray(b'text')


# -> cut close
def yields_bytes_and_then_a_string(environ, start_response):
    start_response(*OK)
    yield b'x' * 100000
    yield 'text'


# -> 500 close
def never_starts_and_returns_nothing(environ, start_response):
    return []


# -> 500 close
def never_starts_and_returns_bytes(environ, start_response):
    return [b'text']


# -> 200 keep
def starts_in_the_iteration(environ, start_response):
    start_response(*OK)
    yield b'text'


# -> 500 close
def starts_after_the_first_piece(environ, start_response):
    yield b'text'
    start_response(*OK)


# -> 200 keep
# body: late
def starts_after_an_empty_piece(environ, start_response):
    yield b''
    start_response(*OK)
    yield b'late'


# -> 404 keep
def starts_twice_before_the_answer(environ, start_response):
    start_response(*OK)
    start_response('404 Not Found', [])
    return [b'text']


# -> cut close
def starts_twice_in_the_answer(environ, start_response):
    start_response(*OK)
    yield b'x' * 100000
    start_response('404 Not Found', [])
    yield b'text'


# -> cut close
def starts_again_with_an_error_in_the_answer(environ, start_response):
    import sys
    start_response(*OK)
    yield b'x' * 100000
    try:
        raise ValueError('in the middle')
    except ValueError:
        start_response('500 Oh', [], sys.exc_info())
    yield b'text'


# -> 500 close
def starts_with_an_error_that_is_none(environ, start_response):
    start_response('200 OK', [], 42)
    return [b'text']


# -> 500 close
def starts_with_an_error_of_one(environ, start_response):
    start_response('200 OK', [])('x')
    return [b'text']


# -> 500 close
def starts_without_arguments(environ, start_response):
    start_response()
    return [b'text']


# -> 500 close
def starts_with_named_arguments(environ, start_response):
    start_response(status='200 OK', headers=[])
    return [b'text']


# -> 500 close
def starts_with_bytes(environ, start_response):
    start_response(b'200 OK', [])
    return [b'text']


# -> 500 close
def starts_with_a_number(environ, start_response):
    start_response(200, [])
    return [b'text']


# -> 500 close
def starts_with_headers_in_a_tuple(environ, start_response):
    start_response('200 OK', ())
    return [b'text']


# -> 500 close
def starts_with_headers_in_a_dict(environ, start_response):
    start_response('200 OK', {'X-A': 'y'})
    return [b'text']


# -> 500 close
def starts_with_a_header_of_bytes(environ, start_response):
    start_response('200 OK', [(b'X-A', b'y')])
    return [b'text']


# -> 500 close
def starts_with_a_header_of_three(environ, start_response):
    start_response('200 OK', [('X-A', 'y', 'z')])
    return [b'text']


# -> 500 close
def starts_with_a_header_in_a_list(environ, start_response):
    start_response('200 OK', [['X-A', 'y']])
    return [b'text']


# -> 500 close
def starts_with_a_header_of_a_number(environ, start_response):
    start_response('200 OK', [('Content-Length', 4)])
    return [b'text']


class Liar(str):
    def __len__(self):
        return 10 ** 9

    def __str__(self):
        return 'evil\r\nX-Evil: yes'

    def encode(self, *args):
        return b'evil\r\nX-Evil: yes'


# -> 200 keep
# header: x-a good
def starts_with_strings_that_lie(environ, start_response):
    start_response(Liar('200 OK'), [(Liar('X-A'), Liar('good'))])
    return [b'text']


class Lying(bytes):
    def __len__(self):
        return 10 ** 9

    def __bytes__(self):
        return b'evil'


# -> 200 keep
# body: text
def returns_bytes_that_lie(environ, start_response):
    start_response(*OK)
    return [Lying(b'text')]


class Endless(list):
    def __len__(self):
        return 1

    def __iter__(self):
        return iter([b'one', b'two', b'three'])


# -> 200 keep
# body: onetwothree
def returns_a_list_that_lies(environ, start_response):
    start_response(*OK)
    return Endless([b'x'])


class Hidden:
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter([b'text'])


# -> 200/500 any
def returns_what_has_a_negative_length(environ, start_response):
    start_response(*OK)
    return Hidden(-1)


# -> 200 keep
# body: text
def returns_what_has_a_huge_length(environ, start_response):
    start_response(*OK)
    return Hidden(2 ** 62)


class NoIterator:
    def __iter__(self):
        return 42


# -> 500 close
def returns_what_does_not_iterate(environ, start_response):
    start_response(*OK)
    return NoIterator()


class RaisesOnIter:
    def __iter__(self):
        raise RuntimeError('iter')


# -> 500 close
def returns_what_raises_when_it_is_to_iterate(environ, start_response):
    start_response(*OK)
    return RaisesOnIter()


class RaisesOnClose:
    def __iter__(self):
        return iter([b'text'])

    def close(self):
        raise RuntimeError('close')


# -> 200 keep
# log: RuntimeError: close
def raises_in_close(environ, start_response):
    start_response(*OK)
    return RaisesOnClose()


class RaisesOnLookUp:
    def __iter__(self):
        return iter([b'text'])

    @property
    def close(self):
        raise RuntimeError('looked up')


# -> 200 keep
def raises_when_close_is_looked_up(environ, start_response):
    start_response(*OK)
    return RaisesOnLookUp()


class NoFunction:
    close = 42

    def __iter__(self):
        return iter([b'text'])


# -> 200 keep
def has_a_close_that_cannot_be_called(environ, start_response):
    start_response(*OK)
    return NoFunction()


class Recursive:
    def __iter__(self):
        return iter([b'text'])

    def close(self):
        self.close()


# -> 200 keep
# log: RecursionError
def recurses_in_close(environ, start_response):
    start_response(*OK)
    return Recursive()


# -> 500 close
def raises_before_the_first_piece(environ, start_response):
    start_response(*OK)
    raise RuntimeError('before')
    yield b'text'


# -> cut close
def raises_after_a_piece(environ, start_response):
    start_response(*OK)
    yield b'x' * 100000
    raise RuntimeError('after')


# -> cut close
def raises_after_the_last_piece(environ, start_response):
    start_response('200 OK', [])
    write = start_response('200 OK', [])
    write(b'x' * 100000)
    raise RuntimeError('after write')


# -> 500 close
def recurses(environ, start_response):
    return recurses(environ, start_response)


# -> 500 close
def raises_a_memory_error(environ, start_response):
    raise MemoryError


# -> 500 close
def exits(environ, start_response):
    raise SystemExit(3)


# -> 500 close
def exits_with_a_text(environ, start_response):
    import sys
    sys.exit('a text')


# -> 500 close
def is_interrupted(environ, start_response):
    raise KeyboardInterrupt


# -> 500 close
def raises_a_generator_exit(environ, start_response):
    start_response(*OK)
    yield b''
    raise GeneratorExit


# -> 500 close
def raises_stop_iteration(environ, start_response):
    raise StopIteration


class BadError(Exception):
    def __str__(self):
        raise RuntimeError('str')

    __repr__ = __str__


# -> 500 close
def raises_an_error_that_cannot_be_shown(environ, start_response):
    raise BadError


class BaseError(BaseException):
    pass


# -> 500 close
def raises_a_base_exception(environ, start_response):
    raise BaseError('base')


# -> 500 close
def raises_a_chain_of_errors(environ, start_response):
    try:
        raise ValueError('first')
    except ValueError as first:
        second = TypeError('second')
        first.__context__ = second
        second.__context__ = first
        raise second from first


# -> 500 close
def raises_an_error_of_a_megabyte(environ, start_response):
    raise ValueError('x' * 1000000)


# -> 500 close
def raises_a_group_of_errors(environ, start_response):
    import builtins
    if not hasattr(builtins, 'ExceptionGroup'):
        raise ValueError('none here')
    raise builtins.ExceptionGroup('group', [ValueError(i) for i in range(100)])
