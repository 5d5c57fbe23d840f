//! One application group: an interpreter with what is set up once in it.
#![forbid(unsafe_code)]

use crate::answer::Responder;
use crate::beginnings::Beginnings;
use crate::collector::Collector;
use crate::environ::TIMES;
use crate::events::{self, Events};
use crate::exchange::Exchange;
use crate::fork::Forks;
use crate::hint::Kind;
use crate::input::Input;
use crate::log::Log;
use crate::module;
use crate::provider::Constants;
use crate::raw::{
    Attached, ClassOf, Exception, Instantiated, Interpreter, Kept, KeptInstance, Object, Raised,
    Settings, configuration,
};
use crate::sample;
use crate::script::Scripts;
use crate::telemetry;
use crate::texts::Texts;
use core::ffi::CStr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use wsgi_wire::keys::KEYS;
use wsgi_wire::vtable::level;

/// The level of the API we implement.
const VERSION: [i64; 3] = [6, 1, 1];

/// The same as a text.
pub const VERSION_TEXT: &str = "6.1.1";

/// The Python part of the module `mod_wsgi`.
static MODULE: &str = include_str!("mod_wsgi.py");

/// What prepares an interpreter.
static SETUP: &str = include_str!("setup.py");

/// What shows stacks where threads do not wait for each other.
static STACKS: &str = include_str!("stacks.py");

/// What few interpreters need of that; executed when one does.
static RARELY: &str = include_str!("rarely.py");

/// An application group of this process.
pub struct Group {
    /// Its name; the main interpreter's is empty.
    pub name: Vec<u8>,
    /// Its interpreter.
    pub interpreter: Interpreter,
    /// What is in it.
    pub place: Place,
    /// Whether a thread makes those that compute in it give up the GIL.
    pub is_nudged: AtomicBool,
}

impl Group {
    /// The application group `name`.
    pub fn new(name: &[u8], interpreter: Interpreter, place: Place) -> Self {
        Self { name: name.to_vec(), interpreter, place, is_nudged: AtomicBool::new(false) }
    }

    /// Whether threads wait for each other to run Python in it.
    pub fn has_lock(&self) -> bool {
        let Some(lease) = self.interpreter.attach() else { return true };
        let py = lease.py();
        configuration::has_lock(py).unwrap_or_else(|raised| {
            raised.clear(py);
            true
        })
    }
}

/// What every request in an interpreter uses.  Objects in here belong to that
/// interpreter alone.
pub struct Place {
    /// The well-known environ keys, interned.
    pub keys: Vec<Kept>,
    /// Other names, interned.
    pub names: Names,
    /// The constant entries of environ.
    pub template: Kept,
    /// How environs begin that were asked for lately.
    pub beginnings: Beginnings,
    /// Names of headers that came lately, and other short texts.
    pub texts: Texts,
    /// `mod_wsgi.FileWrapper`
    pub file_wrapper: Kept,
    /// `mod_wsgi.RequestTimeout`
    pub request_timeout: Kept,
    /// What tells of requests.
    pub events: Events,
    /// Its garbage collector, where that is reported.
    pub collector: Option<Collector>,
    /// `io.TextIOWrapper`
    pub text_wrapper: Kept,
    /// The arguments of a text wrapper behind its stream.
    pub text_options: [Kept; 4],
    /// Of `setup.py`.
    pub format_exception: Kept,
    /// Of `setup.py`.
    pub finish: Kept,
    /// The function of `stacks.py`, where threads do not wait for each other.
    #[cfg(free_threaded)]
    pub stacks: Kept,
    /// `compile`
    pub compile: Kept,
    /// The type of `wsgi.input`.
    pub input: ClassOf<Input>,
    /// The type of log streams.
    pub log: ClassOf<Log>,
    /// The type behind `start_response`.
    pub responder: ClassOf<Responder>,
    /// What it is, for who cannot be imported there.
    pub kind: Kind,
    /// The scripts seen here.
    pub scripts: Scripts,
    /// What functions that are asked something get, once one was.
    pub constants: OnceLock<Constants>,
    /// `_weakref.getweakrefcount`, which `weakref` passes on
    weak_count: Kept,
    /// Streams `wsgi.errors` of requests that did not use them.
    spare: Mutex<Vec<Spare>>,
}

/// A text stream with the log below it.
struct Spare {
    text: Kept,
    log: KeptInstance<Log>,
    /// See [`maker`].
    maker: usize,
}

