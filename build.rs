//! Asks `apxs` where httpd's headers are, generates `src/ffi` from them and
//! compiles the C shim.

use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every function of httpd and APR the fence calls.
#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    // Configuration.
    "ap_check_cmd_context", "ap_exists_config_define", "ap_get_module_config", "ap_getword_conf",
    "ap_walk_config", "ap_regcomp", "ap_regexec_len", "ap_regfree",
    "ap_server_root_relative", "ap_state_query",
    // Hooks.
    "ap_hook_(check_config|post_config|child_init|translate_name|handler|check_access)",
    // Process.
    "ap_add_version_component", "ap_get_server_banner", "ap_get_server_description",
    "ap_get_server_built", "ap_show_mpm",
    "ap_mpm_query", "ap_retained_data_create", "ap_retained_data_get",
    "apr_proc_other_child_(register|unregister)",
    "ap_exists_scoreboard_image", "ap_get_scoreboard_(global|process)",
    "ap_copy_scoreboard_worker",
    // Log.
    "ap_get_(request|server)_module_loglevel", "ap_log_(error|rerror)_",
    "ap_run_generate_log_id",
    // Request.
    "ap_allow_options", "ap_construct_url", "ap_context_(prefix|document_root)",
    "ap_document_root", "ap_find_path_info", "ap_get_conn_socket",
    "ap_get_limit_req_body", "ap_get_server_name_for_url", "ap_get_server_port",
    "ap_internal_redirect_handler", "ap_run_http_scheme",
    "ap_send_interim_response", "ap_set_content_length", "ap_set_content_type",
   
    // Access.
    "ap_register_auth_provider", "ap_satisfies", "ap_some_auth_required",
    "ap_get_useragent_host", "ap_psignature", "ap_set_module_config",
    // Filters and buckets.
    "ap_add_output_filter", "ap_bucket_error_create", "ap_get_brigade", "ap_pass_brigade",
    "ap_register_output_filter",
    "apr_brigade_(create|destroy|cleanup|insert_file)",
    "apr_bucket_(eos|flush|transient)_create", "apr_bucket_file_enable_mmap",
    // Files, pools, strings, tables.
    "apr_file_dup", "apr_os_file_(get|put)", "apr_os_sock_get",
    "apr_palloc", "apr_pool_cleanup_(null|register)", "apr_pool_(create_ex|destroy)",
    "apr_pstrmemdup", "apr_socket_timeout_(get|set)", "apr_table_(get|setn|addn|unset|elts)",
    // Ours, for macros and inline functions.
    "wsgi_.*",
];

/// Every type the fence names itself; what they are made of follows.
#[rustfmt::skip]
const TYPES: &[&str] = &[
    "module", "command_rec", "cmd_parms", "ap_directive_t", "ap_regex_t", "ap_regmatch_t",
    "request_rec", "conn_rec", "server_rec", "ap_filter_t", "apr_bucket", "apr_bucket_brigade",
    "apr_proc_t", "apr_table_t", "apr_table_entry_t",
    "global_score", "process_score", "worker_score",
    "authn_provider", "authz_provider",
];

/// Every constant and variable the fence reads.
#[rustfmt::skip]
const CONSTANTS: &[&str] = &[
    "OK", "DECLINED", "DONE", "AP_FILTER_ERROR", "HTTP_(CONTINUE|BAD_GATEWAY)", "M_GET",
    "MODULE_MAGIC_(NUMBER_MAJOR|NUMBER_MINOR|COOKIE)",
    "RSRC_CONF", "ACCESS_CONF", "OR_(FILEINFO|AUTHCFG)", "OPT_EXECCGI", "WSGI_.*",
    "APR_HOOK_(FIRST|MIDDLE|REALLY_LAST)",
    "APLOG_(EMERG|ALERT|CRIT|ERR|WARNING|NOTICE|INFO|DEBUG)",
    "AP_MPMQ_(NOT_SUPPORTED|STOPPING|IS_THREADED|IS_ASYNC|MPM_STATE|GENERATION)",
    "AP_MPMQ_MAX_(DAEMONS|THREADS|DAEMON_USED)", "AP_MPMQ_HARD_LIMIT_DAEMONS",
    "AP_SQ_(MAIN_STATE|RUN_MODE|CONFIG_GEN|MS_.*|RM_.*)",
    "AP_MODE_READBYTES", "APR_(BLOCK|NONBLOCK)_READ", "AP_FTYPE_(PROTOCOL|RESOURCE)", "AP_CONN_CLOSE",
    "APR_(SUCCESS|EINVAL|ENOSPC|EGENERAL|ENOTIMPL)", "APR_(NOFILE|REG|DIR)",
    "APR_(READ|SENDFILE_ENABLED)", "APR_OC_REASON_(DEATH|LOST|RESTART)",
    "AUTH[NZ]_PROVIDER_(GROUP|VERSION)", "AP_AUTH_INTERNAL_PER_URI", "SATISFY_ANY",
    "REMOTE_HOST", "HTTP_FORBIDDEN",
    "AP_MAX_REG_MATCH", "AP_REG_EXTENDED",
    "SERVER_(DEAD|STARTING|READY|BUSY_READ|BUSY_WRITE|BUSY_KEEPALIVE|BUSY_LOG|BUSY_DNS|CLOSING)",
    "SERVER_(GRACEFUL|IDLE_KILL)",
    "ap_server_(root|conf)", "ap_unixd_config",
];

