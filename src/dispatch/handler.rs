//! The content handler: from a request that is ours to its answer.
#![forbid(unsafe_code)]

use super::answer::{HttpdClient, Manners, log};
use super::child;
use super::client::BadHead;
use super::dispatch_script;
use super::embedded::HttpdExchange;
use super::environ::{self, Choice};
use super::group::{Group, Refused, Ticket};
use super::prepared::{Body, Prepared};
use super::proxies::Trust;
use super::report::Subject;
use super::resolve::{self, Body as Announced, Place, Refusal, Target};
use super::transfer::{self, Ending, Fault};
use super::upload;
use crate::config::DirConfig;
use crate::config::root::Root;
use crate::daemon::sys;
use crate::host::Outcome as Ran;
use crate::httpd::Request;
use crate::httpd::hook::{Handler, Outcome};
use crate::httpd::request::Target as Kind;
use crate::startup::Site;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wsgi_wire::frame::{BodyFault, Refusal as NotRun};
use wsgi_wire::vtable::level;

/// Pause between attempts once each process has had the request more than once:
/// one that refuses everything must not keep httpd's threads busy.
const PAUSE: Duration = Duration::from_millis(50);

/// Attempts with a pause: a minute's worth, if no `connect-timeout` is shorter.
const MOST_ATTEMPTS: usize = 1200;

/// What a client is told to wait before it tries again, in seconds.
const RETRY_AFTER: &[u8] = b"1";

/// Counts the requests of this child process.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// An id no other request in flight on this server has.
pub(super) fn next_id() -> u64 {
    (u64::from(child::pid()) << 32) | (COUNT.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff)
}

/// Answers requests for scripts.
pub struct Dispatch;

