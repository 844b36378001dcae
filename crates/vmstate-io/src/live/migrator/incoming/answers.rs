//! What goes back to the source: answers, page requests, bitmaps. Several threads send.

use std::sync::Mutex;

use vmstate_engine::ChannelError;
use vmstate_engine::postcopy::{PageRequest, PostcopyRam};
use vmstate_linux::Gather;
use vmstate_ram::{BlockId, DirtyBitmap, put_received_bitmap};
use vmstate_wire::stream::{BlockName, ReturnMessage, StreamOffset, put_message};

use crate::live::ber::ReplyWriter;
use crate::live::link::Link;
use crate::live::migrator::lock;

/// The return path, once the source has opened it.
#[derive(Default)]
pub(super) struct Answers(Mutex<Way>);

#[derive(Default)]
struct Way {
    link: Option<Link>,
    /// The number of the migration, if both ends have agreed to speak in frames.
    session: Option<[u8; 16]>,
    /// Bytes sent.
    sent: u64,
    /// Pages may be asked for.
    asks: bool,
    /// The block that the last request has named.
    named: Option<BlockId>,
    /// Messages go in frames.
    replies: Option<ReplyWriter>,
}

impl Answers {
    /// The source wants answers on this channel.
    pub(super) fn open(&self, link: Link) {
        let mut way = lock(&self.0);
        if way.replies.is_some() {
            // It has been open since both ends agreed.
            return;
        }
        *way = Way {
            link: Some(link),
            asks: true,
            ..Way::default()
        };
    }

    /// Both ends have agreed to speak in frames; messages follow what `replies` has written.
    pub(super) fn open_in_frames(&self, link: Link, replies: ReplyWriter) {
        *lock(&self.0) = Way {
            link: Some(link),
            session: Some(replies.session()),
            asks: true,
            replies: Some(replies),
            ..Way::default()
        };
    }

    /// This channel replaces one that was closed. Pages are asked for only after [`resume`](Self::resume).
    pub(super) fn open_again(&self, link: Link) {
        let mut way = lock(&self.0);
        let mut bytes = Vec::new();
        let session = way.session;
        *way = Way {
            link: Some(link),
            session,
            replies: session.map(|session| ReplyWriter::again(session, &mut bytes)),
            ..Way::default()
        };
        // A connection that is gone already is noticed by who reads it: what has come before must not be lost for that.
        let _ = way.write(&bytes);
    }

    /// The number of the migration, if it speaks in frames.
    pub(super) fn session(&self) -> Option<[u8; 16]> {
        lock(&self.0).session
    }

    pub(super) fn is_open(&self) -> bool {
        lock(&self.0).link.is_some()
    }

    /// Whether it is open, and the source has neither closed it nor gone.
    pub(super) fn is_whole(&self) -> bool {
        lock(&self.0).link.as_ref().is_some_and(Link::is_whole)
    }

    /// Nothing goes back any more; returns the channel.
    pub(super) fn close(&self) -> Option<Link> {
        let mut way = lock(&self.0);
        let session = way.session;
        let closed = Way {
            session,
            ..Way::default()
        };
        std::mem::replace(&mut *way, closed).link
    }

    /// Sends a message, if the return path is open.
    pub(super) fn send(&self, message: &ReturnMessage) -> Result<(), String> {
        let mut way = lock(&self.0);
        let mut bytes = Vec::new();
        way.put(message, &mut bytes);
        way.write(&bytes)
    }

    /// Says which pages of a block have arrived.
    pub(super) fn bitmap(&self, block: BlockName, received: &DirtyBitmap) -> Result<(), String> {
        let mut way = lock(&self.0);
        let mut bytes = Vec::new();
        if let Some(replies) = &mut way.replies {
            replies.bitmap(block, received, &mut bytes);
        } else {
            put_message(&mut bytes, &ReturnMessage::RecvBitmap { block });
            put_received_bitmap(received, &mut bytes);
        }
        way.write(&bytes)
    }

    /// Asks for what `gather` gives. Nothing else is asked for meanwhile, so nothing twice.
    pub(super) fn ask(
        &self,
        ram: &PostcopyRam,
        gather: impl FnOnce(&mut Vec<PageRequest>),
    ) -> Result<(), String> {
        let mut way = lock(&self.0);
        let mut requests = Vec::new();
        gather(&mut requests);
        if !way.asks {
            return Ok(());
        }
        let mut bytes = Vec::new();
        way.put_requests(ram, &requests, &mut bytes);
        way.write(&bytes)
    }

    /// Tells the source to go on, and asks again for everything that has not come.
    pub(super) fn resume(&self, ram: &PostcopyRam) -> Result<(), String> {
        let mut way = lock(&self.0);
        way.asks = true;
        let mut bytes = Vec::new();
        way.put(&ReturnMessage::ResumeAck(1), &mut bytes);
        way.put_requests(ram, &ram.outstanding(), &mut bytes);
        way.write(&bytes)
    }
}

impl Way {
    fn put(&mut self, message: &ReturnMessage, out: &mut Vec<u8>) {
        match &mut self.replies {
            Some(replies) => replies.put(message, out),
            None => put_message(out, message),
        }
    }

    fn put_requests(&mut self, ram: &PostcopyRam, requests: &[PageRequest], out: &mut Vec<u8>) {
        for request in requests {
            let (start, length) = (request.offset, request.length);
            let name = ram.name(request.block).map(|name| name.as_bytes().to_vec());
            let block = name.and_then(|name| BlockName::new(name).ok());
            let message = match block {
                Some(block) if self.named != Some(request.block) => ReturnMessage::ReqPagesId {
                    start,
                    length,
                    block,
                },
                _ => ReturnMessage::ReqPages { start, length },
            };
            self.named = Some(request.block);
            self.put(&message, out);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(link) = self.link.as_ref().filter(|_| !bytes.is_empty()) else {
            return Ok(());
        };
        let mut list = Gather::new();
        list.bytes(bytes);
        let offset = StreamOffset(self.sent);
        self.sent = self.sent.saturating_add(bytes.len() as u64);
        let text = |error: ChannelError| format!("return path: {error}");
        link.write(&mut list, offset).map_err(text)
    }
}
