//! Python's garbage collector, for telemetry: its counters in each interpreter, and
//! its passes.
#![forbid(unsafe_code)]

use crate::metrics::{lock, now};
use crate::raw::{Args, Attached, Class, ClassOf, Kept, Method, Object, Raised, This, system};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use wsgi_wire::datagram::{Datagram, field};

/// Passes kept until the next report: of a process that collects more often, the
/// latest.
const MOST_PASSES: usize = 256;

/// How many counters are told.
const COUNTERS: usize = 17;

/// One interpreter.
#[derive(Debug)]
pub struct Source {
    /// Its application group; the main interpreter's is empty.
    name: Vec<u8>,
    /// Passes that were forgotten before they were told.
    lost: AtomicU64,
}

/// A pass.
#[derive(Debug)]
pub struct Pass {
    source: Arc<Source>,
    /// When it began: µs since the epoch.
    begun: u64,
    /// µs.
    took: u64,
    generation: u64,
    collected: u64,
    uncollectable: u64,
}

impl Pass {
    /// Tells of it.
    pub fn describe(&self, to: &mut Datagram) {
        to.text(field::INTERPRETER_NAME, &self.source.name)
            .micros(field::COLLECTION_START_STAMP, self.begun)
            .micros(field::COLLECTION_DURATION, self.took)
            .count(field::COLLECTION_GENERATION, self.generation)
            .count(field::COLLECTION_COLLECTED, self.collected)
            .count(field::COLLECTION_UNCOLLECTABLE, self.uncollectable);
    }
}

/// The passes nobody was told of yet, of all interpreters.
#[derive(Debug, Default)]
pub struct Passes(Mutex<VecDeque<Pass>>);

impl Passes {
    /// Adds one; the oldest has to go if there is no room.
    fn add(&self, pass: Pass) {
        let Some(mut passes) = lock(&self.0) else { return };
        if passes.len() >= MOST_PASSES
            && let Some(oldest) = passes.pop_front()
        {
            oldest.source.lost.fetch_add(1, Ordering::Relaxed);
        }
        passes.push_back(pass);
    }

    /// Takes out the oldest, at most so many.
    pub fn take(&self, most: usize) -> Vec<Pass> {
        let Some(mut passes) = lock(&self.0) else { return Vec::new() };
        let count = passes.len().min(most);
        passes.drain(..count).collect()
    }
}

/// What `gc.callbacks` calls.
struct Callback {
    source: Arc<Source>,
    passes: &'static Passes,
    /// When the pass that runs began: µs since the epoch, and for its length.
    begun: Mutex<Option<(u64, Instant)>>,
}

impl Class for Callback {
    const NAME: &'static core::ffi::CStr = c"mod_wsgi.Collections";
    const METHODS: &'static [Method<Self>] = &[Method::END];
}

/// `note(phase, info)`
///
/// Not in Python: an interruption meant for the request would be swallowed there.
static NOTE: Method<Callback> = Method::new(c"note", note);

/// See [`NOTE`].
fn note<'p>(this: This<'_, 'p, Callback>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let py = args.py();
    let (Some(phase), Some(info), false) = (args.get(0), args.get(1), system::is_forked()) else {
        return Ok(py.none());
    };
    let Some(mut begun) = lock(&this.begun) else { return Ok(py.none()) };
    if phase.as_utf8()? == "start" {
        *begun = Some((now(), Instant::now()));
        return Ok(py.none());
    }
    let Some((at, since)) = begun.take() else { return Ok(py.none()) };
    drop(begun);
    let took = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    let number = |key| counter(&info, key);
    this.passes.add(Pass {
        source: Arc::clone(&this.source),
        begun: at,
        took,
        generation: number("generation")?,
        collected: number("collected")?,
        uncollectable: number("uncollectable")?,
    });
    Ok(py.none())
}

/// A number of a dict; 0 if it is not there.
fn counter(dict: &Object<'_>, key: &str) -> Result<u64, Raised> {
    match dict.dict_get(&dict.py().name(key)?) {
        Some(number) => Ok(u64::try_from(number.to_i64()?).unwrap_or(0)),
        None => Ok(0),
    }
}

/// The garbage collector of one interpreter.
#[derive(Debug)]
pub struct Collector {
    gc: Kept,
    sys: Kept,
    source: Arc<Source>,
}

impl Collector {
    /// That of the interpreter `py` is attached to, of application group `name`; its
    /// passes go to `passes`.
    pub fn watch(py: Attached<'_>, name: &[u8], passes: &'static Passes) -> Result<Self, Raised> {
        let gc = py.import(c"gc")?;
        let source = Arc::new(Source { name: name.to_vec(), lost: AtomicU64::new(0) });
        let class = ClassOf::new(py)?;
        let callback = Callback { source: Arc::clone(&source), passes, begun: Mutex::default() };
        let callback = class.instance(py, callback)?;
        gc.attr(c"callbacks")?.list_append(&class.bind(&callback, &NOTE)?)?;
        Ok(Self { gc: gc.keep(), sys: py.import(c"sys")?.keep(), source })
    }

    /// Its counters at this moment.
    pub fn count(&self, py: Attached<'_>) -> Result<Counters, Raised> {
        let gc = self.gc.lend(py);
        let mut counters = Vec::with_capacity(COUNTERS);
        for name in [c"get_count", c"get_threshold"] {
            let tuple = gc.attr(name)?.call(&[])?;
            for at in 0..3 {
                let number = tuple.tuple_item(at).map_or(Ok(0), |number| number.to_i64())?;
                counters.push(u64::try_from(number).unwrap_or(0));
            }
        }
        let stats = gc.attr(c"get_stats")?.call(&[])?;
        for key in ["collections", "collected", "uncollectable"] {
            for generation in 0..3 {
                let dict = stats.list_item(generation);
                counters.push(dict.map_or(Ok(0), |dict| counter(&dict, key))?);
            }
        }
        for name in [c"isenabled", c"get_freeze_count"] {
            let number = gc.attr(name)?.call(&[])?.to_i64()?;
            counters.push(u64::try_from(number).unwrap_or(0));
        }
        Ok(Counters { source: Arc::clone(&self.source), counters })
    }

    /// `sys.getswitchinterval()`
    pub fn switch_interval(&self, py: Attached<'_>) -> Result<f64, Raised> {
        self.sys.lend(py).attr(c"getswitchinterval")?.call(&[])?.to_f64()
    }
}

/// The counters of a garbage collector at some moment.
#[derive(Debug)]
pub struct Counters {
    source: Arc<Source>,
    counters: Vec<u64>,
}

impl Counters {
    /// Tells them.
    pub fn describe(&self, to: &mut Datagram) {
        to.text(field::INTERPRETER_NAME, &self.source.name);
        let lost = self.source.lost.load(Ordering::Relaxed);
        for (number, counter) in (field::COLLECTOR..).zip(self.counters.iter().chain([&lost])) {
            to.count(number, *counter);
        }
    }
}