impl Handler for Dispatch {
    fn handle(request: &Request) -> Outcome {
        let Some(name) = request.handler() else { return Outcome::Declined };
        let Some(dir) = request.config() else { return Outcome::Declined };
        let Some(handled) = resolve::handled(name, dir) else { return Outcome::Declined };
        let Some(site) = site(request) else { return Outcome::Declined };
        let announced = match resolve::admit(request, dir, handled) {
            Ok(announced) => announced,
            Err(refusal) => return refuse(request, &refusal),
        };
        let mut target = resolve::resolve(request, dir, handled);
        if let Some(dispatcher) = &dir.dispatch_script {
            let choice = choice(request, dir, &target, announced, next_id());
            let Some(chosen) = dispatch_script::ask(request, site, dispatcher, choice) else {
                return Outcome::Status(500);
            };
            dispatch_script::apply(chosen, &mut target, request);
        }
        match site.place(request, dir, &target.process_group) {
            Ok(Place::Embedded) => run_embedded(request, dir, site, &target, announced),
            Ok(Place::Daemon(index)) => match site.groups.get(index) {
                Some(group) => match check_owner(request, &target, group) {
                    Ok(()) => InDaemon { request, dir, group, target: &target, id: next_id() }
                        .run(announced),
                    Err(refusal) => refuse(request, &refusal),
                },
                None => refuse(request, &Refusal::UnknownGroup(text(&target.process_group))),
            },
            Err(refusal) => refuse(request, &refusal),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the configuration became.
pub(super) fn site(request: &Request) -> Option<&Site> {
    Some(request.server().config()?.site.get()?)
}

/// The script that is run.
fn script<'a>(request: &'a Request, target: &Target<'a>) -> &'a [u8] {
    match target.handler_script {
        b"" => request.filename().unwrap_or_default(),
        script => script,
    }
}

/// Says why the request is not run, once, and ends it.
fn refuse(request: &Request, refusal: &Refusal) -> Outcome {
    match refusal.code() {
        Some(code) => log(request, level::ERROR, &format!("{code}: {refusal}")),
        None => log(request, level::INFO, &refusal.to_string()),
    }
    Outcome::Status(refusal.status())
}

/// Whether the script belongs to whom the group wants.
fn check_owner(request: &Request, target: &Target<'_>, group: &Group) -> Result<(), Refusal> {
    let Some(owner) = &group.owner else { return Ok(()) };
    let script = script(request, target);
    // A handler script may have the name it has below the group's root.
    let is_inside =
        |root: &&Root| !target.handler_script.is_empty() && root.inside(script).is_none();
    let found = group.root.as_ref().filter(is_inside).map(|root| root.outside(script));
    let script = found.as_deref().unwrap_or(script);
    Ok(owner.check(Path::new(OsStr::from_bytes(script)))?)
}

/// When the script was changed, as far as httpd has looked; 0: it has not.
fn script_mtime(request: &Request, target: &Target<'_>) -> u64 {
    let file = request.file();
    let is_it = target.handler_script.is_empty() && file.target == Kind::File;
    if is_it { u64::try_from(file.changed).unwrap_or(0) } else { 0 }
}

/// What the environ is made from.
fn choice<'a>(
    request: &'a Request,
    dir: &'a DirConfig,
    target: &'a Target<'a>,
    body: Announced,
    id: u64,
) -> Choice<'a> {
    Choice {
        id,
        queue_start: 0,
        script: script(request, target),
        script_mtime: script_mtime(request, target),
        body,
        process_group: &target.process_group,
        application_group: &target.application_group,
        callable: &target.callable,
        handler_script: target.handler_script,
        root: None,
        pass_authorization: target.pass_authorization,
        trust: dir
            .trusted_headers()
            .map(|headers| Trust { headers, proxies: dir.trusted_proxies.as_ref() }),
        map_head: dir.map_head_to_get(),
        reloading: dir.script_reloading(),
        ignore_activity: dir.ignore_activity(),
        apache_request: false,
    }
}

/// Runs the application in this process.
fn run_embedded(
    request: &Request,
    dir: &DirConfig,
    site: &Site,
    target: &Target<'_>,
    announced: Announced,
) -> Outcome {
    let runtime = match site.embedded.runtime() {
        Ok(runtime) => runtime,
        Err(reason) => {
            log(request, level::ERROR, &format!("WSGI0210: no Python in this process: {reason}"));
            return Outcome::Status(500);
        }
    };
    let mut head = Vec::with_capacity(4 * 1024);
    let choice = Choice {
        apache_request: dir.pass_apache_request(),
        ..choice(request, dir, target, announced, next_id())
    };
    environ::encode(request, &choice, &mut head);
    let manners = Manners {
        sendfile: dir.enable_sendfile(),
        pass_authorization: target.pass_authorization,
        ..Manners::default()
    };
    let mut client = HttpdClient::new(request, manners);
    let mut exchange = HttpdExchange::new(&mut client);
    let outcome = site.embedded.handle(runtime, &mut exchange, &head);
    let committed = exchange.committed;
    match outcome {
        Ran::Done => client.finish(),
        Ran::Failed(status) if !committed => Outcome::Status(status),
        // Nothing has left this process: the client can have a proper answer.
        Ran::Cut | Ran::CutNoMemory | Ran::NoMemory | Ran::Stale if !committed => {
            Outcome::Status(500)
        }
        Ran::Gone => {
            client.lose("");
            Outcome::Ok
        }
        _ => {
            client.cut();
            Outcome::Ok
        }
    }
}

/// A request on its way to a daemon process.
struct InDaemon<'r> {
    request: &'r Request,
    dir: &'r DirConfig,
    group: &'r Group,
    target: &'r Target<'r>,
    id: u64,
}

/// What one attempt led to.
enum Attempt {
    /// The request has its answer, or its status.
    Over(Outcome),
    /// It was certainly not run: another process may.
    Again {
        /// Whether this one was being replaced.
        stale: bool,
    },
}

