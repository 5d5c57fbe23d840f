//! Asks `apxs` where httpd's headers are, generates `src/ffi` from them and
//! compiles the C shim.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every function of httpd and APR the fence calls.
#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    // Configuration.
    "ap_check_cmd_context", "ap_getword_conf", "ap_server_root_relative", "ap_state_query",
    "ap_walk_config", "ap_runtime_dir_relative", "ap_regcomp", "ap_regfree", "ap_regexec_len",
    "ap_pregsub", "ap_exists_config_define",
    // Hooks.
    "ap_hook_(pre_config|check_config|post_config|child_init|translate_name|handler|test_config)",
    "ap_hook_(access_checker|check_authn|auth_checker|check_access|map_to_storage|fixups)",
    "ap_hook_(status_hook|child_stopping|child_stopped|pre_mpm|monitor)",
    // Process.
    "ap_mpm_query", "ap_show_mpm", "ap_add_version_component", "ap_get_server_banner",
    "ap_get_server_description", "ap_get_server_name_for_url", "ap_get_server_port",
    "ap_run_http_scheme", "ap_get_conn_socket", "ap_get_module_config",
    "ap_retained_data_create", "ap_retained_data_get", "ap_get_exec_line",
    // Log.
    "ap_log_(error|perror|rerror)_", "ap_get_(request|server)_module_loglevel",
    // Request.
    "ap_add_loaded_module", "ap_allow_options", "ap_auth_name", "ap_auth_type",
    "ap_context_(prefix|document_root)", "ap_document_root", "ap_discard_request_body",
    "ap_get_limit_req_body", "ap_internal_redirect_handler", "ap_internal_redirect",
    "ap_is_initial_req", "ap_method_number_of", "ap_set_content_length", "ap_set_content_type",
    "ap_set_last_modified", "ap_update_mtime", "ap_get_status_line", "ap_escape_html2",
    "ap_getparents", "ap_find_path_info", "ap_get_useragent_host", "ap_get_remote_host",
    "ap_send_interim_response", "ap_meets_conditions", "ap_index_of_response", "ap_setup_client_block",
    "ap_field_noparam", "ap_cookie_write", "ap_auth_nonce", "ap_die",
    "ap_note_auth_failure", "ap_run_generate_log_id", "ap_construct_url",
    // Filters and buckets.
    "ap_get_brigade", "ap_pass_brigade", "ap_bucket_error_create", "ap_filter_flush",
    "apr_brigade_(create|destroy|cleanup|length|partition|flatten|insert_file)",
    "apr_bucket_(alloc|free|eos_create|flush_create|transient_create|file_create)",
    "apr_bucket_(file_enable_mmap|heap_create|immortal_create|pool_create)",
    // APR.
    "apr_date_parse_http", "apr_file_dup", "apr_os_(file_put|file_get|sock_get)",
    "apr_os_pipe_put", "apr_pool_(cleanup_register|cleanup_kill|cleanup_null)",
    "apr_pool_(create_ex|destroy|clear|userdata_get|userdata_setn)",
    "apr_proc_other_child_(register|unregister|alert)", "apr_palloc", "apr_pstrmemdup",
    "apr_pstrdup", "apr_sockaddr_ip_get", "apr_socket_(timeout_get|opt_set|opt_get|timeout_set)",
    "apr_strerror", "apr_table_(get|set|setn|add|addn|unset|merge|mergen|elts|make|clear|do)",
    "apr_time_now", "apr_ipsubnet_(create|test)", "apr_dynamic_fn_retrieve",
    "apr_generate_random_bytes",
    // Ours, for macros and inline functions.
    "wsgi_.*",
];

/// Every type the fence names itself; what they are made of follows.
#[rustfmt::skip]
const TYPES: &[&str] = &[
    "module", "command_rec", "cmd_parms", "request_rec", "conn_rec", "server_rec", "process_rec",
    "server_addr_rec", "apr_bucket_brigade", "apr_bucket", "apr_bucket_type_t", "apr_finfo_t",
    "apr_sockaddr_t", "apr_table_t", "apr_array_header_t", "apr_table_entry_t", "apr_proc_t",
    "core_server_config", "core_dir_config", "ap_filter_rec_t", "ap_filter_t",
    "unixd_config_rec", "ap_regex_t", "ap_regmatch_t", "ap_directive_t", "ap_logconf",
];

/// Every constant and variable the fence reads.
#[rustfmt::skip]
const CONSTANTS: &[&str] = &[
    "OK", "DECLINED", "DONE", "SUSPENDED", "MODULE_MAGIC_(NUMBER_MAJOR|NUMBER_MINOR|COOKIE)",
    "RSRC_CONF", "ACCESS_CONF", "OR_(FILEINFO|AUTHCFG)", "WSGI_.*",
    "APR_HOOK_(REALLY_FIRST|FIRST|MIDDLE|LAST|REALLY_LAST)",
    "APLOG_(EMERG|ALERT|CRIT|ERR|WARNING|NOTICE|INFO|DEBUG|TRACE1|NO_MODULE|STARTUP|LEVELMASK)",
    "AP_MPMQ_.*", "AP_SQ_.*", "AP_REQ_.*", "OPT_EXECCGI", "M_GET", "AP_MODE_READBYTES", "AP_FILTER_ERROR", "HTTP_CONTINUE",
    "AP_FTYPE_PROTOCOL", "APR_(BLOCK_READ|NONBLOCK_READ)", "APR_(SUCCESS|EOF|EINVAL|ENOSPC|EGENERAL|ENOTIMPL)",
    "AP_CONN_(CLOSE|KEEPALIVE|UNKNOWN)", "APR_(DIR|REG|NOFILE|LNK)", "APR_OC_REASON_.*",
    "APR_(READ|LARGEFILE|SENDFILE_ENABLED|SO_LINGER)", "AP_MAX_REG_MATCH", "AP_REG_.*",
    "AP_LOG_ID_.*", "HTTP_BAD_GATEWAY", "ap_server_(root|conf|pool|argv)",
    "ap_(unixd_config|runtime_dir|my_generation|exists_config)", "core_module",
    "APR_POOL_.*", "AP_NOTE_.*", "AP_AUTH_INTERNAL.*",
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
    // httpd brings `ap_*` and `apr_*` along; unit tests, which never call
    // them, are linked without.
    println!("cargo::rustc-link-arg=-Wl,--unresolved-symbols=ignore-all");
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