/// Which thread this is, where only the one that made an object can tell whether it has
/// the last reference to it; elsewhere always 0.
fn maker() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    if cfg!(free_threaded) { HERE.with(|here| core::ptr::from_ref(here).addr()) } else { 0 }
}

/// So many are kept for the next requests; more run at once only rarely.
const MOST_SPARE: usize = 64;

/// Interned names that are not environ keys of the host.
#[derive(Debug)]
pub struct Names {
    /// `wsgi.url_scheme`
    pub url_scheme: Kept,
    /// `https`
    pub https: Kept,
    /// `wsgi.input`
    pub input: Kept,
    /// `wsgi.errors`
    pub errors: Kept,
    /// `mod_wsgi.thread_id`
    pub thread_id: Kept,
    /// See [`TIMES`].
    pub times: Vec<Kept>,
    /// `close`
    pub close: Kept,
    /// `reload_required`
    pub reload_required: Kept,
}

impl Names {
    /// Interns them.
    fn new(py: Attached<'_>) -> Result<Self, Raised> {
        let name = |text| py.name(text).map(Object::keep);
        Ok(Self {
            url_scheme: name("wsgi.url_scheme")?,
            https: name("https")?,
            input: name("wsgi.input")?,
            errors: name("wsgi.errors")?,
            thread_id: name("mod_wsgi.thread_id")?,
            times: TIMES.into_iter().map(name).collect::<Result<_, _>>()?,
            close: name("close")?,
            reload_required: name("reload_required")?,
        })
    }
}

impl Place {
    /// Sets up the interpreter `py` is attached to, for application group `group`.
    pub fn new(
        py: Attached<'_>,
        settings: &Settings,
        group: &[u8],
        owns_gil: bool,
    ) -> Result<Self, Raised> {
        let log = ClassOf::new(py)?;
        let builtins = py.import(c"builtins")?;
        let compile = builtins.attr(c"compile")?;
        let module = module(py, settings, group)?;
        execute(py, &compile, MODULE, c"mod_wsgi", &module.attr(c"__dict__")?)?;
        let helpers = py.new_module(c"_mod_wsgi_setup")?;
        let helper = |name: &CStr| helpers.attr(name).map(Object::keep);
        helpers.set_attr(c"RARELY", &py.text(RARELY)?)?;
        execute(py, &compile, SETUP, c"mod_wsgi setup", &helpers.attr(c"__dict__")?)?;
        if cfg!(free_threaded) {
            execute(py, &compile, STACKS, c"mod_wsgi stacks", &helpers.attr(c"__dict__")?)?;
        }
        let own = module::set_up(py, &module)?;
        let events = py.new_module(c"mod_wsgi")?;
        execute(py, &compile, events::SOURCE, c"mod_wsgi events", &events.attr(c"__dict__")?)?;
        let format_exception = helpers.attr(c"format_exception")?;
        let events = Events::new(py, &module, &events, (&own, &format_exception))?;
        set_up(settings, (group, owns_gil), &log, &module, &helpers)?;
        let file_wrapper = module.attr(c"FileWrapper")?;
        let template = template(py, settings, group, &file_wrapper)?;
        let truth = || py.boolean(true).map(Object::keep);
        Ok(Self {
            keys: KEYS
                .iter()
                .map(|key| py.name(key).map(Object::keep))
                .collect::<Result<_, _>>()?,
            names: Names::new(py)?,
            template: template.keep(),
            beginnings: Beginnings::default(),
            texts: Texts::default(),
            file_wrapper: file_wrapper.keep(),
            request_timeout: module.attr(c"RequestTimeout")?.keep(),
            events,
            collector: telemetry::watch(py, group)?,
            text_wrapper: py.import(c"io")?.attr(c"TextIOWrapper")?.keep(),
            text_options: [
                py.name("utf-8")?.keep(),
                py.name("replace")?.keep(),
                py.none().keep(),
                truth()?,
            ],
            format_exception: helper(c"format_exception")?,
            finish: helper(c"finish")?,
            #[cfg(free_threaded)]
            stacks: helper(c"stacks")?,
            compile: compile.keep(),
            input: ClassOf::new(py)?,
            log,
            responder: ClassOf::new(py)?,
            kind: Kind::new(group, owns_gil),
            scripts: Scripts::new(settings.options.ignores_case),
            constants: OnceLock::new(),
            weak_count: py.import(c"_weakref")?.attr(c"getweakrefcount")?.keep(),
            spare: Mutex::default(),
        })
    }