impl InDaemon<'_> {
    fn run(&self, announced: Announced) -> Outcome {
        let manners = Manners {
            redirects: true,
            error_override: self.dir.error_override(),
            sendfile: self.dir.enable_sendfile(),
            pass_authorization: self.target.pass_authorization,
            longest_header: Some(self.group.limits.longest_header),
            timeout: self.group.limits.client,
        };
        let mut client = HttpdClient::new(self.request, manners);
        let body = match self.body(announced, &mut client) {
            Ok(body) => body,
            Err(fault) => return self.bad_body(fault),
        };
        let asked = self.asked(&body);
        let mut prepared = match self.prepare(body, announced) {
            Ok(prepared) => prepared,
            Err(outcome) => return outcome,
        };
        // A process that dies or is replaced hands its requests to the next; a
        // few more rounds than processes means that something is badly wrong.
        // Changed scripts may do that more often, each time after a new start.
        let mut patience = None;
        let in_a_row = 2 * self.group.slots();
        let mut restarts = 0;
        for attempt in 0..in_a_row + MOST_ATTEMPTS {
            if attempt > in_a_row {
                if patience.is_some_and(|patience: Instant| patience <= Instant::now()) {
                    break;
                }
                let _ = sys::poll(&mut [], Some(PAUSE));
            }
            prepared.count(u16::try_from(attempt + 1).unwrap_or(u16::MAX), restarts);
            match self.attempt(&mut prepared, asked, client) {
                (Attempt::Over(outcome), _) => return outcome,
                (Attempt::Again { stale }, Some(back)) => {
                    restarts = restarts.saturating_add(stale.into());
                    patience =
                        patience.or_else(|| Instant::now().checked_add(self.group.limits.connect));
                    client = back;
                }
                (Attempt::Again { .. }, None) => break,
            }
        }
        self.log(
            level::ERROR,
            "WSGI0124: no daemon process kept the request long enough to run it",
        );
        Outcome::Status(503)
    }

    /// What is sent to a daemon process, as often as one is asked.
    fn prepare(&self, body: Body, announced: Announced) -> Result<Prepared, Outcome> {
        let script = script(self.request, self.target);
        let root = self.group.root.as_ref();
        // Nothing but the daemon process looks at a handler script, so it may also have
        // the name it has there, as WSGIImportScript wants it.
        let is_named = !self.target.handler_script.is_empty();
        let inside = |root: &Root| root.inside(script).or(is_named.then_some(script));
        let Some(script) = root.map_or(Some(script), inside) else {
            let script = text(script);
            self.log(level::ERROR, &format!("WSGI0081: script '{script}' lies outside of chroot="));
            return Err(Outcome::Status(502));
        };
        let prepared = Prepared::new(body, |to| {
            let own = choice(self.request, self.dir, self.target, announced, self.id);
            let choice = Choice {
                queue_start: sys::now_micros(),
                script,
                // Below another root the name may be another file's.
                script_mtime: if root.is_none() { own.script_mtime } else { 0 },
                root,
                ..own
            };
            environ::encode(self.request, &choice, to);
        });
        if prepared.is_too_long() {
            self.log(level::ERROR, "WSGI0121: the request's environ is larger than 16 MiB");
            return Err(Outcome::Status(500));
        }
        Ok(prepared)
    }

    fn log(&self, level: u32, message: &str) {
        log(self.request, level, &format!("{message}{}", self.tail()));
    }

    /// What each of our lines about the request ends with.
    fn tail(&self) -> String {
        format!(" [group '{}']", self.group.name())
    }

    fn body(&self, announced: Announced, client: &mut HttpdClient<'_>) -> Result<Body, BodyFault> {
        match announced {
            Announced::Empty | Announced::Length(0) => Ok(Body::None),
            Announced::Length(length)
                if length <= upload::LONGEST && !self.request.expects_continue() =>
            {
                upload::receive(client, length)
            }
            _ => Ok(Body::OnDemand),
        }
    }

    /// The client failed to send its body.
    fn bad_body(&self, fault: BodyFault) -> Outcome {
        let (status, what) = match fault {
            BodyFault::TimedOut => (408, "the client did not send the request body in time"),
            BodyFault::Gone => (400, "the client closed the connection within the request body"),
            BodyFault::Malformed => (400, "the request body is malformed"),
        };
        self.log(level::INFO, what);
        Outcome::Status(status)
    }

    fn attempt<'c>(
        &self,
        prepared: &mut Prepared,
        asked: u64,
        mut client: HttpdClient<'c>,
    ) -> (Attempt, Option<HttpdClient<'c>>) {
        let ticket = match self.admit(asked) {
            Ok(ticket) => ticket,
            Err(outcome) => return (Attempt::Over(outcome), None),
        };
        let connection = match self.group.connect(ticket) {
            Ok(connection) => connection,
            Err(cause) => {
                self.group.give_back(ticket);
                if !self.group.is_there(ticket) {
                    return (Attempt::Again { stale: false }, Some(client));
                }
                self.log(
                    level::ERROR,
                    &format!("WSGI0117: cannot reach a daemon process: {cause}"),
                );
                return (Attempt::Over(Outcome::Status(503)), None);
            }
        };
        match transfer::exchange(self.group, ticket, connection, prepared, &mut client) {
            Ending::Complete => (Attempt::Over(client.finish()), None),
            Ending::Refused(why @ (NotRun::Stale | NotRun::Generation)) => {
                (Attempt::Again { stale: why == NotRun::Stale }, Some(client))
            }
            Ending::Failed(status) => (Attempt::Over(Outcome::Status(status)), None),
            Ending::Cut => {
                client.cut();
                (Attempt::Over(Outcome::Ok), None)
            }
            Ending::ClientGone => {
                client.lose(&self.tail());
                (Attempt::Over(Outcome::Ok), None)
            }
            Ending::Broken { cause, begun: true, .. } => {
                self.report("WSGI0119: response cut off", &self.why(&cause, ticket));
                client.cut();
                (Attempt::Over(Outcome::Ok), None)
            }
            Ending::Broken { cause, answered, .. } => {
                // A process that only fell silent may yet begin what it was sent.
                let started = answered
                    || matches!(cause, Fault::Silent(_))
                    || self
                        .group
                        .slot(ticket)
                        .is_some_and(|slot| slot.may_have_begun(self.id, ticket.generation));
                if started {
                    return (Attempt::Over(self.lost(&cause, ticket)), None);
                }
                self.group.give_back(ticket);
                (Attempt::Again { stale: false }, Some(client))
            }
        }
    }

    /// Since when the request asks for a thread, in microseconds: since it was read,
    /// with as much of its body as comes first.
    fn asked(&self, body: &Body) -> u64 {
        match body {
            Body::None | Body::OnDemand => self.request.request_time(),
            Body::Whole(_) | Body::Received(_) => sys::now_micros(),
        }
    }

    /// Takes a ticket; `asked` is since when it waits, however often it is tried.
    fn admit(&self, asked: u64) -> Result<Ticket, Outcome> {
        let deadline = self.group.limits.queue.map(|limit| {
            let waited = sys::now_micros().saturating_sub(asked);
            Instant::now() + limit.saturating_sub(Duration::from_micros(waited))
        });
        let is_abandoned = || self.request.is_abandoned();
        self.group.admit(deadline, is_abandoned).map_err(|refused| {
            let (status, message) = match refused {
                Refused::Full => {
                    (503, "WSGI9501: the queue for a daemon thread is full (listen-backlog)")
                }
                Refused::QueueTimeout => {
                    (504, "WSGI0084: no daemon thread became free in time (queue-timeout)")
                }
                Refused::Abandoned => return Outcome::Ok,
                Refused::Unreachable => {
                    (503, "WSGI0116: no daemon process takes requests (connect-timeout)")
                }
            };
            if status == 503 {
                self.request.error_headers_out().set(b"Retry-After", RETRY_AFTER);
            }
            self.log(level::ERROR, message);
            Outcome::Status(status)
        })
    }

    /// A request that was started and has no answer.
    fn lost(&self, cause: &Fault, ticket: Ticket) -> Outcome {
        let (status, what) = match cause {
            Fault::Silent(_) => (504, "WSGI0145: no response"),
            Fault::Head(BadHead::TooLong { .. }) => (500, "WSGI0144: response refused"),
            Fault::Head(BadHead::Malformed) => (500, "WSGI0148: response refused"),
            _ => (502, "WSGI0146: request lost"),
        };
        let why = match cause {
            Fault::Silent(_) => format!("{cause} (socket-timeout); it goes on"),
            Fault::Head(_) => format!("{cause}; the daemon process goes on"),
            _ => self.why(cause, ticket),
        };
        self.report(what, &why);
        Outcome::Status(status)
    }

    /// What the supervisor knows about the process, or else what we saw, and what
    /// becomes of the group.
    fn why(&self, cause: &Fault, ticket: Ticket) -> String {
        let exit = self.group.exit_of(ticket);
        let next = if exit.is_none() && self.group.is_there(ticket) {
            "the process goes on"
        } else if self.group.has_other(ticket) {
            "another process takes over"
        } else {
            "a replacement is starting"
        };
        match exit {
            Some(exit) => format!("its daemon process {exit}; {next}"),
            None => format!("{cause}; {next}"),
        }
    }

    /// The one line about a request that failed on its way.
    fn report(&self, what: &str, why: &str) {
        self.log(level::ERROR, &format!("{what}: {}: {why}", Subject::of(self.request)));
    }
}
