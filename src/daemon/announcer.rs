//! The thread that tells subscribers in Python of signals and of the end of the
//! process: what they do may take its time, or never end.
#![forbid(unsafe_code)]

use crate::host::Runtime;
use crate::scoreboard::Reason;
use nix::sys::signal::Signal;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// So many signals wait to be told of; more are dropped: somebody sends them faster
/// than subscribers can take them.
const MOST_SIGNALS: usize = 100;

/// What subscribers are told.
enum News {
    /// The process got this signal.
    Signal(Signal),
    /// The process is about to end.
    Stopping(Reason),
}

/// What is called when the thread has told everything.
type Notify = Arc<dyn Fn() + Send + Sync>;

/// The thread, from the first news on.
pub struct Announcer {
    runtime: Runtime,
    notify: Notify,
    thread: Option<(Sender<News>, JoinHandle<()>)>,
    /// How many signals wait.
    waiting: Arc<AtomicUsize>,
    /// Why the process is about to end.
    why: Option<Reason>,
    /// Whether nothing is to be told any more.
    is_over: bool,
    /// Whether everything was told.
    is_done: Arc<AtomicBool>,
}

impl Announcer {
    /// No thread yet; `notify` is called once the end has been told.
    pub fn new(runtime: Runtime, notify: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            runtime,
            notify: Arc::new(notify),
            thread: None,
            waiting: Arc::default(),
            why: None,
            is_over: false,
            is_done: Arc::default(),
        }
    }

    /// Notes why the process will end; the first reason counts.
    pub fn note(&mut self, why: Reason) {
        self.why.get_or_insert(why);
    }

    /// Has subscribers told of a signal; false if too many wait.
    pub fn signal(&mut self, signal: Signal) -> io::Result<bool> {
        if self.waiting.load(Ordering::Relaxed) >= MOST_SIGNALS {
            return Ok(false);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let told = self.tell(News::Signal(signal));
        if told.is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        told.map(|()| true)
    }

    /// Has subscribers told that the process is about to end: nothing is told after.
    /// For the main thread, which tells it itself where there is no memory for another.
    pub fn stop(&mut self) {
        let why = self.why.unwrap_or(Reason::ShutdownSignal);
        if !self.is_over && self.tell(News::Stopping(why)).is_err() {
            self.runtime.stopping(why.name());
        }
        self.is_over = true;
    }

    /// Passes news to the thread, which is started for the first.
    fn tell(&mut self, news: News) -> io::Result<()> {
        if self.is_over {
            return Ok(());
        }
        if self.thread.is_none() {
            self.thread = Some(self.start()?);
        }
        if let Some((sender, _)) = &self.thread {
            // It ends after the last news only.
            let _ = sender.send(news);
        }
        Ok(())
    }

    /// Whether nothing is being told any more, after [`Self::stop`].
    pub fn is_done(&self) -> bool {
        self.thread.is_none() || self.is_done.load(Ordering::SeqCst)
    }

    /// The thread, to be joined after [`Self::stop`]: it must not be in Python when that
    /// ends.
    pub fn take_thread(&mut self) -> Option<JoinHandle<()>> {
        self.thread.take().map(|(_, thread)| thread)
    }

    /// Starts the thread.
    fn start(&self) -> io::Result<(Sender<News>, JoinHandle<()>)> {
        let (sender, news) = channel();
        let (runtime, waiting) = (self.runtime, Arc::clone(&self.waiting));
        let (is_done, notify) = (Arc::clone(&self.is_done), Arc::clone(&self.notify));
        let thread = std::thread::Builder::new().name("wsgi-events".to_owned());
        let body = move || {
            announce(runtime, &news, &waiting);
            is_done.store(true, Ordering::SeqCst);
            notify();
        };
        Ok((sender, thread.spawn(body)?))
    }
}

/// Tells everything up to the end.
fn announce(runtime: Runtime, news: &Receiver<News>, waiting: &AtomicUsize) {
    for news in news {
        match news {
            News::Signal(signal) => {
                waiting.fetch_sub(1, Ordering::Relaxed);
                runtime.signal(signal as i32);
            }
            News::Stopping(why) => return runtime.stopping(why.name()),
        }
    }
}
