//! An HTTP client that hides nothing: it sends what it is told, and says when an answer was
//! cut off or something followed it.
#![forbid(unsafe_code)]

use super::server::Httpd;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long the client waits for the next byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request in the making.
#[derive(Clone)]
pub struct Request {
    /// GET, POST, …
    method: String,
    /// What follows it on the request line.
    target: String,
    /// Names and values, in order.
    headers: Vec<(String, String)>,
    /// The body as it goes over the wire.
    body: Vec<u8>,
    /// Whether the connection may be used again afterwards.
    keep_alive: bool,
}

impl Request {
    /// A request of any method.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![("Host".to_owned(), "wsgi.test".to_owned())],
            body: Vec::new(),
            keep_alive: false,
        }
    }

    /// `GET target`.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// `POST target` with this body and its length.
    pub fn post(target: &str, body: impl AsRef<[u8]>) -> Self {
        Self::with_body("POST", target, body)
    }

    /// A request of any method with this body and its length.
    pub fn with_body(method: &str, target: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut request = Self::new(method, target).header("Content-Length", body.len());
        request.body = body.to_vec();
        request
    }

    /// `POST target` with the body in these chunks.
    pub fn post_chunks(target: &str, chunks: &[&[u8]]) -> Self {
        let mut request = Self::new("POST", target).header("Transfer-Encoding", "chunked");
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            request.body.extend(format!("{:x}\r\n", chunk.len()).bytes());
            request.body.extend(*chunk);
            request.body.extend(b"\r\n");
        }
        request.body.extend(b"0\r\n\r\n");
        request
    }

    /// Adds a header; a second `Host` replaces the first.
    pub fn header(mut self, name: &str, value: impl fmt::Display) -> Self {
        if name == "Host" {
            self.headers.retain(|(name, _)| name != "Host");
        }
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Asks to keep the connection.
    pub fn keep_alive(mut self) -> Self {
        self.keep_alive = true;
        self
    }

    /// The request line and the headers.
    pub fn head(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !self.keep_alive {
            text += "Connection: close\r\n";
        }
        // One byte a character: a test writes latin-1 as it means it.
        (text + "\r\n").chars().map(|c| u8::try_from(c).expect("latin-1")).collect()
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

/// An answer, complete.
#[derive(Clone, Debug)]
pub struct Response {
    /// 200, 404, …
    pub status: u16,
    /// What follows the number.
    pub reason: String,
    /// Names and values, in order, as latin-1.
    pub headers: Vec<(String, String)>,
    /// The body without its transfer coding.
    pub body: Vec<u8>,
    /// The statuses of the interim answers before it.
    pub interim: Vec<u16>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The values of all headers with this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let matching = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        matching.map(|(_, value)| value.as_str()).collect()
    }

    /// The text of the body, which must be an answer with status 200.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.text()
    }
}

/// An answer that did not come whole.
#[derive(Debug)]
pub struct Cut {
    /// What ended it.
    pub cause: io::Error,
    /// What came of it, if its head came.
    pub partial: Option<Response>,
}

impl Cut {
    /// There was not even a connection.
    pub fn connecting(cause: io::Error) -> Self {
        Self { cause, partial: None }
    }
}

/// A connection to httpd.
pub struct Connection {
    /// Reads and writes it.
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Speaks over `stream`.
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Waits no longer than this for the next byte.
    pub fn limit_patience(&mut self, limit: Duration) {
        self.stream.get_ref().set_read_timeout(Some(limit)).unwrap();
    }

    /// The same connection, for another thread to write to.
    pub fn writer(&self) -> TcpStream {
        self.stream.get_ref().try_clone().unwrap()
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Says that no more will be sent.
    pub fn finish_writing(&mut self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Sends `request` and reads its answer.
    ///
    /// The body goes out while the answer comes in. Without keep-alive the answer must be the
    /// last thing on the connection.
    pub fn exchange(&mut self, request: &Request) -> Result<Response, Cut> {
        let mut writer = self.writer();
        let (head, body) = (request.head(), request.body.clone());
        // A server may answer without having read everything: that is for the reader to judge.
        let sender = std::thread::spawn(move || {
            let _ = writer.write_all(&head).and_then(|()| writer.write_all(&body));
        });
        let response = self.read_response(request.method == "HEAD")?;
        if !request.keep_alive {
            let mut rest = Vec::new();
            // What was sent and not read makes the kernel reset the connection.
            let _ = self.stream.read_to_end(&mut rest);
            assert!(
                rest.is_empty(),
                "bytes after the answer: {:?}",
                String::from_utf8_lossy(&rest)
            );
            self.stream.get_ref().shutdown(Shutdown::Both).ok();
        }
        sender.join().unwrap();
        Ok(response)
    }

    /// Reads one answer; `is_head` says that it has no body whatever its headers say.
    pub fn read_response(&mut self, is_head: bool) -> Result<Response, Cut> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.read_head().map_err(Cut::connecting)?;
            if response.status < 200 {
                interim.push(response.status);
                continue;
            }
            response.interim = interim;
            if is_head || response.status == 204 || response.status == 304 {
                return Ok(response);
            }
            return match self.read_body(&mut response) {
                Ok(()) => Ok(response),
                Err(cause) => Err(Cut { cause, partial: Some(response) }),
            };
        }
    }

    /// Reads the status line and the headers.
    pub fn read_head(&mut self) -> io::Result<Response> {
        let line = self.read_line()?;
        let mut words = line.splitn(3, ' ').skip(1);
        let status = words.next().and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("status line {line:?}")))?;
        let reason = words.next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| io::Error::other(line.clone()))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Response { status, reason, headers, body: Vec::new(), interim: Vec::new() })
    }

    /// Reads a line without its end, as latin-1.
    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let line = line.strip_suffix(b"\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(line.iter().copied().map(char::from).collect())
    }

    /// Reads the body that the headers announce.
    fn read_body(&mut self, response: &mut Response) -> io::Result<()> {
        if response.header("Transfer-Encoding").is_some() {
            return self.read_chunks(&mut response.body);
        }
        match response.header("Content-Length").map(str::to_owned) {
            Some(length) => {
                let length = length.parse().map_err(io::Error::other)?;
                self.read_exactly(length, &mut response.body)
            }
            None => self.stream.read_to_end(&mut response.body).map(drop),
        }
    }

    /// Reads chunks up to and with the last, empty one.
    fn read_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.read_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                while !self.read_line()?.is_empty() {}
                return Ok(());
            }
            self.read_exactly(size, body)?;
            self.read_line()?;
        }
    }

    /// Reads the next chunk, as one that watches an answer grow.
    pub fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.read_line()?;
        let size = u64::from_str_radix(&line, 16).map_err(io::Error::other)?;
        let mut body = Vec::new();
        self.read_exactly(size, &mut body)?;
        self.read_line()?;
        Ok(body)
    }

    /// Appends the next `length` bytes to `body`.
    pub fn read_exactly(&mut self, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
        let got = (&mut self.stream).take(length).read_to_end(body)?;
        if got as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Whether httpd has closed the connection, waiting for it.
    pub fn is_closed(&mut self) -> bool {
        self.stream.fill_buf().map_or(true, <[u8]>::is_empty)
    }
}

/// The value of a Python expression where the application evaluates its query string.
#[track_caller]
pub fn eval(httpd: &Httpd, expression: &str) -> String {
    let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    httpd.get(&format!("/?{escaped}")).ok()
}
