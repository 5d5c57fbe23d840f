//! From a configuration to running processes: the hooks around httpd's start.
#![forbid(unsafe_code)]

use crate::config::check;
use crate::config::interpreters::Plan;
use crate::config::process_group::{OnGraceful, OnReload, ProcessGroup};
use crate::config::python;
use crate::config::python_search::System;
use crate::config::root::Root;
use crate::config::server::{Preload, WantedBy};
use crate::config::{DirConfig, ServerConfig};
use crate::configtest::servers;
use crate::daemon::parent::{Parent, Wanted};
use crate::daemon::plan::{self, GroupPlan, Identity, PythonPlan, PythonSearch, Script};
use crate::dispatch::child;
use crate::dispatch::embedded::Embedded;
use crate::dispatch::group::{Group, Limits};
use crate::dispatch::ownership::Owner;
use crate::dispatch::resolve::{self, Place, Refusal};
use crate::host::{Apache, Start, Telemetry};
use crate::httpd::hook::{ChildInit, Outcome, PostConfig};
use crate::httpd::other_child::{self, News, Watch};
use crate::httpd::process::{self, Stage};
use crate::httpd::{Pool, Request, Server, retained, wake};
use crate::server_metrics::{self, Copying};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wsgi_wire::vtable::level;

/// The name httpd keeps our descriptors under between configurations.
const RETAINED: &std::ffi::CStr = c"mod_wsgi_rs";

/// What a configuration became.
#[derive(Debug)]
pub struct Site {
    /// The process groups as configured, in the order of [`groups`](Self::groups).
    defined: Vec<ProcessGroup>,
    /// The process groups as child processes reach them.
    pub groups: Vec<Group>,
    /// Embedded mode.
    pub embedded: Embedded,
    /// The parent's hold on the supervisor.
    parent: Mutex<Parent>,
}

impl Site {
    /// Where a request of this process group runs.
    pub fn place(
        &self,
        request: &Request,
        dir: &DirConfig,
        group: &[u8],
    ) -> Result<Place, Refusal> {
        let server = request.server();
        let Some(config) = server.config() else { return Err(Refusal::EmbeddedRestricted) };
        resolve::place(group, dir, (config, server.hostname()), &self.defined)
    }

    /// The supervisor with this number is gone: the others; none if nobody misses it.
    fn lose(&self, pid: u32) -> Option<Vec<i32>> {
        let mut parent = self.parent.lock().unwrap_or_else(PoisonError::into_inner);
        if parent.lose_spare(pid) {
            retained::store(RETAINED, &parent.retained());
            return None;
        }
        parent.lose_supervisor();
        Some(parent.processes())
    }

    /// Starts the supervisor, or tells it the configuration; the processes to wait for.
    fn announce(&self) -> io::Result<Vec<i32>> {
        let mut parent = self.parent.lock().unwrap_or_else(PoisonError::into_inner);
        let announced = parent.announce();
        // Also after a failure: what was opened is not to be lost.
        retained::store(RETAINED, &parent.retained());
        announced.map(|()| parent.processes())
    }
}

/// The hooks around httpd's start.
pub struct Startup;

impl PostConfig for Startup {
    fn post_config(conf: &Pool, main: &Server) -> Outcome {
        if !matches!(process::stage(), Stage::Start | Stage::Restart) {
            return Outcome::Ok;
        }
        process::add_version_component(conf, c"mod_wsgi/6.1.1");
        let site = match site(main) {
            Ok(site) => Arc::new(site),
            Err(cause) => {
                alert!(main, WSGI9303, "cannot set up the daemon process groups: {cause}");
                return Outcome::Status(500);
            }
        };
        for config in main.and_following().filter_map(Server::config) {
            let _ = config.site.set(Arc::clone(&site));
        }
        let (leaving, parent) = (Arc::clone(&site), std::process::id());
        conf.at_end(move || {
            // Child processes inherit this, and have closed the descriptor.
            if std::process::id() == parent {
                let parent = leaving.parent.lock().unwrap_or_else(PoisonError::into_inner);
                parent.bid_farewell();
            }
        });
        match site.announce() {
            Ok(all) => all.iter().for_each(|pid| other_child::watch::<Self>(conf, *pid as u32)),
            Err(cause) => {
                alert!(main, WSGI9304, "cannot start the supervisor: {cause}");
                return Outcome::Status(500);
            }
        }
        Outcome::Ok
    }
}

/// New children soon after a restart.
pub struct Wake;

