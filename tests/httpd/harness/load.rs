//! Steady traffic from several clients, until the test says stop.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::{Connection, Cut, Request, Response};
use super::server::Httpd;
use super::wait_until;

/// How one request of a load ended.
#[derive(Debug)]
pub struct Answer {
    /// What was asked for.
    pub target: String,
    /// What came back.
    pub result: Result<Response, Cut>,
    /// How long it took.
    pub took: Duration,
}

impl Answer {
    /// The status, 0 for an answer that did not come whole.
    pub fn status(&self) -> u16 {
        self.result.as_ref().map_or(0, |response| response.status)
    }
}

/// Clients that send one request after the other, each on a connection of its own.
pub struct Load {
    /// Set when they are to stop.
    stop: Arc<AtomicBool>,
    /// What they got so far.
    answers: Arc<Mutex<Vec<Answer>>>,
    /// The clients.
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `clients` clients that ask for `target` over and over, `#` in it being a number
    /// that no other request has.
    pub fn start(httpd: &Httpd, clients: usize, target: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let numbers = Arc::new(AtomicUsize::new(0));
        let clients = (0..clients).map(|_| {
            let (stop, answers, numbers) = (stop.clone(), answers.clone(), numbers.clone());
            let (port, target) = (httpd.port(), target.to_owned());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed).to_string();
                    let answer = ask(port, target.replace('#', &number));
                    answers.lock().unwrap().push(answer);
                }
            })
        });
        Self { clients: clients.collect(), stop, answers }
    }

    /// Waits until this many different texts were answers.
    #[track_caller]
    pub fn wait_for_texts(&self, count: usize) {
        wait_until(format!("{count} different answers"), || {
            (texts(&self.answers.lock().unwrap()).len() >= count).then_some(())
        });
    }

    /// How many answers there are.
    pub fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// Waits until there are `more` answers than now.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        let goal = self.count() + more;
        wait_until(format!("{goal} answers"), || (self.count() >= goal).then_some(()));
    }

    /// Lets every client finish its request, and gives all answers.
    pub fn stop(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        std::mem::take(&mut self.answers.lock().unwrap())
    }
}

/// The different texts of whole answers.
pub fn texts(answers: &[Answer]) -> BTreeSet<String> {
    answers.iter().filter_map(|answer| Some(answer.result.as_ref().ok()?.text())).collect()
}

/// Every answer came, and within `limit`.
#[track_caller]
pub fn expect_served(answers: &[Answer], limit: Duration) {
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status() != 200).collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), answers.len(), failed[0]);
    let slowest = answers.iter().max_by_key(|answer| answer.took).expect("there are answers");
    assert!(slowest.took < limit, "one of {} took {:?}", answers.len(), slowest.took);
}

/// Sends one request and measures it.
fn ask(port: u16, target: String) -> Answer {
    let request = Request::get(&target);
    let start = Instant::now();
    let result = std::net::TcpStream::connect(("127.0.0.1", port))
        .map_err(Cut::connecting)
        .and_then(|stream| Connection::new(stream).exchange(&request));
    Answer { target, result, took: start.elapsed() }
}