    /// The spare streams; nobody holds the lock while running Python.
    fn spare(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream `wsgi.errors` of a request, perhaps one that an earlier request
    /// left untouched: making one costs a quarter of a small request.
    pub fn errors<'a, 'p>(
        &'a self,
        py: Attached<'p>,
        exchange: &Arc<Exchange>,
    ) -> Result<Errors<'a, 'p>, Raised> {
        let maker = maker();
        let spare = {
            let mut spare = self.spare();
            let at = spare.iter().rposition(|spare| spare.maker == maker);
            at.map(|at| spare.swap_remove(at))
        };
        if let Some(Spare { text, log, .. }) = spare {
            let (text, log) = (text.take(py), log.take(py));
            log.begin(Arc::clone(exchange));
            return Ok(Errors { place: self, stream: Some((text, log)) });
        }
        let log = self.log.instance(py, Log::of_request(Arc::clone(exchange)))?;
        let text = self.text_stream(log.object())?;
        log.begin(Arc::clone(exchange));
        Ok(Errors { place: self, stream: Some((text, log)) })
    }

    /// Whether nobody can tell a stream from a new one: it was not used, nothing
    /// was set on it, and no reference to it is left.
    fn is_as_new(&self, text: &Object<'_>, log: &Instantiated<'_, Log>) -> bool {
        let py = text.py();
        // The log's second reference is the text stream's.
        if py.has_raised() || log.was_used() {
            return false;
        }
        if !text.has_count(1) || !log.object().has_count(2) {
            return false;
        }
        if !text.is_exactly_a(&self.text_wrapper.lend(py)) {
            return false;
        }
        let traces = || -> Result<bool, Raised> {
            let attributes = text.attr(c"__dict__")?.dict_len();
            let references = self.weak_count.lend(py).call(&[text])?.to_i64()?;
            Ok(attributes != Some(0) || references != 0)
        };
        traces().map_or_else(
            |raised| {
                raised.clear(py);
                false
            },
            |traces| !traces,
        )
    }

    /// Whether `error` is `mod_wsgi.RequestTimeout`.
    pub fn is_timeout(&self, error: &Exception<'_>) -> bool {
        error.is_a(&self.request_timeout.lend(error.value().py()))
    }

    /// A text stream over `log`.
    fn text_stream<'p>(&self, log: &Object<'p>) -> Result<Object<'p>, Raised> {
        let py = log.py();
        let [encoding, errors, newline, truth] = &self.text_options;
        self.text_wrapper.lend(py).call(&[
            log,
            &encoding.lend(py),
            &errors.lend(py),
            &newline.lend(py),
            &truth.lend(py),
            &truth.lend(py),
        ])
    }
}

/// The stream `wsgi.errors` of a request.
pub struct Errors<'a, 'p> {
    place: &'a Place,
    /// None only while it is dropped.
    stream: Option<(Object<'p>, Instantiated<'p, Log>)>,
}

impl<'p> Errors<'_, 'p> {
    /// The stream.
    pub fn object(&self) -> Option<&Object<'p>> {
        self.stream.as_ref().map(|(text, _)| text)
    }
}

impl Drop for Errors<'_, '_> {
    /// Keeps the stream for another request if nobody used it.
    fn drop(&mut self) {
        let Some((text, log)) = self.stream.take() else { return };
        log.end();
        if self.place.is_as_new(&text, &log) {
            let mut spare = self.place.spare();
            if spare.len() < MOST_SPARE {
                let (text, log) = (text.keep(), log.keep());
                spare.push(Spare { text, log, maker: maker() });
            }
        }
    }
}

/// Executes `source` with `globals`.
pub fn execute<'p>(
    py: Attached<'p>,
    compile: &Object<'p>,
    source: &str,
    name: &CStr,
    globals: &Object<'p>,
) -> Result<(), Raised> {
    let name = format!("<{}>", name.to_string_lossy());
    let code = compile.call(&[&py.text(source)?, &py.text(&name)?, &py.text("exec")?])?;
    let builtins = py.import(c"builtins")?;
    globals.dict_set(&py.name("__builtins__")?, &builtins)?;
    py.run(&code, globals).map(drop)
}

