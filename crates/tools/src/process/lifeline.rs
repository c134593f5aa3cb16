//! The supervisor's end of the socket to its worker.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};

use super::wire::{FRAME_BYTES_MAX, FRAME_FILES_MAX, Inbox, Order, Report, encode};

/// Most bytes taken by one read.
const READ_BYTES: usize = 64 << 10;

/// Orders come in here, reports go out; its end is the worker's end.
#[derive(Debug)]
pub(crate) struct Lifeline {
    socket: OwnedFd,
    inbox: Inbox,
    files: VecDeque<OwnedFd>,
    /// An order that waits for its files.
    waiting: Option<Order>,
}

impl Lifeline {
    /// Takes the socket that the worker made our stdin.
    ///
    /// The copy closes on exec; descriptor 0 itself is replaced in every child.
    pub(crate) fn from_stdin() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Lifeline { socket, inbox: Inbox::default(), files: VecDeque::new(), waiting: None })
    }

    /// Reads what has come; `false` when the worker is gone.
    pub(crate) fn read(&mut self) -> io::Result<bool> {
        let mut bytes = vec![0; READ_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FILES_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = match recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        ) {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(true),
            // Killed with our reports unread: as gone as with a clean close.
            Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::PIPE) => 0,
            Err(error) => return Err(error.into()),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        self.inbox.push(&bytes[..received]);
        Ok(received > 0)
    }

    /// Takes the next order that is complete, with the files that belong to it.
    pub(crate) fn next_order(&mut self) -> io::Result<Option<(Order, Vec<OwnedFd>)>> {
        let order = match self.waiting.take() {
            Some(order) => order,
            None => match self.inbox.take(FRAME_BYTES_MAX)? {
                Some(order) => order,
                None => return Ok(None),
            },
        };
        let files = match &order {
            Order::Start(start) => start.role.files(),
            Order::Stop { .. } | Order::Settle => 0,
        };
        if self.files.len() < files {
            self.waiting = Some(order);
            return Ok(None);
        }
        Ok(Some((order, self.files.drain(..files).collect())))
    }

    /// Tells the worker. A worker that is gone is noticed at the next read.
    pub(crate) fn report(&self, report: &Report) -> io::Result<()> {
        let frame = encode(report, FRAME_BYTES_MAX)?;
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            match send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