impl PostConfig for Wake {
    fn post_config(conf: &Pool, _main: &Server) -> Outcome {
        // Without room for new children httpd would only complain, sooner.
        if process::stage() == Stage::Restart && process::mpm().has_room {
            wake::soon(conf);
        }
        Outcome::Ok
    }
}

impl ChildInit for Startup {
    fn child_init(child: &Pool, main: &Server) {
        wake::forget();
        child::begin();
        let Some(site) = main.config().and_then(|config| config.site.get()) else { return };
        copy_scoreboard(child, main, site);
        // `httpd -X` is parent and child in one.
        if !process::is_single() {
            site.parent.lock().unwrap_or_else(PoisonError::into_inner).in_child();
        }
        let ending = Arc::clone(site);
        child.at_end(move || ending.embedded.stop());
        if site.embedded.eager
            && let Err(reason) = site.embedded.runtime()
        {
            crit!(main, WSGI0001, "no Python in this process: {reason}");
        }
    }
}

/// In a child process: has httpd's scoreboard copied, if any group may see it.
fn copy_scoreboard(child: &Pool, main: &Server, site: &Site) {
    let publisher = site.parent.lock().unwrap_or_else(PoisonError::into_inner).publisher();
    let copying = publisher.and_then(|publisher| publisher.map(Copying::start).transpose());
    match copying {
        Ok(copying) => child.at_end(move || {
            drop(copying);
            server_metrics::end();
        }),
        Err(cause) => warn!(main, WSGI9430, "server_metrics() of daemon processes: {cause}"),
    }
}

impl Watch for Startup {
    fn news(pid: u32, news: News) {
        if !matches!(news, News::Ended(_) | News::Lost) || process::is_stopping() {
            return;
        }
        let Some(main) = Server::main() else { return };
        let Some(site) = main.config().and_then(|config| config.site.get()) else { return };
        let Some(known) = site.lose(pid) else { return };
        error!(main, WSGI9305, "the supervisor, pid {pid}, is gone; starting another");
        match (site.announce(), main.config_pool()) {
            (Ok(all), Some(conf)) => {
                let new = all.iter().filter(|pid| !known.contains(pid));
                new.for_each(|pid| other_child::watch::<Self>(conf, *pid as u32));
            }
            (Ok(_), None) => {}
            (Err(cause), _) => {
                crit!(main, WSGI9304, "cannot start the supervisor: {cause}");
            }
        }
    }
}

/// Turns the configuration into what runs.
fn site(main: &Server) -> io::Result<Site> {
    let empty = ServerConfig::default();
    let main_config = main.config().unwrap_or(&empty);
    let (defined, _) = check::process_groups(&servers(main));
    let preloads: Vec<&Preload> =
        servers(main).iter().flat_map(|server| &server.config.preloads).collect();
    let plans = defined
        .iter()
        .map(|group| {
            // Its lines go where those of its server go; a twin's to the first.
            let owner = main
                .and_following()
                .find(|server| server.config().is_some_and(|own| own.defines(&group.name)))
                .unwrap_or(main);
            let plan = plan(main, owner, group, main_config, &preloads);
            Wanted { plan, environment: environment(group), log: owner.error_log() }
        })
        .collect();
    let retained = retained::load(RETAINED).unwrap_or_default();
    let parent = Parent::prepare(&retained, plans, main.error_log(), main.log_level())?;
    for (name, count) in parent.fewer() {
        warn!(
            main,
            WSGI9245,
            "daemon process group '{name}' has {count} processes instead of what it is to have: \
             the hard limit on open files of httpd allows no more"
        );
    }
    let entrances = parent.entrances()?;
    let groups = entrances
        .into_iter()
        .zip(&defined)
        .map(|(entrance, group)| {
            let root = group.chroot.as_deref().map(Root::new);
            Group::new(entrance, limits(main, group), owner(group)).below(root)
        })
        .collect();
    let asks_scripts = servers(main).iter().any(|server| server.config.asks_scripts);
    let embedded = embedded(main_config, &preloads, asks_scripts);
    Ok(Site { defined, groups, embedded, parent: Mutex::new(parent) })
}

fn limits(main: &Server, group: &ProcessGroup) -> Limits {
    Limits {
        backlog: group.limits.listen_backlog(),
        queue: group.timeouts.queue(),
        connect: group.timeouts.connect().unwrap_or(Duration::MAX),
        socket: group.timeouts.socket().unwrap_or_else(|| main.timeout()),
        flush_delay: group.timeouts.response_flush_delay(),
        flush_every: group.limits.response_buffer_size(),
        longest_header: usize::try_from(group.limits.header_buffer_size()).unwrap_or(usize::MAX),
        client: group.timeouts.response_socket(),
    }
}

