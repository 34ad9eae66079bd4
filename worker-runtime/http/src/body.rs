//! Bodies of requests: read up to a limit each, and up to a limit of all that are held at one time.

use crate::server::Trouble;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room is counted in pieces of so many bytes.
const PIECE: usize = 1024;

/// The room for all bodies of a server.
#[derive(Clone)]
pub(crate) struct Bodies {
    room: Arc<Semaphore>,
    limit: usize,
}

/// Room that a body takes until its request, and every copy of it, is dropped.
pub(crate) type Room = Arc<OwnedSemaphorePermit>;

impl Bodies {
    pub(crate) fn new(limit: usize) -> Self {
        let pieces = limit.div_ceil(PIECE).min(Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(pieces)),
            limit,
        }
    }

    /// Reads a body of at most `limit` bytes. Room is taken as bytes arrive, so that nobody holds it by announcing much.
    pub(crate) async fn read(
        &self,
        mut body: Incoming,
        limit: usize,
    ) -> Result<(Bytes, Option<Room>), Trouble> {
        let mut read = BytesMut::new();
        let mut room: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Trouble::Broken)?.into_data() else {
                continue;
            };
            let length = read.len() + data.len();
            if length > limit {
                return Err(Trouble::TooLarge(limit));
            }
            let has = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let lacks = length.div_ceil(PIECE).saturating_sub(has);
            if lacks > 0 {
                let full = |_| Trouble::TooMuch(self.limit);
                let lacks = u32::try_from(lacks).unwrap_or(u32::MAX);
                let more = Arc::clone(&self.room).try_acquire_many_owned(lacks);
                let more = more.map_err(full)?;
                match &mut room {
                    Some(room) => room.merge(more),
                    None => room = Some(more),
                }
            }
            read.extend_from_slice(&data);
        }
        Ok((read.freeze(), room.map(Arc::new)))
    }
}
