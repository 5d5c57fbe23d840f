//! A request ready to be sent to a daemon process, more than once if need be.
#![forbid(unsafe_code)]

use super::group::Ticket;
use super::upload::Received;
use crate::daemon::sys;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use wsgi_wire::frame::{self, BodyPlace, ENVELOPE, Envelope, HEADER, Kind};
use wsgi_wire::head::RequestHead;

/// A body of known length up to this is kept in memory: ordinary forms hold no
/// thread while they come, and cost no file.  More memory per request would let a
/// thousand of them fill the machine.
pub const SMALL_BODY: u64 = 64 * 1024;

/// Where the body of the request is.
#[derive(Debug)]
pub enum Body {
    /// There is none.
    None,
    /// Here.
    Whole(Vec<u8>),
    /// As much as was received; the client has the rest.
    Received(Received),
    /// With the client, read when the application asks.
    OnDemand,
}

/// A request ready to be sent, more than once if need be.
#[derive(Debug)]
pub struct Prepared {
    /// The `Head` frame, envelope first.
    head: Vec<u8>,
    /// The frames of a body that is here.
    body: Vec<u8>,
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
        let mut frames = Vec::new();
        let mut received = Received::default();
        match body {
            Body::Whole(data) => {
                frames.reserve_exact(data.len() + 2 * HEADER);
                frame::put(&mut frames, Kind::Body, &data);
                frame::put(&mut frames, Kind::BodyEnd, &[]);
            }
            Body::Received(parts) => received = parts,
            Body::None | Body::OnDemand => {}
        }
        Self { head, body: frames, received }
    }

    /// What there is of a body that the application has to ask for.
    pub fn received(&self) -> &Received {
        &self.received
    }

    /// Whether its head is longer than a daemon process accepts.
    pub fn is_too_long(&self) -> bool {
        self.head.len() > HEADER + frame::LONGEST_HEAD as usize
    }

    /// Sends the request, waiting for room only for its head: the process reads
    /// that before it does anything else.  What is left of the body.
    ///
    /// An error means that the process cannot have the whole head.
    pub fn send(&self, socket: &OwnedFd) -> io::Result<&[u8]> {
        let mut done = 0;
        while done < self.head.len() + self.body.len() {
            let body = &self.body[done.saturating_sub(self.head.len())..];
            let parts = [
                io::IoSlice::new(self.head.get(done..).unwrap_or_default()),
                io::IoSlice::new(body),
            ];
            match sys::try_send(socket.as_fd(), &parts, &[]) {
                Ok(count) => done += count,
                Err(error) if done < self.head.len() => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        return Err(error);
                    }
                    sys::send_all(socket.as_fd(), &self.head[done..], &[], None)?;
                    done = self.head.len();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(body),
                // It may have begun, and answered without the body: that is read.
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&[])
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