/// Whom the scripts of a group must belong to; the options exclude each other.
fn owner(group: &ProcessGroup) -> Option<Owner> {
    let user = group.script_user.clone().map(Owner::User);
    user.or_else(|| group.script_group.clone().map(Owner::Group))
}

/// The scripts to be loaded early into a group whose root directory is `root`.
fn scripts(preloads: &[&Preload], group: &[u8], root: Option<&Root>) -> Vec<Script> {
    let mut scripts: Vec<Script> = Vec::new();
    for preload in preloads.iter().filter(|preload| preload.process_group == group) {
        let path = preload.script.as_os_str().as_bytes();
        // What an alias names is what httpd sees.
        let path = match root.filter(|_| preload.wanted_by != WantedBy::ImportScript) {
            Some(root) => root.inside(path),
            None => Some(path),
        };
        // Requests for a script outside are told so.
        let Some(path) = path else { continue };
        let application_group = preload.application_group.clone();
        let script = Script { application_group, path: path.to_vec() };
        if !scripts.contains(&script) {
            scripts.push(script);
        }
    }
    scripts
}

fn embedded(main: &ServerConfig, preloads: &[&Preload], asks_scripts: bool) -> Embedded {
    let mpm = process::mpm();
    let home = main.python_home.as_ref().map(|(home, _)| home.as_path());
    let start = Start {
        python_path: main.python_path.as_ref().map_or_else(String::new, |(path, _)| lossy(path)),
        maximum_processes: mpm.most_processes.max(1),
        threads_per_process: mpm.threads.max(1),
        multithread: mpm.threads > 1,
        multiprocess: mpm.most_processes > 1,
        apache_version: apache_version(),
        apache: apache(),
        reload_in_place: true,
        stdout_level: level::ERROR,
        stderr_level: level::ERROR,
        interpreters: Plan { is_debugged: process::is_single(), ..main.interpreters.plan(b"") },
        server_metrics: main.server_metrics().then_some(server_metrics::read),
        telemetry: telemetry(main),
        ..Start::default()
    };
    let imports = |preload: &&&Preload| {
        preload.process_group.is_empty()
            && (preload.wanted_by == WantedBy::ImportScript || !main.restrict_embedded())
    };
    let eager = asks_scripts
        || main.restrict_embedded == Some(false)
        || preloads.iter().any(|preload| imports(&preload));
    let python = PythonPlan::new(python::choose(&System::default(), home, None));
    let program = python.as_ref().map(|python| python.program.clone()).unwrap_or_default();
    Embedded::new(python, Start { program, ..start }, scripts(preloads, b"", None), eager)
}

/// What is to be reported of the processes of this httpd.
fn telemetry(main: &ServerConfig) -> Option<Telemetry> {
    let service = main.telemetry.service.as_ref()?;
    Some(Telemetry {
        service: service.path.clone(),
        interval: service.interval,
        slow_requests: main.telemetry.slow_requests,
        captures_user_agent: main.telemetry.captures_user_agent,
        parent: std::process::id(),
    })
}

/// What the Python module `apache` tells of httpd.
fn apache() -> Apache {
    let mpm = process::mpm();
    Apache {
        maximum_processes: mpm.most_processes.max(1),
        threads_per_process: mpm.threads.max(1),
        description: lossy(process::description()),
        mpm_name: lossy(process::mpm_name()),
        build_date: lossy(process::build_date()),
    }
}

