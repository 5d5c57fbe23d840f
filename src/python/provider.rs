//! Scripts that are asked about a request: who may see it, and where it runs.
//!
//! What a function answers reaches the host piece by piece, and then as one word.
//! Passwords are handed to the function and shown to nobody else.
#![forbid(unsafe_code)]

use crate::environ::{self, Unmade};
use crate::exchange::Exchange;
use crate::interpreter::{Group, Place};
use crate::log::Sink;
use crate::raw::{
    Args, Attached, Builtin, Class, ClassOf, Exception, HostRequest, Kept, Method, Object, Raised,
    This, system,
};
use crate::request::{self, End};
use crate::runtime::Runtime;
use crate::script::{self, Wanted};
use core::ffi::{CStr, c_int};
use std::sync::Arc;
use wsgi_wire::head::{RequestHead, flags};
use wsgi_wire::vtable::{DISPATCH_FUNCTIONS, level, question, reply};

/// A question; see [`wsgi_wire::vtable::Question`].
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// One of [`question`].
    pub kind: u32,
    /// The user, or the host.
    pub who: &'a [u8],
    /// The password, or the realm.
    pub what: &'a [u8],
}

/// What is said about a kind of question.
struct Manners {
    /// The function that is called; of a dispatch script the first.
    function: &'static str,
    /// The code of the line that there is no interpreter.
    no_interpreter: &'static str,
    /// The code of the line that there is no such function; a dispatch script need
    /// have none.
    missing: &'static str,
    /// The code of the line that it answered something else.
    wrong: &'static str,
    /// What it is to answer.
    wanted: &'static str,
    /// What follows where it does not.
    next: &'static str,
}

impl Manners {
    /// Those of a kind of question.
    #[rustfmt::skip]
    const fn of(kind: u32) -> Option<Self> {
        let (function, no_interpreter, missing, wrong, wanted, next) = match kind {
            question::PASSWORD => ("check_password", "WSGI0042", "WSGI0043", "WSGI0177",
                "True, False, None or the name of a user", "answering 500"),
            question::REALM_HASH => ("get_realm_hash", "WSGI0045", "WSGI0046", "WSGI0179",
                "None or a hash as str or bytes", "answering 500"),
            question::GROUPS => ("groups_for_user", "WSGI0048", "WSGI0052", "WSGI0051",
                "an iterable of names as str or bytes", "access is denied"),
            question::ACCESS => ("allow_access", "WSGI0054", "WSGI0056", "WSGI0055",
                "True, False or None", "access is denied"),
            question::DISPATCH => (DISPATCH_FUNCTIONS[0], "WSGI0086", "", "WSGI9511",
                "None or a name as str or bytes", "answering 500"),
            _ => return None,
        };
        Some(Self { function, no_interpreter, missing, wrong, wanted, next })
    }
}

/// Asks a script; gives a [`reply`].
pub fn ask(runtime: &Runtime, mut host: HostRequest, head: &[u8], question: Question<'_>) -> c_int {
    let _inside = runtime.enter();
    let head = match RequestHead::decode(head) {
        Ok(head) => head,
        Err(error) => {
            host.log(level::ERROR, &format!("WSGI9402: unreadable question: {error}"));
            return reply::FAILED;
        }
    };
    let Some(manners) = Manners::of(question.kind) else { return reply::FAILED };
    let check = (head.flags & flags::RELOADING != 0).then(|| script::mtime(head.script));
    let group = runtime.group(head.application_group);
    let Some((group, lease)) = group.as_ref().and_then(|it| Some((it, it.interpreter.attach()?)))
    else {
        let path = String::from_utf8_lossy(head.script);
        let code = manners.no_interpreter;
        host.log(level::ERROR, &format!("{code}: no interpreter to ask script '{path}' in"));
        return reply::UNLOADED;
    };
    let py = lease.py();
    let exchange = Exchange::begin(host, false, 0);
    let _seat = runtime.requests.begin(py, Some(head.id), group);
    let _end = End { py, exchange: &exchange, place: &group.place };
    let wanted = Wanted { path: head.script, check, request: None };
    let sink = Sink::Request(&exchange);
    let reply = match script::module(py, runtime, &group.place, wanted, sink) {
        Ok(module) => {
            Asking { group, exchange: &exchange, head: &head, question, manners }.ask(&module)
        }
        Err(_) => reply::UNLOADED,
    };
    if system::is_forked() {
        request::leave(1);
    }
    reply
}

