//! The thread that proves, for the supervisor to see, that Python's lock is to be
//! had, and that does what cannot be done without it.
#![forbid(unsafe_code)]

use super::log::ProcessLog;
use super::sys;
use crate::host::Runtime;
use crate::scoreboard::Scoreboard;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bounds of the time between two beats: more often wakes an idle machine for
/// nothing, more seldom makes a short deadlock-timeout a matter of luck.
const MOST_OFTEN: Duration = Duration::from_millis(250);
const LEAST_OFTEN: Duration = Duration::from_secs(5);

/// How many beats fit into a deadlock-timeout.
const BEATS: u32 = 10;

/// How long Python's lock is waited for when stacks are to be shown.
const FOR_STACKS: Duration = Duration::from_millis(500);

/// What the thread is asked to do.
enum Order {
    /// Interrupt the thread that runs this request.
    Interrupt(u64),
    /// Log the stacks, then say so.
    Stacks(Sender<()>),
}

/// The thread.
pub struct Heartbeat {
    /// None once it is to end.
    orders: Mutex<Option<Sender<Order>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread works with.
struct Heart {
    runtime: Runtime,
    board: Arc<Scoreboard>,
    slot: u32,
    /// Time between two beats; none: nobody looks for them.
    pause: Option<Duration>,
    orders: Receiver<Order>,
    log: &'static ProcessLog,
}

impl Heartbeat {
    /// Starts it, for the process in `slot` and its deadlock-timeout.
    pub fn start(
        runtime: Runtime,
        (board, slot): (Arc<Scoreboard>, u32),
        deadlock: Option<Duration>,
        log: &'static ProcessLog,
    ) -> io::Result<Self> {
        let (send, orders) = channel();
        let pause = deadlock.map(|timeout| (timeout / BEATS).clamp(MOST_OFTEN, LEAST_OFTEN));
        let heart = Heart { runtime, board, slot, pause, orders, log };
        let thread = std::thread::Builder::new()
            .name("wsgi-heartbeat".to_owned())
            .spawn(move || heart.beat())?;
        Ok(Self { orders: Mutex::new(Some(send)), thread: Mutex::new(Some(thread)) })
    }

    /// Has the thread that runs `request` interrupted.
    pub fn interrupt(&self, request: u64) {
        self.order(Order::Interrupt(request));
    }

    /// Has the stacks logged without waiting for that.
    pub fn log_stacks(&self) {
        let (done, _) = channel();
        self.order(Order::Stacks(done));
    }

    /// Logs the stacks; where Python's lock is not to be had, has them written past
    /// it, as far as that goes.
    pub fn log_stacks_now(&self) {
        let (done, finished) = channel();
        if !self.order(Order::Stacks(done)) || finished.recv_timeout(FOR_STACKS).is_err() {
            sys::show_stacks();
        }
    }

    /// Passes an order on; false if the thread has ended, as then the process will.
    fn order(&self, order: Order) -> bool {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.as_ref().is_some_and(|orders| orders.send(order).is_ok())
    }

    /// Ends the thread, once it is not waiting for Python's lock any more.
    pub fn end(&self) {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Heart {
    fn beat(&self) {
        loop {
            if self.pause.is_some() {
                self.runtime.beat();
                if let Some(slot) = self.board.slot(self.slot) {
                    slot.set_beat(sys::monotonic_micros());
                }
            }
            match self.next_order() {
                Ok(Order::Interrupt(request)) => {
                    if !self.runtime.interrupt(request) {
                        self.log.info("The request to be interrupted has ended");
                    }
                }
                Ok(Order::Stacks(done)) => {
                    self.runtime.stacks();
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // The end of Python may take its time without being a deadlock.
                    if let Some(slot) = self.board.slot(self.slot) {
                        slot.set_beat(0);
                    }
                    return;
                }
            }
        }
    }

    fn next_order(&self) -> Result<Order, RecvTimeoutError> {
        match self.pause {
            Some(pause) => self.orders.recv_timeout(pause),
            None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }
}
