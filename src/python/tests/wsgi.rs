//! The Python half under a host that records, with real WSGI scripts.

mod host;

use host::{Request, with_each_python};
use wsgi_wire::vtable::{outcome, write_flags};

/// An application that says hello.
const HELLO: &str = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'Hello']
";

#[test]
fn an_application_says_hello_in_one_piece() {
    with_each_python("an_application_says_hello_in_one_piece", |python| {
        python.start();
        let answer = python.get(HELLO);
        assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
        assert_eq!(answer.exchange.status, "200 OK");
        assert_eq!(answer.header("Content-Type"), Some("text/plain"));
        assert_eq!(answer.header("Content-Length"), Some("5"));
        assert_eq!(answer.exchange.writes, [(b"Hello".to_vec(), write_flags::LAST)]);
        assert!(answer.log().contains("6 Loading WSGI script '"), "{}", answer.log());
        let other = Request::get(&python.script("script.wsgi", HELLO)).group("other");
        assert_eq!(python.run(&other).text(), "Hello");
        python.stop();
    });
}
