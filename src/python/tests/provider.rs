//! Scripts that are asked about a request.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod host;

use host::{Answer, Fixture, Request, with_python};
use std::path::Path;
use wsgi_wire::vtable::{question, reply};

/// Answers with whatever the user's name, or the query, is as an expression.
const SCRIPT: &str = "
from urllib.parse import unquote
def check_password(environ, user, password):
    return eval(user)
def get_realm_hash(environ, user, realm):
    return eval(user)
def groups_for_user(environ, user):
    return eval(user)
def allow_access(environ, host):
    return eval(host)
def process_group(environ):
    return eval(environ['QUERY'])[0]
def callable_object(environ):
    return eval(environ['QUERY'])[1]
def fail(error):
    raise error
def several(*items):
    for item in items:
        if isinstance(item, BaseException):
            raise item
        yield item
kept = []
def keep(item):
    kept.append(item)
    return True
";

/// What is answered to `kind` where the function evaluates `expression`.
fn ask(python: &Fixture, script: &Path, kind: u32, expression: &str) -> Answer {
    let request = Request::get(script).variable("QUERY", expression.as_bytes());
    let bytes: Vec<u8> = expression.chars().map(|it| u8::try_from(it).unwrap()).collect();
    python.ask(&request, (kind, &bytes, b"swordfish"))
}

/// The reply and what was told.
fn told(answer: &Answer) -> (i32, Vec<(u32, &str)>) {
    let told = answer.exchange.told.iter();
    let told = told.map(|(place, value)| (*place, std::str::from_utf8(value).unwrap()));
    (answer.outcome, told.collect())
}

/// Which replies follow from which expressions; the text is told, or a code in the log.
fn expect(python: &Fixture, script: &Path, kind: u32, wanted: &[(&str, i32, &str)]) {
    for (expression, reply, text) in wanted {
        let answer = ask(python, script, kind, expression);
        let (outcome, told) = told(&answer);
        assert_eq!(outcome, *reply, "{expression}: {}", answer.log());
        if *reply == reply::FAILED {
            assert!(answer.log().contains(text), "{expression}: {}", answer.log());
            assert!(told.is_empty(), "{expression}: {told:?}");
        } else {
            let text: Vec<_> = text.split_whitespace().map(|text| (0, text)).collect();
            assert_eq!(told, text, "{expression}");
        }
        assert!(!answer.log().contains("swordfish"), "{}", answer.log());
    }
}

#[test]
fn a_password_is_right_wrong_or_of_somebody_unknown() {
    with_python("a_password_is_right_wrong_or_of_somebody_unknown", |python| {
        let script = python.script("users.py", SCRIPT);
        let wanted = [
            ("None", reply::NOTHING, ""),
            ("True", reply::YES, ""),
            ("False", reply::NO, ""),
            ("'n\u{e4}w'", reply::YES, "n\u{e4}w"),
            ("password and 'known'", reply::YES, "known"),
            ("''", reply::FAILED, "WSGI0176"),
            (r"'\ud800'", reply::FAILED, "WSGI0177"),
            (r"'a\0b'", reply::FAILED, "WSGI0177"),
            ("1", reply::FAILED, "WSGI0177"),
            ("b'x'", reply::FAILED, "WSGI0177"),
            ("fail(ValueError)", reply::FAILED, "WSGI0174"),
            ("fail(SystemExit)", reply::FAILED, "WSGI0175"),
        ];
        expect(python, &script, question::PASSWORD, &wanted);
    });
}

#[test]
fn a_hash_is_text_or_there_is_none() {
    with_python("a_hash_is_text_or_there_is_none", |python| {
        let script = python.script("users.py", SCRIPT);
        let wanted = [
            ("None", reply::NOTHING, ""),
            ("'ab12'", reply::YES, "ab12"),
            ("b'ab12'", reply::YES, "ab12"),
            ("''", reply::FAILED, "WSGI0178"),
            (r"b'a\0'", reply::FAILED, "WSGI0179"),
            ("True", reply::FAILED, "WSGI0179"),
            (r"'\u20ac'", reply::FAILED, "WSGI0174"),
        ];
        expect(python, &script, question::REALM_HASH, &wanted);
    });
}