/// The numbers in "Apache/2.4.68 (Debian)".
fn apache_version() -> [u16; 3] {
    let description = lossy(process::description());
    let version = description.split_ascii_whitespace().next().unwrap_or_default();
    let numbers = version.split_once('/').map_or("", |(_, numbers)| numbers);
    let mut parts = numbers.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the supervisor is told of a group.
fn plan(
    main: &Server,
    server: &Server,
    group: &ProcessGroup,
    config: &ServerConfig,
    preloads: &[&Preload],
) -> GroupPlan {
    let (times, limits) = (&group.timeouts, &group.limits);
    let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(lossy);
    let root = group.chroot.as_deref().map(Root::new);
    let home = python_home(group, config);
    GroupPlan {
        name: lossy(&group.name),
        board: 0,
        shape: (0, 0),
        processes: group.processes(),
        threads: group.threads(),
        multiprocess: group.is_multiprocess(),
        run_once: group.threads() == 1 && limits.maximum_requests() == Some(1),
        log_level: server.log_level(),
        title: title(group),
        identity: identity(group),
        home: group.home.clone(),
        umask: group.umask,
        locale: text(&group.locale),
        cpu_priority: limits.cpu_priority,
        cpu_limit: times.cpu_time().map(|time| time.as_secs()),
        memory_limit: limits.memory_limit.filter(|limit| *limit > 0),
        virtual_memory_limit: limits.virtual_memory_limit.filter(|limit| *limit > 0),
        open_files: 0,
        stack_size: limits.stack_size.and_then(|size| usize::try_from(size).ok()),
        python: PythonPlan::new(python::choose(&System::default(), home, group.python.as_ref())),
        python_below: root
            .as_ref()
            .map(|_| PythonSearch { home: home.map(Path::to_owned), choice: group.python.clone() }),
        python_path: text(&group.python_path).unwrap_or_default(),
        interpreters: config.interpreters.plan(&group.name),
        env_file: group.env_file.clone(),
        clear_environment: group.clears_environment(),
        apache_version: apache_version(),
        apache: apache(),
        preload: scripts(preloads, &group.name, root.as_ref()),
        socket_timeout: times.socket().unwrap_or_else(|| main.timeout()),
        keep: group.on_graceful() == OnGraceful::Keep,
        graceful_timeout: times.graceful().unwrap_or_default(),
        shutdown_timeout: times.shutdown().unwrap_or_default(),
        limits: usage(group),
        rolling_reload: group.on_reload() == OnReload::Rolling,
        switch_interval: limits.switch_interval,
        stream_levels: [group.stdout_level, group.stderr_level]
            .map(|said| said.unwrap_or(level::ERROR))
            .into(),
        server_metrics: group.server_metrics.unwrap_or(false),
        // A service serves nothing that could be reported.
        telemetry: telemetry(config).filter(|_| group.threads() > 0),
    }
}

/// What `ps` shows of the processes of a group.
fn title(group: &ProcessGroup) -> String {
    let own = || format!("wsgi: daemon \"{}\"", lossy(&group.name));
    group.title().map_or_else(own, |title| lossy(&title))
}

/// Where the Python of a group is looked for: `python=` alone names another one than
/// the server's.
fn python_home<'c>(group: &'c ProcessGroup, config: &'c ServerConfig) -> Option<&'c Path> {
    let of_server = config.python_home.as_ref().filter(|_| group.python.is_none());
    group.python_home.as_deref().or(of_server.map(|(home, _)| home.as_path()))
}

/// What a process of the group may use up.
fn usage(group: &ProcessGroup) -> plan::Limits {
    let times = &group.timeouts;
    // The default is meant for requests: a service may stay in C for as long as it likes.
    let may_deadlock = group.threads() == 0 && times.deadlock.is_none();
    plan::Limits {
        requests: group.limits.maximum_requests(),
        resident: group.limits.max_rss.filter(|size| *size > 0),
        age: times.restart_interval(),
        request: times.request(),
        interrupt: times.interrupt(),
        startup: times.startup(),
        deadlock: times.deadlock().filter(|_| !may_deadlock),
        inactivity: times.inactivity(),
        eviction: times.eviction(),
    }
}

/// The variables a group adds to its processes' environment.
fn environment(group: &ProcessGroup) -> Vec<(String, String)> {
    let eggs = group
        .python_eggs
        .as_ref()
        .map(|eggs| ("PYTHON_EGG_CACHE".to_owned(), eggs.to_string_lossy().into_owned()));
    let own = group.own_environment();
    let own = own.iter().map(|variable| (lossy(&variable.name), lossy(&variable.value)));
    eggs.into_iter().chain(own).collect()
}

/// Who the processes of a group are: what the group says, else httpd's own
/// `User` and `Group`.
fn identity(group: &ProcessGroup) -> Identity {
    let httpd = process::identity();
    let uid = group.user.as_ref().map_or(httpd.user, |user| user.uid);
    let account = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    let (user_name, user_home) =
        account.map_or((String::new(), PathBuf::from("/")), |account| (account.name, account.dir));
    Identity {
        uid,
        gid: group.group.as_ref().map_or(httpd.group, |group| group.gid),
        user_name,
        user_home,
        supplementary: group
            .supplementary_groups
            .as_ref()
            .map(|groups| groups.iter().map(|group| group.gid).collect()),
        chroot: group.chroot.clone(),
        go_home: uid != httpd.user,
    }
}