fn main() {
    println!("cargo::rerun-if-env-changed=APXS");
    for file in ["include/fence.h", "include/shim.h", "include/shim.c"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let apxs = env::var("APXS").unwrap_or_else(|_| "apxs".to_owned());
    let includes: Vec<String> = ["INCLUDEDIR", "APR_INCLUDEDIR", "APU_INCLUDEDIR"]
        .into_iter()
        .map(|name| ask(&apxs, name))
        .filter(|answer| !answer.is_empty())
        .collect();
    if let Some(header) = includes.first() {
        println!("cargo::rerun-if-changed={header}/ap_release.h");
    }
    let mut flags: Vec<String> = includes.iter().map(|path| format!("-I{path}")).collect();
    // `-D` only: the rest of the flags belongs to httpd's own build.
    flags.extend(
        ask(&apxs, "EXTRA_CPPFLAGS")
            .split_whitespace()
            .filter(|flag| flag.starts_with("-D"))
            .map(str::to_owned),
    );
    bindings(&flags);
    shim(&flags);
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rustc-env=WSGI_BUILD_ID={}", build_id());
}

/// A number that differs between builds of different sources: processes of two
/// builds that meet over a restart must not take each other for their own kind.
fn build_id() -> String {
    let mut hasher = DefaultHasher::new();
    let mut folders = vec![PathBuf::from("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for file in files {
        (file.as_os_str(), std::fs::read(&file).unwrap_or_default()).hash(&mut hasher);
    }
    format!("{}-{:016x}", env!("CARGO_PKG_VERSION"), hasher.finish())
}

/// The value `apxs` has for `name`; ends the build if it cannot be asked.
fn ask(apxs: &str, name: &str) -> String {
    let answer = match Command::new(apxs).args(["-q", name]).output() {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => stop(apxs, name, String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => stop(apxs, name, &error.to_string()),
    };
    String::from_utf8_lossy(&answer).trim().to_owned()
}

/// Ends the build with what to do about it.
fn stop(apxs: &str, name: &str, why: &str) -> ! {
    eprintln!(
        "\n'{apxs} -q {name}' does not answer: {why}\n\
         mod_wsgi_rs is built against the headers of Apache httpd 2.4.  Install them\n\
         (Debian, Ubuntu: apache2-dev; Fedora, RHEL: httpd-devel; Alpine: apache2-dev),\n\
         or set APXS to the path of the `apxs` of the httpd to build for.\n"
    );
    std::process::exit(1);
}

/// Writes `bindings.rs` to `OUT_DIR`.
fn bindings(flags: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header("include/fence.h")
        .clang_args(flags)
        .prepend_enum_name(false)
        .default_macro_constant_type(bindgen::MacroTypeVariation::Signed)
        .generate_comments(false)
        .wrap_unsafe_ops(true)
        .layout_tests(false)
        .derive_debug(false)
        .derive_copy(true)
        .allowlist_recursively(true)
        .rust_edition(bindgen::RustEdition::Edition2024);
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in CONSTANTS {
        builder = builder.allowlist_var(name);
    }
    match builder.generate() {
        Ok(bindings) => {
            if let Err(error) = bindings.write_to_file(out_dir().join("bindings.rs")) {
                eprintln!("cannot write the bindings: {error}");
                std::process::exit(1);
            }
        }
        Err(error) => {
            eprintln!(
                "\nbindgen cannot read httpd's headers: {error}\n\
                 It needs libclang (Debian, Ubuntu: libclang-dev; Fedora: clang-devel); if it is\n\
                 installed in an unusual place, set LIBCLANG_PATH to its directory.\n"
            );
            std::process::exit(1);
        }
    }
}

/// Compiles `include/shim.c`.
fn shim(flags: &[String]) {
    let mut build = cc::Build::new();
    build.file("include/shim.c").include(Path::new("include"));
    for flag in flags {
        build.flag(flag);
    }
    build.compile("wsgi_shim");
}

/// Where generated files go.
fn out_dir() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default())
}