#[test]
fn groups_count_if_all_of_them_are_names() {
    with_python("groups_count_if_all_of_them_are_names", |python| {
        let script = python.script("groups.py", SCRIPT);
        let wanted = [
            ("[]", reply::YES, ""),
            ("['a', b'b']", reply::YES, "a b"),
            ("several('a', 'b')", reply::YES, "a b"),
            ("'ab'", reply::YES, "a b"),
            ("None", reply::FAILED, "WSGI0051"),
            ("[1]", reply::FAILED, "WSGI0050"),
            (r"['\u20ac']", reply::FAILED, "WSGI0049"),
            ("several(KeyError())", reply::FAILED, "WSGI0174"),
            ("several('a', 1, 'b')", reply::FAILED, "WSGI0050"),
            ("several('a', KeyError())", reply::FAILED, "WSGI0174"),
            ("fail(KeyError)", reply::FAILED, "WSGI0174"),
        ];
        expect(python, &script, question::GROUPS, &wanted);
    });
}

#[test]
fn access_is_granted_denied_or_left_to_others() {
    with_python("access_is_granted_denied_or_left_to_others", |python| {
        let script = python.script("access.py", SCRIPT);
        let wanted = [
            ("None", reply::NOTHING, ""),
            ("True", reply::YES, ""),
            ("False", reply::NO, ""),
            ("1", reply::FAILED, "WSGI0055"),
            ("''", reply::FAILED, "WSGI0055"),
            ("fail(ValueError)", reply::FAILED, "WSGI0174"),
        ];
        expect(python, &script, question::ACCESS, &wanted);
        let empty = python.script("empty.py", "x = 1\n");
        expect(python, &empty, question::ACCESS, &[("None", reply::FAILED, "WSGI0056")]);
        let missing = python.script("missing.py", "1 / 0\n");
        let answer = ask(python, &missing, question::ACCESS, "None");
        assert_eq!(answer.outcome, reply::UNLOADED);
        assert!(answer.log().contains("WSGI0109"), "{}", answer.log());
    });
}

#[test]
fn a_dispatch_script_tells_what_it_chooses() {
    with_python("a_dispatch_script_tells_what_it_chooses", |python| {
        let script = python.script("dispatch.py", SCRIPT);
        let ask = |values: &str| ask(python, &script, question::DISPATCH, values);
        assert_eq!(told(&ask("(None, None)")), (reply::NOTHING, vec![]));
        assert_eq!(told(&ask("('a', b'b')")), (reply::YES, vec![(0, "a"), (2, "b")]));
        assert_eq!(told(&ask("(None, '')")), (reply::YES, vec![(2, "")]));
        let wrong = ask("(1, 'b')");
        assert_eq!(told(&wrong), (reply::FAILED, vec![]));
        assert!(wrong.log().contains("WSGI9511"), "{}", wrong.log());
    });
}

#[test]
fn what_a_script_keeps_of_a_question_is_of_no_use_afterwards() {
    with_python("what_a_script_keeps_of_a_question_is_of_no_use_afterwards", |python| {
        let script = python.script("access.py", SCRIPT);
        let look_up = "keep(environ['mod_ssl.var_lookup']) and kept[-1]('NAME') == 'value'";
        expect(python, &script, question::ACCESS, &[(look_up, reply::YES, "")]);
        let nothing = "keep(environ['mod_ssl.var_lookup']) and kept[-1](b'OTHER') is None";
        expect(python, &script, question::ACCESS, &[(nothing, reply::YES, "")]);
        let answer = ask(python, &script, question::ACCESS, "kept[0]('NAME')");
        assert_eq!(answer.outcome, reply::FAILED);
        assert!(answer.log().contains("RuntimeError: the request"), "{}", answer.log());
        let kinds = "environ['mod_ssl.is_https']() == 0 and 'wsgi.input' not in environ";
        expect(python, &script, question::ACCESS, &[(kinds, reply::YES, "")]);
        let sub = "keep(environ['wsgi.errors'])";
        let request = Request::get(&script).group("another");
        assert_eq!(python.ask(&request, (question::ACCESS, sub.as_bytes(), b"")).outcome, 1);
    });
}

#[test]
fn a_question_that_is_none_is_refused() {
    with_python("a_question_that_is_none_is_refused", |python| {
        let script = python.script("access.py", SCRIPT);
        assert_eq!(ask(python, &script, 99, "True").outcome, reply::FAILED);
    });
}