/// A script being asked.
struct Asking<'r> {
    group: &'r Group,
    exchange: &'r Arc<Exchange>,
    head: &'r RequestHead<'r>,
    question: Question<'r>,
    manners: Manners,
}

/// Why there is no answer.
enum Unanswered {
    /// Not asked.
    Unmade(Unmade),
    /// The function named raised.
    Raised(&'static str, Raised),
    /// Said already.
    Told,
}

impl From<Unmade> for Unanswered {
    fn from(unmade: Unmade) -> Self {
        Self::Unmade(unmade)
    }
}

impl From<Raised> for Unanswered {
    fn from(raised: Raised) -> Self {
        Self::Unmade(Unmade::Raised(raised))
    }
}

impl Asking<'_> {
    fn place(&self) -> &Place {
        &self.group.place
    }

    fn sink(&self) -> Sink<'_> {
        Sink::Request(self.exchange)
    }

    /// Calls what is to be called.
    fn ask(&self, module: &Object<'_>) -> c_int {
        let py = module.py();
        self.call(module).unwrap_or_else(|unanswered| {
            let (function, raised) = match unanswered {
                Unanswered::Told => return reply::FAILED,
                Unanswered::Unmade(Unmade::Head(error)) => {
                    let message = format!("WSGI9402: unreadable question: {error}");
                    self.sink().line(py, level::ERROR, &message);
                    return reply::FAILED;
                }
                Unanswered::Unmade(Unmade::Raised(raised)) => (self.manners.function, raised),
                Unanswered::Raised(function, raised) => (function, raised),
            };
            self.report(function, &raised.take(py));
            reply::FAILED
        })
    }

    /// Logs an exception of the script's.
    fn report(&self, function: &str, error: &Exception<'_>) {
        let (code, what) = match error.is(Builtin::SystemExit) {
            true => ("WSGI0175", "called exit"),
            false => ("WSGI0174", "raised an exception"),
        };
        let (path, next) = (String::from_utf8_lossy(self.head.script), self.manners.next);
        let header = format!("{code}: {function}() of '{path}' {what}; {next}");
        self.sink().traceback(self.place(), &header, error);
    }

    /// Logs what is wrong with what `function` answered.
    fn complain(&self, py: Attached<'_>, code: &str, function: &str, what: &str) -> Unanswered {
        let (path, next) = (String::from_utf8_lossy(self.head.script), self.manners.next);
        let message = format!("{code}: {function}() of '{path}' {what}; {next}");
        self.sink().line(py, level::ERROR, &message);
        Unanswered::Told
    }

    /// Logs that the answer is none of those there are.
    fn complain_of(&self, answer: &Object<'_>, function: &str) -> Unanswered {
        let Manners { wrong, wanted, .. } = self.manners;
        let what = format!("must return {wanted}, returned {}", answer.type_name());
        self.complain(answer.py(), wrong, function, &what)
    }

    fn call(&self, module: &Object<'_>) -> Result<c_int, Unanswered> {
        let py = module.py();
        // Dropped last, when nothing of the question refers to it any more.
        let errors = self.place().errors(py, self.exchange)?;
        let environ = self.environ(py)?;
        let _record = environ::set_apache_request(&environ, self.head, self.exchange)?;
        if let Some(errors) = errors.object() {
            environ.dict_set(&self.place().names.errors.lend(py), errors)?;
        }
        if self.question.kind == question::DISPATCH {
            return self.dispatch(module, &environ);
        }
        let name = self.manners.function;
        let Some(function) = self.function(module, name)? else {
            return Err(self.complain(py, self.manners.missing, name, "does not exist"));
        };
        let (who, what) = (py.latin1(self.question.who)?, py.latin1(self.question.what)?);
        let arguments = match self.question.kind {
            question::PASSWORD | question::REALM_HASH => &[&environ, &who, &what][..],
            _ => &[&environ, &who],
        };
        let answer = function.call(arguments).map_err(|raised| Unanswered::Raised(name, raised))?;
        match self.question.kind {
            question::PASSWORD => self.password(&answer),
            question::REALM_HASH => self.hash(&answer),
            question::GROUPS => self.groups(&answer),
            _ => match (answer.as_bool(), answer.is_none()) {
                (Some(true), _) => Ok(reply::YES),
                (Some(false), _) => Ok(reply::NO),
                (None, true) => Ok(reply::NOTHING),
                (None, false) => Err(self.complain_of(&answer, name)),
            },
        }
    }

    /// A function of the script.
    fn function<'p>(
        &self,
        module: &Object<'p>,
        name: &'static str,
    ) -> Result<Option<Object<'p>>, Unanswered> {
        let py = module.py();
        module.attr_of(&py.name(name)?).map(Some).or_else(|raised| {
            let error = raised.take(py);
            if error.is(Builtin::AttributeError) {
                return Ok(None);
            }
            Err(Unanswered::Raised(name, error.raise()))
        })
    }

    /// What the function learns of the request.
    fn environ<'p>(&self, py: Attached<'p>) -> Result<Object<'p>, Unanswered> {
        let place = self.place();
        let constants = Constants::of(py, place)?;
        let environ = constants.template.lend(py).dict_copy()?;
        environ::fill_variables(&environ, place, self.head)?;
        let is_https = self.head.flags & flags::HTTPS != 0;
        let tls = Tls { exchange: Arc::clone(self.exchange), is_https };
        let tls = constants.tls.instance(py, tls)?;
        environ.dict_set(&py.name("mod_ssl.is_https")?, &constants.tls.bind(&tls, &IS_HTTPS)?)?;
        let look_up = constants.tls.bind(&tls, &VAR_LOOKUP)?;
        environ.dict_set(&py.name("mod_ssl.var_lookup")?, &look_up)?;
        Ok(environ)
    }

    /// Reads the answer of `check_password`.
    fn password(&self, answer: &Object<'_>) -> Result<c_int, Unanswered> {
        if answer.is_none() {
            return Ok(reply::NOTHING);
        }
        if let Some(answer) = answer.as_bool() {
            return Ok(if answer { reply::YES } else { reply::NO });
        }
        let (py, name) = (answer.py(), self.manners.function);
        if !answer.is_text() {
            return Err(self.complain_of(answer, name));
        }
        let user = match answer.as_utf8() {
            Ok(user) => user,
            Err(raised) => {
                raised.clear(py);
                let what = "returned a name of a user that UTF-8 cannot spell";
                return Err(self.complain(py, self.manners.wrong, name, what));
            }
        };
        self.check_text(py, user.as_bytes(), "WSGI0176")?;
        self.exchange.tell(py, 0, user.as_bytes());
        Ok(reply::YES)
    }

    /// Refuses what httpd would take for something else.
    fn check_text(&self, py: Attached<'_>, text: &[u8], empty: &str) -> Result<(), Unanswered> {
        let name = self.manners.function;
        if text.is_empty() {
            return Err(self.complain(py, empty, name, "returned an empty string"));
        }
        if text.contains(&0) {
            return Err(self.complain(py, self.manners.wrong, name, "returned a NUL character"));
        }
        Ok(())
    }

    /// Reads the answer of `get_realm_hash`.
    fn hash(&self, answer: &Object<'_>) -> Result<c_int, Unanswered> {
        if answer.is_none() {
            return Ok(reply::NOTHING);
        }
        let (py, name) = (answer.py(), self.manners.function);
        let Some(hash) = latin1(answer).map_err(|raised| Unanswered::Raised(name, raised))? else {
            return Err(self.complain_of(answer, name));
        };
        self.check_text(py, &hash, "WSGI0178")?;
        self.exchange.tell(py, 0, &hash);
        Ok(reply::YES)
    }

    /// Reads the answer of `groups_for_user`.  Nothing is told of one that is not whole.
    fn groups(&self, answer: &Object<'_>) -> Result<c_int, Unanswered> {
        let (py, name) = (answer.py(), self.manners.function);
        let groups = answer.iterate().map_err(|raised| {
            let error = raised.take(py);
            if error.is(Builtin::TypeError) {
                return self.complain_of(answer, name);
            }
            Unanswered::Raised(name, error.raise())
        })?;
        let mut whole = Vec::new();
        while let Some(group) = groups.next().map_err(|it| Unanswered::Raised(name, it))? {
            let told = latin1(&group).map_err(|raised| {
                raised.clear(py);
                let what = "names a group in characters that latin-1 does not have";
                self.complain(py, "WSGI0049", name, what)
            })?;
            let Some(told) = told else {
                let what = format!("names a group by {}, not by str or bytes", group.type_name());
                return Err(self.complain(py, "WSGI0050", name, &what));
            };
            whole.push(told);
        }
        whole.iter().for_each(|group| self.exchange.tell(py, 0, group));
        Ok(reply::YES)
    }

    /// Calls the functions of a dispatch script, in order.
    fn dispatch(&self, module: &Object<'_>, environ: &Object<'_>) -> Result<c_int, Unanswered> {
        let mut reply = reply::NOTHING;
        for (place, name) in (0..).zip(DISPATCH_FUNCTIONS) {
            let Some(function) = self.function(module, name)? else { continue };
            let raised = |raised| Unanswered::Raised(name, raised);
            let answer = function.call(&[environ]).map_err(raised)?;
            if answer.is_none() {
                continue;
            }
            let Some(value) = latin1(&answer).map_err(raised)? else {
                return Err(self.complain_of(&answer, name));
            };
            self.exchange.tell(module.py(), place, &value);
            reply = reply::YES;
        }
        Ok(reply)
    }
}

