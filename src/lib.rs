//! The Apache half of `mod_wsgi_rs`: what httpd loads.
//!
//! `unsafe` lives in `httpd` and `ffi`.  Every other file forbids it, but for
//! the few that DESIGN.md names.

mod ffi;
#[macro_use]
mod httpd;
mod auth;
mod config;
mod configtest;
mod daemon;
mod dispatch;
mod host;
mod scoreboard;
mod server_metrics;
mod startup;

/// The symbol `LoadModule wsgi_module …` asks for.
#[allow(non_upper_case_globals, reason = "the name is in everybody's configuration")]
#[unsafe(no_mangle)]
static wsgi_module: httpd::ModuleRecord = httpd::ModuleRecord::new::<Wsgi>();

/// The module.
struct Wsgi;

impl httpd::Module for Wsgi {
    /// `<IfModule mod_wsgi.c>` stands in configurations.
    const NAME: &core::ffi::CStr = c"mod_wsgi.c";
    const COMMANDS: &[httpd::Command] = &config::COMMANDS;

    fn register_hooks(pool: &httpd::Pool) {
        use httpd::auth as access;
        use httpd::hook::{self, Order};
        httpd::shield::register();
        hook::check_config::<configtest::Checks>(Order::Middle);
        // Before mod_ssl reads its keys: the supervisor must not have them.
        hook::post_config::<startup::Startup>(Order::First);
        hook::post_config::<configtest::Checks>(Order::Middle);
        hook::post_config::<startup::Wake>(Order::ReallyLast);
        hook::child_init::<startup::Startup>(Order::Middle);
        hook::translate_name::<dispatch::Aliases>();
        access::check_access::<auth::Access>();
        access::provide_users::<auth::Users>(pool, c"wsgi");
        access::provide_groups::<auth::Groups>(pool, c"wsgi-group");
        hook::handler::<dispatch::Dispatch>();
    }
}
