# Statuses and headers that must not become something else, and bodies that do not fit them.
def answer(start_response, status='200 OK', headers=(), body=b'text'):
    start_response(status, list(headers))
    return [body]


# -> 500 close
def header_injection(environ, start_response):
    return answer(start_response, headers=[('X-A', 'a\r\nX-Evil: yes')])


# -> 500 close
def header_injection_by_a_line_feed(environ, start_response):
    return answer(start_response, headers=[('X-A', 'a\nX-Evil: yes')])


# -> 500 close
def header_injection_by_a_carriage_return(environ, start_response):
    return answer(start_response, headers=[('X-A', 'a\rX-Evil: yes')])


# -> 500 close
def header_injection_by_a_name(environ, start_response):
    return answer(start_response, headers=[('X-A: b\r\nX-Evil', 'yes')])


# -> 500 close
def header_injection_by_a_status(environ, start_response):
    return answer(start_response, '200 OK\r\nX-Evil: yes')


# -> 500 close
def response_splitting(environ, start_response):
    evil = 'a\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil'
    return answer(start_response, headers=[('Location', evil)])


# -> 500 close
def nul_in_a_value(environ, start_response):
    return answer(start_response, headers=[('X-A', 'a\0b')])


# -> 500 close
def nul_in_a_name(environ, start_response):
    return answer(start_response, headers=[('X\0A', 'a')])


# -> 500 close
def nul_in_the_status(environ, start_response):
    return answer(start_response, '200 O\0K')


# -> 500 close
def no_name(environ, start_response):
    return answer(start_response, headers=[('', 'a')])


# -> 500 close
def blank_in_a_name(environ, start_response):
    return answer(start_response, headers=[('X A', 'a')])


# -> 500 close
def not_latin_in_a_value(environ, start_response):
    return answer(start_response, headers=[('X-A', '\u20ac')])


# -> 500 close
def surrogate_in_a_value(environ, start_response):
    return answer(start_response, headers=[('X-A', '\udcff')])


# -> 200 keep
def latin_in_a_value(environ, start_response):
    return answer(start_response, headers=[('X-A', '\xe4')])


# -> 500 close
def own_transfer_encoding(environ, start_response):
    return answer(start_response, headers=[('Transfer-Encoding', 'chunked')], body=b'0\r\n\r\nevil')


# -> 500 close
def own_connection(environ, start_response):
    return answer(start_response, headers=[('Connection', 'keep-alive')])


# -> 500 close
def own_upgrade(environ, start_response):
    return answer(start_response, headers=[('Upgrade', 'h2c')])


# -> 500 close
def status_100(environ, start_response):
    return answer(start_response, '100 Continue')


# -> 500 close
def status_101(environ, start_response):
    return answer(start_response, '101 Switching Protocols')


# -> 500 close
def status_of_two_digits(environ, start_response):
    return answer(start_response, '20 OK')


# -> 500 close
def status_of_four_digits(environ, start_response):
    return answer(start_response, '2000 OK')


# -> 500 close
def status_without_a_number(environ, start_response):
    return answer(start_response, 'OK')


# -> 500 close
def status_of_other_digits(environ, start_response):
    return answer(start_response, '\u0662\u0660\u0660 OK')


# -> 500 close
def status_that_is_empty(environ, start_response):
    return answer(start_response, '')


# -> 999 keep
def status_nobody_knows(environ, start_response):
    return answer(start_response, '999 Odd')


# -> 500 close
def status_of_a_megabyte(environ, start_response):
    return answer(start_response, '200 ' + 'x' * 1000000)


# -> 204 keep
def a_body_with_204(environ, start_response):
    return answer(start_response, '204 No Content')


# -> 304 keep
def a_body_with_304(environ, start_response):
    return answer(start_response, '304 Not Modified')


# -> 204 keep
def a_length_with_204(environ, start_response):
    return answer(start_response, '204 No Content', [('Content-Length', '4')])


# method: HEAD
# -> 200 keep
def a_body_for_head(environ, start_response):
    return answer(start_response)


# method: HEAD
# -> 200 keep
def a_wrong_length_for_head(environ, start_response):
    return answer(start_response, headers=[('Content-Length', '1000')], body=b'x')


# -> 200 keep
# body: text
def too_much_for_its_length(environ, start_response):
    return answer(start_response, headers=[('Content-Length', '4')], body=b'text and more')


# -> 200 keep
# body: text
def a_second_piece_beyond_its_length(environ, start_response):
    start_response('200 OK', [('Content-Length', '4')])
    yield b'text'
    yield b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'


# -> 500 close
# log: WSGI9401
def too_little_for_its_length(environ, start_response):
    return answer(start_response, headers=[('Content-Length', '400')])


# -> cut close
def too_little_in_pieces(environ, start_response):
    start_response('200 OK', [('Content-Length', '400000')])
    yield b'x' * 100000
    yield b'x' * 100000


# -> 500 close
def a_length_of_nothing(environ, start_response):
    return answer(start_response, headers=[('Content-Length', '')])


# -> 500 close
def a_negative_length(environ, start_response):
    return answer(start_response, headers=[('Content-Length', '-4')])


# -> 500 close
def a_length_with_a_plus_sign(environ, start_response):
    return answer(start_response, headers=[('Content-Length', '+4')])


# -> 500 close
def a_length_of_letters(environ, start_response):
    return answer(start_response, headers=[('Content-Length', 'four')])


# -> 500 close
def two_lengths(environ, start_response):
    return answer(start_response, headers=[('Content-Length', '4'), ('Content-Length', '400')])


# -> 500 close
def two_lengths_in_one(environ, start_response):
    return answer(start_response, headers=[('Content-Length', '4, 400')])


# -> 500 close
def a_length_above_all_numbers(environ, start_response):
    return answer(start_response, headers=[('Content-Length', '99999999999999999999')])


# -> 500 close
def a_header_of_twenty_megabytes(environ, start_response):
    return answer(start_response, headers=[('X-A', 'x' * 20000000)])


# -> 500 close
def a_hundred_thousand_headers(environ, start_response):
    return answer(start_response, headers=[('X-A', 'y')] * 100000)


# -> 200 keep
def a_thousand_headers(environ, start_response):
    return answer(start_response, headers=[('X-A', 'y')] * 1000)


# -> 200 keep
def the_servers_own_headers(environ, start_response):
    headers = [('Date', 'never'), ('Server', 'mine'), ('Status', '404 Not Found')]
    return answer(start_response, headers=headers)


# -> 200 keep
def a_type_that_is_odd(environ, start_response):
    return answer(start_response, headers=[('Content-Type', ';;;==,/')])


# -> 200 any
def a_coding_that_lies(environ, start_response):
    return answer(start_response, headers=[('Content-Encoding', 'gzip')])


class Changing(list):
    """Headers that change while they are read."""

    def __iter__(self):
        yield 'X-A', 'a\r\nX-Evil: yes'


# -> 200/500 any
def headers_that_lie(environ, start_response):
    return answer(start_response, headers=Changing([('X-A', 'good')]))


# -> 200 keep
def headers_changed_after_the_call(environ, start_response):
    headers = [('X-A', 'good')]
    start_response('200 OK', headers)
    headers.append(('X-Evil', 'yes\r\nX-Evil: yes'))
    return [b'text']
