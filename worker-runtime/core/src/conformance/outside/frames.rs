//! Frames of AMQP 0-9-1 (section 4.2 of its specification): type, channel, size, payload, end.

use amq_protocol::frame::{AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::AMQPClass;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Type, channel and size.
const HEAD: usize = 7;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// Larger than any frame that peers agree on: then it is no frame.
const LIMIT: usize = 64 << 20;

/// One frame, as it came.
pub(super) struct Frame {
    pub(super) channel: u16,
    bytes: Vec<u8>,
}

impl Frame {
    /// The next one.
    pub(super) async fn next(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut bytes = vec![0; HEAD];
        from.read_exact(&mut bytes).await?;
        let channel = u16::from_be_bytes([bytes[1], bytes[2]]);
        let size = u32::from_be_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]) as usize;
        if size > LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no AMQP frame"));
        }
        bytes.resize(HEAD + size + 1, 0);
        from.read_exact(&mut bytes[HEAD..]).await?;
        Ok(Self { channel, bytes })
    }

    /// Its meaning, if it is of a method or of content that this client library knows.
    pub(super) fn read(&self) -> Option<AMQPFrame> {
        match self.bytes[0] {
            METHOD | HEADER | BODY => Some(parse_frame(&self.bytes[..]).ok()?.1),
            _ => None,
        }
    }

    /// The bytes of it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }
}

/// The frame of a method.
pub(super) fn method(channel: u16, class: AMQPClass) -> Vec<u8> {
    let frame = AMQPFrame::Method(channel, class);
    let made = gen_frame(&frame)(Vec::new().into());
    // Methods that were read, or that hold two numbers, can be written.
    made.map(|context| context.into_inner().0)
        .unwrap_or_default()
}
