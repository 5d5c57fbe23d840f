//! What the Python part of `mod_wsgi` calls, and the module `apache`.
#![forbid(unsafe_code)]

use crate::exchange;
use crate::interpreter::execute;
use crate::log::{self, single};
use crate::raw::{
    Apache, Args, Attached, Builtin, Class, ClassOf, Method, Object, Raised, Source, This,
};

/// What makes the class `LogHandler`.
static LOG_HANDLER: &str = include_str!("log_handler.py");

/// The object whose methods they are.
pub struct Module;

impl Class for Module {
    const NAME: &'static core::ffi::CStr = c"mod_wsgi.Module";
    const METHODS: &'static [Method<Self>] =
        &[Method::new(c"say", say), Method::new(c"log_handler", log_handler), Method::END];
}

/// See [`would_log`].
static WOULD_LOG: Method<Module> = Method::new(c"would_log", would_log);

/// See [`log_from`].
static LOG_FROM: Method<Module> = Method::new(c"log_from", log_from);

/// `mod_wsgi.request_data()`
static REQUEST_DATA: Method<Module> = Method::new(c"request_data", request_data);

/// Gives `module` what is written here; gives the object `events.py` speaks through.
pub fn set_up<'p>(py: Attached<'p>, module: &Object<'p>) -> Result<Object<'p>, Raised> {
    let class = ClassOf::<Module>::new(py)?;
    let own = class.instance(py, Module)?;
    module.set_attr(c"request_data", &class.bind(&own, &REQUEST_DATA)?)?;
    Ok(own.into_object())
}

/// See [`REQUEST_DATA`].
fn request_data<'p>(_: This<'_, 'p, Module>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let py = args.py();
    if args.len() > 0 {
        let message = format!("request_data() takes no arguments ({} given)", args.len());
        return Err(py.raise(Builtin::TypeError, &message));
    }
    match exchange::current() {
        Some(exchange) => exchange.data(py),
        None => Err(py.raise(Builtin::RuntimeError, "no active request for thread")),
    }
}

/// `say(level, text)`: to the log, a record a line.
fn say<'p>(_: This<'_, 'p, Module>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let (py, level) = (args.py(), level(args)?);
    let text = args.get(1).map_or_else(|| Ok(String::new()), |text| text.encoded())?;
    let lines = text.split('\n').filter(|line| !line.is_empty());
    log::current(|sink| lines.for_each(|line| sink.line(py, level, line)));
    Ok(py.none())
}

/// `would_log(level)`: whether a line of this level would be written.
fn would_log<'p>(_: This<'_, 'p, Module>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let (py, level) = (args.py(), level(args)?);
    single(args, "would_log")?;
    py.boolean(log::current(|sink| sink.takes(py, level)))
}

/// `log_from(level, text, file, line)`: to the log, a record a line.
fn log_from<'p>(_: This<'_, 'p, Module>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let (py, level) = (args.py(), level(args)?);
    let (Some(text), Some(file), Some(line), 4) =
        (args.get(1), args.get(2), args.get(3), args.len())
    else {
        return Err(py.raise(Builtin::TypeError, "log_from() takes 4 arguments"));
    };
    // Whoever makes a record may put anything into it.
    let line = line.exact_i64().and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
    let (text, file) = (text.to_text()?, file.to_text()?);
    let source = Source { file: &file, line };
    let lines = text.split('\n').filter(|line| !line.is_empty());
    log::current(|sink| lines.for_each(|line| sink.line_from(py, level, line, source)));
    Ok(py.none())
}

/// `log_handler()`: a class `LogHandler`.
fn log_handler<'p>(module: This<'_, 'p, Module>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let py = args.py();
    let place = py.new_module(c"mod_wsgi")?;
    place.set_attr(c"would_log", &module.bind(&WOULD_LOG)?)?;
    place.set_attr(c"log_from", &module.bind(&LOG_FROM)?)?;
    let compile = py.import(c"builtins")?.attr(c"compile")?;
    let names = place.attr(c"__dict__")?;
    execute(py, &compile, LOG_HANDLER, c"mod_wsgi.LogHandler", &names)?;
    place.attr(c"LogHandler")
}

/// The first argument, a level.
fn level(args: Args<'_, '_>) -> Result<u32, Raised> {
    let level = args.get(0).and_then(|level| level.exact_i64());
    let level = level.and_then(|level| u32::try_from(level).ok());
    level.ok_or_else(|| args.py().raise(Builtin::TypeError, "the first argument is a level"))
}

/// Sets the attributes of the module `apache`.
pub fn fill_apache<'p>(
    module: &Object<'p>,
    version: &Object<'p>,
    apache: &Apache,
) -> Result<(), Raised> {
    let py = module.py();
    module.set_attr(c"version", version)?;
    module.set_attr(c"maximum_processes", &py.int(apache.maximum_processes.into())?)?;
    module.set_attr(c"threads_per_process", &py.int(apache.threads_per_process.into())?)?;
    module.set_attr(c"description", &py.latin1(&apache.description)?)?;
    module.set_attr(c"mpm_name", &py.latin1(&apache.mpm_name)?)?;
    module.set_attr(c"build_date", &py.latin1(&apache.build_date)?)
}
