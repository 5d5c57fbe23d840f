//! A request ready to be sent to a daemon process, more than once if need be.
#![forbid(unsafe_code)]

use super::group::Ticket;
use super::room::Room;
use super::upload::Received;
use wsgi_wire::frame::{self, BodyPlace, ENVELOPE, Envelope, HEADER, Header, Kind};
use wsgi_wire::head::RequestHead;

/// A body of known length up to this is kept in memory however slow its client:
/// ordinary forms hold no thread while they come, and cost no file.  More memory per
/// request would let a thousand of them fill the machine.
pub const SMALL_BODY: u64 = 64 * 1024;

/// Where the body of the request is.
#[derive(Debug)]
pub enum Body {
    /// There is none.
    None,
    /// Here.
    Whole(Room),
    /// As much as was received; the client has the rest.
    Received(Received),
    /// With the client, read when the application asks.
    OnDemand,
}

/// The frame behind a body that is here.
const END: [u8; HEADER] = Header { kind: Kind::BodyEnd, length: 0 }.encode();

/// A request ready to be sent, more than once if need be.
#[derive(Debug)]
pub struct Prepared {
    /// The `Head` frame, envelope first; behind it the header of the body's frame.
    head: Vec<u8>,
    /// Where the `Head` frame ends.
    head_end: usize,
    /// A body that is here.
    body: Option<Room>,
    /// What there is of a longer one.
    received: Received,
}

impl Prepared {
    /// Frames an encoded request head (written by `write`) and its body.
    pub fn new(body: Body, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let place = match &body {
            Body::None => BodyPlace::None,
            Body::Whole(_) => BodyPlace::Follows,
            Body::Received(_) | Body::OnDemand => BodyPlace::OnDemand,
        };
        let mut head = Vec::with_capacity(4 * 1024);
        frame::put_with(&mut head, Kind::Head, |to| {
            Envelope { generation: 0, ticket: 0, body: place }.encode(to);
            write(to);
        });
        let head_end = head.len();
        let (body, received) = match body {
            Body::Whole(body) => {
                let length = body.bytes().len() as u32;
                head.extend_from_slice(&Header { kind: Kind::Body, length }.encode());
                (Some(body), Received::default())
            }
            Body::Received(parts) => (None, parts),
            Body::None | Body::OnDemand => (None, Received::default()),
        };
        Self { head, head_end, body, received }
    }

    /// What there is of a body that the application has to ask for.
    pub fn received(&self) -> &Received {
        &self.received
    }

    /// Whether its head is longer than a daemon process accepts.
    pub fn is_too_long(&self) -> bool {
        self.head_end > HEADER + frame::LONGEST_HEAD as usize
    }

    /// What is sent at once: the head, and a body that is here with its end.
    pub fn parts(&self) -> [&[u8]; 3] {
        match &self.body {
            Some(body) => [&self.head, body.bytes(), &END],
            None => [&self.head, &[], &[]],
        }
    }

    /// How much of that is the head, without which no process can begin.
    pub const fn head_end(&self) -> usize {
        self.head_end
    }

    /// Says which process it is for, and with which ticket.
    pub fn address(&mut self, ticket: Ticket) {
        self.head[HEADER..HEADER + 8].copy_from_slice(&ticket.generation.to_le_bytes());
        self.head[HEADER + 8..HEADER + 12].copy_from_slice(&ticket.number.to_le_bytes());
    }

    /// Says how often a daemon process was asked for, and how often one was being
    /// replaced.
    pub fn count(&mut self, connects: u16, restarts: u16) {
        RequestHead::set_counts(&mut self.head[HEADER + ENVELOPE..], connects, restarts);
    }
}
