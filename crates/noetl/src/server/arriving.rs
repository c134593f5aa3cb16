//! A request's body on its way in: whose turn it is while it arrives, and how much of all bodies is held in memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use super::places::Place;

/// Most bytes of request bodies that a server holds at once, beside [`BODY_BYTES_FREE`] of each. Who sends more is read
/// on when others are done.
pub const BODIES_BYTES_MAX: usize = 512 * 1024 * 1024;
/// So much of a body is read whatever others send, in bytes: what is urgent is small.
pub const BODY_BYTES_FREE: u64 = 64 * 1024;
/// Bytes that one permit stands for.
const PERMIT_BYTES: u64 = 1024;

/// Room for bodies, shared by the connections of a server.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        Room(Arc::new(Semaphore::new(bytes / PERMIT_BYTES as usize)))
    }
}

/// The body of a request, as it comes in. What it holds of the room is free when its [`Held`] is dropped.
#[derive(Debug)]
pub(super) struct Arriving {
    body: Incoming,
    place: Arc<Place>,
    room: PollSemaphore,
    held: Held,
    bytes: u64,
    /// Has arrived, and waits for room.
    waiting: Option<Bytes>,
}

/// What a body holds of the room, for as long as its request is being answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<std::sync::Mutex<Option<OwnedSemaphorePermit>>>);

impl Held {
    fn add(&self, permit: OwnedSemaphorePermit) {
        let mut held = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match held.as_mut() {
            Some(held) => held.merge(permit),
            None => *held = Some(permit),
        }
    }
}

impl Arriving {
    pub(super) fn new(body: Incoming, place: Arc<Place>, room: &Room) -> (Self, Held) {
        let held = Held::default();
        let room = PollSemaphore::new(Arc::clone(&room.0));
        (Arriving { body, place, room, held: held.clone(), bytes: 0, waiting: None }, held)
    }

    /// Returns how many permits the next `bytes` need.
    fn permits(&self, bytes: u64) -> u32 {
        let units = |bytes: u64| bytes.saturating_sub(BODY_BYTES_FREE).div_ceil(PERMIT_BYTES);
        u32::try_from(units(self.bytes + bytes) - units(self.bytes)).unwrap_or(u32::MAX)
    }

    /// The whole request is here.
    fn arrived(&self) -> Result<(), BoxError> {
        if self.place.busy() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection is wanted for another").into())
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let data = match this.waiting.take() {
            Some(data) => data,
            None => match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                None => return Poll::Ready(this.arrived().err().map(Err)),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            },
        };
        let length = data.len() as u64;
        let permits = this.permits(length);
        if permits > 0 {
            match this.room.poll_acquire_many(context, permits) {
                Poll::Ready(Some(permit)) => this.held.add(permit),
                // Nobody closes it.
                Poll::Ready(None) => {}
                Poll::Pending => {
                    this.waiting = Some(data);
                    return Poll::Pending;
                }
            }
        }
        this.bytes += length;
        // Whoever knows the length does not ask for an end.
        if this.body.is_end_stream()
            && let Err(error) = this.arrived()
        {
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