/// A tuple of numbers.
fn numbers(py: Attached<'_>, numbers: [i64; 3]) -> Result<Object<'_>, Raised> {
    let [a, b, c] = numbers;
    py.tuple(&[&py.int(a)?, &py.int(b)?, &py.int(c)?])
}

/// The module `mod_wsgi`, without its Python part.
fn module<'p>(py: Attached<'p>, settings: &Settings, group: &[u8]) -> Result<Object<'p>, Raised> {
    let module = py.new_module(c"mod_wsgi")?;
    module.set_attr(c"version", &numbers(py, VERSION)?)?;
    module.set_attr(c"implementation", &py.text("mod_wsgi_rs")?)?;
    module.set_attr(c"implementation_version", &py.text(env!("CARGO_PKG_VERSION"))?)?;
    module.set_attr(c"process_group", &py.latin1(&settings.process_group)?)?;
    module.set_attr(c"application_group", &py.latin1(group)?)?;
    let count = |number: u32| py.int(number.into());
    module.set_attr(c"maximum_processes", &count(settings.maximum_processes)?)?;
    module.set_attr(c"threads_per_process", &count(settings.threads_per_process)?)?;
    sample::furnish(py, &module)?;
    Ok(module)
}

/// Runs `set_up` of `setup.py`.
fn set_up<'p>(
    settings: &Settings,
    (group, owns_gil): (&[u8], bool),
    log: &ClassOf<Log>,
    module: &Object<'p>,
    helpers: &Object<'p>,
) -> Result<(), Raised> {
    let py = module.py();
    let stream = |name, level| {
        log.instance(py, Log::of_process(name, level)).map(|stream| stream.into_object())
    };
    let values = py.dict()?;
    let set = |key, value: Object<'p>| values.dict_set(&py.name(key)?, &value);
    set("stderr", stream("<stderr>", settings.stderr_level)?)?;
    set("stdout", stream("<stdout>", settings.stdout_level)?)?;
    set("info", stream("<info>", level::INFO)?)?;
    set("warning", stream("<warning>", level::WARN)?)?;
    set("error", stream("<error>", level::ERROR)?)?;
    set("forks", ClassOf::new(py)?.instance(py, Forks)?.into_object())?;
    set("python_path", py.path(&settings.python_path)?)?;
    set("home", py.path(&settings.home)?)?;
    set("user_name", py.path(&settings.user_name)?)?;
    set("user_home", py.path(&settings.user_home)?)?;
    set("is_service", py.boolean(settings.service)?)?;
    set("stacks_signal", py.int(settings.stacks_signal.unwrap_or_default().into())?)?;
    set("is_embedded", py.boolean(settings.process_group.is_empty())?)?;
    set("apache", py.new_module(c"apache")?)?;
    let (options, of) = (&settings.options, (group.is_empty(), owns_gil));
    options.of(group).put(&values, options, of, settings.switch_interval)?;
    let apache = helpers.attr(c"set_up")?.call(&[module, &values])?;
    let version = numbers(py, settings.apache_version.map(i64::from))?;
    module::fill_apache(&apache, &version, &settings.apache)
}

/// The entries of environ that are the same for all requests.
fn template<'p>(
    py: Attached<'p>,
    settings: &Settings,
    group: &[u8],
    file_wrapper: &Object<'p>,
) -> Result<Object<'p>, Raised> {
    let template = py.dict()?;
    let set = |key, value: Object<'p>| template.dict_set(&py.name(key)?, &value);
    set("wsgi.version", py.tuple(&[&py.int(1)?, &py.int(0)?])?)?;
    set("wsgi.url_scheme", py.name("http")?)?;
    set("wsgi.multithread", py.boolean(settings.multithread)?)?;
    set("wsgi.multiprocess", py.boolean(settings.multiprocess)?)?;
    set("wsgi.run_once", py.boolean(settings.run_once)?)?;
    set("wsgi.input_terminated", py.boolean(true)?)?;
    set("wsgi.file_wrapper", file_wrapper.clone())?;
    set("mod_wsgi.version", numbers(py, VERSION)?)?;
    set("apache.version", numbers(py, settings.apache_version.map(i64::from))?)?;
    set("mod_wsgi.process_group", py.latin1(&settings.process_group)?)?;
    set("mod_wsgi.application_group", py.latin1(group)?)?;
    Ok(template)
}