/// The bytes of a `bytes`, or of a `str` in latin-1, which raises for other
/// characters; None for what is neither.
fn latin1(value: &Object<'_>) -> Result<Option<Vec<u8>>, Raised> {
    if let Some(bytes) = value.as_bytes() {
        return Ok(Some(bytes.to_vec()));
    }
    if !value.is_text() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    value.append_latin1(&mut bytes)?;
    Ok(Some(bytes))
}

/// What is the same in all questions of an interpreter.
pub struct Constants {
    /// The constant entries of their environ.
    template: Kept,
    /// The type behind the functions `mod_ssl.*`.
    tls: ClassOf<Tls>,
}

/// Entries of an application's environ that a question has as well.
const SHARED: [&str; 4] =
    ["apache.version", "mod_wsgi.version", "mod_wsgi.process_group", "mod_wsgi.application_group"];

impl Constants {
    /// Those of an interpreter, made when it is asked for the first time.
    fn of<'a>(py: Attached<'_>, place: &'a Place) -> Result<&'a Self, Raised> {
        if let Some(constants) = place.constants.get() {
            return Ok(constants);
        }
        let (template, whole) = (py.dict()?, place.template.lend(py));
        for key in SHARED {
            let key = py.name(key)?;
            if let Some(value) = whole.dict_get(&key) {
                template.dict_set(&key, &value)?;
            }
        }
        let constants = Self { template: template.keep(), tls: ClassOf::new(py)? };
        // Another thread may have come first while Python ran.
        Ok(place.constants.get_or_init(|| constants))
    }
}

