//! What the application is given: environ and the body.

mod host;

use host::{Input, Request, app, with_python};
use wsgi_wire::head::flags;
use wsgi_wire::vtable::{outcome, status};

#[test]
fn environ_holds_what_pep_3333_and_mod_wsgi_promise() {
    with_python("environ_holds_what_pep_3333_and_mod_wsgi_promise", |python| {
        let script = python.script(
            "caf\u{e9}.wsgi",
            &app("import io, sys, mod_wsgi, apache
e = environ
out = [type(e) is dict, e['wsgi.version'], e['wsgi.url_scheme'], e['wsgi.multithread']]
out += [e['wsgi.multiprocess'], e['wsgi.run_once'], e['wsgi.input_terminated']]
out += [e['wsgi.file_wrapper'] is mod_wsgi.FileWrapper, type(e['wsgi.errors']) is io.TextIOWrapper]
out += [type(e['wsgi.input']).__module__ + '.' + type(e['wsgi.input']).__name__]
out += [e['mod_wsgi.version'], e['apache.version'], apache.version, mod_wsgi.version]
out += [ascii(e['HTTP_X_NAME']), ascii(e['HTTP_COOKIE']), type(e['mod_wsgi.thread_id'])]
out += [e['mod_wsgi.request_start'], e['mod_wsgi.queue_start'], e['mod_wsgi.daemon_start']]
out += [type(e['mod_wsgi.application_start'])]
out += [e['mod_wsgi.process_group'] == '', e['mod_wsgi.application_group'], __name__[:10]]
out += [e['SCRIPT_FILENAME'] == __file__, ascii(e['DOCUMENT_ROOT']), type(__mtime__)]
out += [mod_wsgi.implementation, mod_wsgi.maximum_processes, mod_wsgi.threads_per_process]
out += [mod_wsgi.application_group, mod_wsgi.process_group, mod_wsgi.RequestTimeout.__mro__[1]]
out += [sys.argv, sys.stderr.name, sys.stdout.name, e['wsgi.errors'].name]"),
        );
        let request = Request::get(&script)
            .group("site")
            .variable("HTTP_X_NAME", b"caf\xe9")
            .variable("HTTP_COOKIE", b"a=\xff")
            .variable("DOCUMENT_ROOT", b"/srv/\xff");
        let answer = python.run(&request);
        assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
        let expected = "True\n(1, 0)\nhttp\nTrue\nTrue\nFalse\nTrue\nTrue\nTrue\nmod_wsgi.Input\n\
            (6, 1, 1)\n(2, 4, 99)\n(2, 4, 99)\n(6, 1, 1)\n'caf\\xe9'\n'a=\\xff'\n<class 'int'>\n\
            1.5\n0.0\n0.0\n<class 'float'>\nTrue\nsite\n_mod_wsgi_\nTrue\n'/srv/\\udcff'\n\
            <class 'int'>\nmod_wsgi_rs\n3\n15\nsite\n\n<class 'BaseException'>\n['mod_wsgi']\n\
            <stderr>\n<stdout>\n<wsgi.errors>";
        assert_eq!(answer.text(), expected);
        let secure = Request { flags: flags::HTTPS, ..request };
        assert!(python.run(&secure).text().starts_with("True\n(1, 0)\nhttps\n"));
    });
}

#[test]
fn what_an_application_does_to_its_environ_no_other_request_sees() {
    with_python("what_an_application_does_to_its_environ_no_other_request_sees", |python| {
        let script = python.script(
            "greedy.wsgi",
            &app("e = environ
out = [e['SCRIPT_NAME'], e['wsgi.url_scheme'], 'mine' in e, e['REQUEST_METHOD']]
out += [e.get('HTTP_X_OWN'), e.get('mod_wsgi.server_pid')]
e.update({key: 'spoilt' for key in e if isinstance(e[key], str)}, mine=1)
del e['SERVER_NAME'], e['SCRIPT_NAME']"),
        );
        let request = |mount: usize| {
            let own = format!("{mount}");
            Request::get(&script).below(format!("/{mount}")).variable("HTTP_X_OWN", own.as_bytes())
        };
        // More places than are remembered, each time and again.
        for mount in (0..20).chain([3, 3, 19, 19, 0]).chain(0..20) {
            let answer = python.run(&request(mount).server_pid(40 + mount as u32 % 3));
            let expected =
                format!("/{mount}\nhttp\nFalse\nGET\n{mount}\n{}", 40 + mount as u32 % 3);
            assert_eq!(answer.text(), expected);
        }
    });
}

#[test]
fn names_of_headers_without_number_are_what_the_host_says() {
    with_python("names_of_headers_without_number_are_what_the_host_says", |python| {
        let script = python.script(
            "names.wsgi",
            &app("out = sorted(key for key in environ if key.startswith('HTTP_X_ODD'))"),
        );
        let names: Vec<String> =
            (0..600).map(|at| format!("HTTP_X_ODD_{}{at:03}", "L".repeat(at % 70))).collect();
        for _ in 0..2 {
            for names in names.chunks(50) {
                let mut request = Request::get(&script);
                for name in names {
                    request.variables.push((name.clone().leak(), b"".to_vec()));
                }
                let mut expected = names.to_vec();
                expected.sort();
                assert_eq!(python.run(&request).text(), expected.join("\n"));
            }
        }
    });
}

#[test]
fn wsgiref_finds_nothing_to_object_to() {
    with_python("wsgiref_finds_nothing_to_object_to", |python| {
        let script = python.script(
            "validated.wsgi",
            "from wsgiref.validate import validator
@validator
def application(environ, start_response):
    body = environ['wsgi.input'].read(7)
    body += environ['wsgi.input'].readline(100) + environ['wsgi.input'].read(10)
    body += b''.join(environ['wsgi.input'].readlines(10)) + b''.join(environ['wsgi.input'])
    environ['wsgi.errors'].write('noted\\n')
    environ['wsgi.errors'].writelines(['one\\n', 'two\\n'])
    environ['wsgi.errors'].flush()
    write = start_response('200 OK', [('Content-Type', 'text/plain')])
    write(b'<')
    return iter([body, b'>'])
",
        );
        let answer = python.run(
            &Request::get(&script)
                .body(&[b"0123456789\n", b"abc\n"])
                .variable("CONTENT_LENGTH", b"15"),
        );
        assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
        assert_eq!(answer.text(), "<0123456789\nabc\n>");
        assert!(answer.log().ends_with("3 noted\n3 one\n3 two"), "{}", answer.log());
    });
}

#[test]
fn input_reads_like_a_binary_file() {
    with_python("input_reads_like_a_binary_file", |python| {
        let script = python.script(
            "input.wsgi",
            &app("i = environ['wsgi.input']
out = [i.read(0), i.read(2), i.readline(), i.readline(2), i.readline(), i.readline(-1)]
out += [i.read(None), i.read(), i.read(5), i.readline(), i.readlines(), list(i)]
for wrong in [('1',), (1, 2), (1.5,)]:
    try:
        out.append(i.read(*wrong))
    except TypeError:
        out.append('TypeError')
out.append(hasattr(i, 'fileno') or hasattr(i, 'seek'))
out.append(i.close())"),
        );
        let request =
            Request::get(&script).body(&[b"a", b"bcd", b"e\nfghi\njk\nrest", b" of it\nend"]);
        let answer = python.run(&request);
        let expected = "b''\nb'ab'\nb'cde\\n'\nb'fg'\nb'hi\\n'\nb'jk\\n'\nb'rest of it\\nend'\nb''\n\
            b''\nb''\n[]\n[]\nTypeError\nTypeError\nTypeError\nFalse\nNone";
        assert_eq!(answer.text(), expected, "{}", answer.log());
        let lines = python.script(
            "lines.wsgi",
            &app("i = environ['wsgi.input']\nout = [i.readlines(3), next(i), i.readlines(), list(i)]"),
        );
        let answer = python.run(&Request::get(&lines).body(&[b"a\nb\nc", b"\nd\ne"]));
        assert_eq!(answer.text(), "[b'a\\n', b'b\\n']\nb'c\\n'\n[b'd\\n', b'e']\n[]");
    });
}

#[test]
fn a_long_body_arrives_whole() {
    with_python("a_long_body_arrives_whole", |python| {
        let script = python.script(
            "long.wsgi",
            &app("import hashlib
i, digest, lines = environ['wsgi.input'], hashlib.md5(), 0
for line in i:
    digest.update(line)
    lines += 1
out = [lines, digest.hexdigest()]"),
        );
        let body: Vec<u8> = (0..400_000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let pieces: Vec<&[u8]> = body.chunks(7001).collect();
        let answer = python.run(&Request::get(&script).body(&pieces));
        assert!(answer.text().starts_with("400000\n"), "{}", answer.text());
        let whole = python.script("whole.wsgi", &app("out = [len(environ['wsgi.input'].read())]"));
        let answer = python.run(&Request::get(&whole).body(&pieces));
        assert_eq!(answer.text(), body.len().to_string());
    });
}

#[test]
fn a_fault_of_the_client_is_not_the_applications() {
    with_python("a_fault_of_the_client_is_not_the_applications", |python| {
        let read = python.script("read.wsgi", &app("out = [environ['wsgi.input'].read()]"));
        for (fault, wanted) in [
            (status::BAD_BODY, outcome::BAD_BODY),
            (status::TIMED_OUT, outcome::BODY_TIMED_OUT),
            (status::GONE, outcome::BAD_BODY),
            (status::FAILED, outcome::FAILED),
        ] {
            let input = vec![Input::Data(b"abc".to_vec()), Input::Fault(fault)];
            let answer = python.run(&Request { input, ..Request::get(&read) });
            assert_eq!(answer.outcome, wanted);
            let last = answer.exchange.log.last().unwrap();
            assert_eq!(last.0, 6, "{}", answer.log());
            assert!(answer.exchange.log.iter().all(|(level, _)| *level == 6), "{}", answer.log());
        }
        let again = python.script(
            "again.wsgi",
            &app("out = []
for _ in range(2):
    try:
        environ['wsgi.input'].read()
    except OSError as error:
        out.append(error)"),
        );
        let input = vec![Input::Fault(status::BAD_BODY)];
        let answer = python.run(&Request { input, ..Request::get(&again) });
        assert_eq!(answer.outcome, outcome::DONE);
        assert!(answer.text().contains("malformed"), "{}", answer.text());
        assert!(answer.text().contains("already in error state"), "{}", answer.text());
    });
}
