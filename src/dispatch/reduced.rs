//! What a script that is asked about access learns of a request: less than the
//! application does, for much of that is not known yet or none of its business.
#![forbid(unsafe_code)]

use super::environ::{escape_html, one_slash, second_word, write_headers, write_number};
use crate::config::DirConfig;
use crate::config::provider::ProviderScript;
use crate::httpd::{Request, process};
use wsgi_wire::head::{HeadWriter, RequestHead, Variables, flags};
use wsgi_wire::keys::known;

/// Appends the encoded head of a question about `request` to `to`.
pub fn encode(request: &Request, script: &ProviderScript, id: u64, to: &mut Vec<u8>) {
    let flag = |set, bit| if set { bit } else { 0 };
    let dir = request.config();
    let head = RequestHead {
        id,
        flags: flag(request.is_https(), flags::HTTPS)
            | flag(dir.is_none_or(DirConfig::script_reloading), flags::RELOADING)
            | flag(dir.is_some_and(DirConfig::pass_apache_request), flags::APACHE_REQUEST),
        log_level: u8::try_from(request.log_level()).unwrap_or_default(),
        connects: 0,
        restarts: 0,
        request_start: request.request_time(),
        queue_start: 0,
        script_mtime: 0,
        body_length: 0,
        server_pid: 0,
        script: &script.path,
        application_group: &script.application_group(request),
        callable: b"",
        process_group: b"",
        common: Variables::default(),
        variables: Variables::default(),
    };
    let mut writer = HeadWriter::new(to, &head);
    // Seldom asked, and seldom twice the same.
    writer.end_common();
    write_headers(&mut writer, request.headers_in().iter(), false, false);
    let uri = request.request_line();
    let uri = if request.wants_current_uri() { request.uri() } else { second_word(uri) };
    #[rustfmt::skip]
    let texts: [(&str, &[u8]); 12] = [
        ("SERVER_SIGNATURE", request.server_signature()),
        ("SERVER_SOFTWARE", process::banner()),
        ("SERVER_NAME", &escape_html(request.server_name())),
        ("SERVER_ADDR", request.local_ip()),
        ("REMOTE_ADDR", request.remote_ip()),
        ("DOCUMENT_ROOT", request.document_root()),
        ("SERVER_PROTOCOL", request.protocol()),
        ("REQUEST_METHOD", request.method()),
        ("QUERY_STRING", request.args().unwrap_or_default()),
        ("REQUEST_URI", uri),
        ("SCRIPT_NAME", &one_slash(request.script_name())),
        ("PATH_INFO", &one_slash(request.path_info())),
    ];
    for (key, value) in texts {
        writer.variable(key.as_bytes(), value);
    }
    for (key, value) in
        [("REMOTE_HOST", request.remote_host()), ("SERVER_ADMIN", request.server().admin())]
    {
        if let Some(value) = value {
            writer.variable(key.as_bytes(), value);
        }
    }
    write_number(&mut writer, const { known("SERVER_PORT") }, request.server_port().into());
    write_number(&mut writer, const { known("REMOTE_PORT") }, request.remote_port().into());
    writer.finish();
}