/// What a function may ask mod_ssl.
pub struct Tls {
    exchange: Arc<Exchange>,
    is_https: bool,
}

/// `mod_ssl.is_https`
static IS_HTTPS: Method<Tls> = Method::new(c"ssl_is_https", is_https);

/// `mod_ssl.var_lookup`
static VAR_LOOKUP: Method<Tls> = Method::new(c"ssl_var_lookup", var_lookup);

impl Class for Tls {
    const NAME: &'static CStr = c"mod_wsgi.Auth";
    const METHODS: &'static [Method<Self>] = &[Method::END];
}

/// `is_https()`: 1 where the client uses TLS, else 0.
fn is_https<'p>(this: This<'_, 'p, Tls>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let py = args.py();
    if args.len() != 0 {
        return Err(py.raise(Builtin::TypeError, "ssl_is_https() takes no arguments"));
    }
    py.int(this.is_https.into())
}

/// `var_lookup(name)`: the value of a variable of mod_ssl, empty for one it does not
/// know; None without mod_ssl.
fn var_lookup<'p>(this: This<'_, 'p, Tls>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let py = args.py();
    let (1, Some(name)) = (args.len(), args.get(0)) else {
        return Err(py.raise(Builtin::TypeError, "ssl_var_lookup() takes exactly one argument"));
    };
    let Some(bytes) = latin1(&name)? else {
        let message = format!("name of a variable must be str or bytes, not {}", name.type_name());
        return Err(py.raise(Builtin::TypeError, &message));
    };
    let found = this.exchange.tls_variable(py, &bytes)?;
    found.map_or_else(|| Ok(py.none()), |value| py.latin1(&value))
}
