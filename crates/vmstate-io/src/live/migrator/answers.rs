//! The source's thread that reads the return path, and sends the pages that it hears of over their channel, if they have one.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vmstate_ber::stream::Writer;
use vmstate_engine::{ChannelEnd, ReceivedBitmaps, UrgentPages};
use vmstate_linux::Scatter;
use vmstate_ram::{BlockName, DirtyBitmap, WordOrder};
use vmstate_wire::stream::{
    ReturnEvent, ReturnMessage, ReturnPathParser, ReturnStep, StreamOffset,
};

use super::outgoing::{Probe, reason};
use super::panics::caught;
use super::{Shared, lock};
use crate::live::MappedMemory;
use crate::live::ber::{PageChannel, Replies, Said, URGENT, of_channel};
use crate::live::link::Link;
use crate::live::writer::StreamWriter;

/// Bytes that are read at once.
const BUFFER: usize = 8192;

/// What the return path says of pages that have arrived, one block after the other.
#[derive(Debug, Default)]
pub(super) struct Bitmaps {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The block that was asked for, and its target pages.
    expected: Option<(BlockName, u64)>,
    /// What has come of its bitmap.
    bytes: Vec<u8>,
    begun: bool,
    words: Option<Vec<u64>>,
    /// Nothing more will come.
    ended: bool,
}

impl Bitmaps {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a block is asked for.
    fn expect(&self, block: &BlockName, pages: u64) {
        let mut state = self.state();
        state.expected = Some((block.clone(), pages));
        state.words = None;
    }

    /// Waits for the answer; none if the return path has ended before.
    fn wait(&self) -> Option<Vec<u64>> {
        let state = self.state();
        let mut state = self
            .changed
            .wait_while(state, |state| state.words.is_none() && !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.words.take()
    }

    /// The message in front of a bitmap.
    fn announced(&self, name: &[u8]) -> Result<(), String> {
        let mut state = self.state();
        match &state.expected {
            Some((expected, _)) if expected.as_bytes() == name => {
                state.begun = true;
                state.bytes.clear();
                Ok(())
            }
            _ => Err(format!(
                "the destination sent a bitmap of RAM block {} that nobody asked for",
                name.escape_ascii()
            )),
        }
    }

    /// Its size.
    fn begins(&self, size: u64) -> Result<(), String> {
        let state = self.state();
        let pages = state.expected.as_ref().map_or(0, |(_, pages)| *pages);
        let expected = DirtyBitmap::byte_len(pages);
        if size == expected {
            return Ok(());
        }
        Err(format!(
            "the destination sent a bitmap of {size} bytes, expected {expected}"
        ))
    }

    fn piece(&self, bytes: &[u8]) {
        self.state().bytes.extend_from_slice(bytes);
    }

    fn complete(&self) -> Result<(), String> {
        let mut state = self.state();
        let Some((_, pages)) = state.expected.take() else {
            return Ok(());
        };
        let bitmap = DirtyBitmap::from_bytes(&state.bytes, pages, WordOrder::Little)
            .map_err(|error| format!("return path: {error}"))?;
        state.bytes = Vec::new();
        state.begun = false;
        state.words = Some(bitmap.words().to_vec());
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// A piece of a bitmap whose size nobody has told, and where it belongs.
    fn piece_at(&self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let mut state = self.state();
        let pages = state.expected.as_ref().map_or(0, |(_, pages)| *pages);
        let expected = DirtyBitmap::byte_len(pages);
        let have = state.bytes.len() as u64;
        let end = have.saturating_add(bytes.len() as u64);
        if !state.begun || offset != have || end > expected {
            return Err(format!(
                "the destination sent {} bytes of a bitmap for byte {offset}, expected byte {have} of {expected}",
                bytes.len()
            ));
        }
        state.bytes.extend_from_slice(bytes);
        drop(state);
        match end == expected {
            true => self.complete(),
            false => Ok(()),
        }
    }

    fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }
}

impl ReceivedBitmaps for &Bitmaps {
    fn expect(&mut self, block: &BlockName, pages: u64) {
        Bitmaps::expect(self, block, pages);
    }

    fn wait(&mut self) -> Option<Vec<u64>> {
        Bitmaps::wait(self)
    }
}

/// How the destination's messages come.
pub(super) enum Messages {
    /// As QEMU's return path.
    Qemu(ReturnPathParser),
    /// In frames.
    Ber(Box<Replies>),
}

impl Messages {
    fn offset(&self) -> StreamOffset {
        match self {
            Self::Qemu(parser) => StreamOffset(parser.offset().0),
            Self::Ber(replies) => StreamOffset(replies.offset()),
        }
    }
}

/// Reads the return path to its end, or up to where the destination will speak otherwise.
pub(super) fn read_answers(
    shared: &Shared,
    link: &Link,
    bitmaps: &Bitmaps,
    probe: &Probe,
    messages: Messages,
) {
    let heard = caught(|| hear(shared, link, bitmaps, probe, messages)).unwrap_or_else(Err);
    if let Err(why) = &heard {
        let now = shared.now();
        lock(&shared.source).source.return_path_ended(now, why);
    }
    bitmaps.end();
    probe.end();
    if heard.is_err() {
        shared.tell_source();
    }
}

/// An error if the return path has ended.
fn hear(
    shared: &Shared,
    link: &Link,
    bitmaps: &Bitmaps,
    probe: &Probe,
    mut messages: Messages,
) -> Result<(), String> {
    let memory = Arc::clone(&shared.memory);
    let frames = match &messages {
        Messages::Qemu(_) => None,
        // Where it is connected, its beginning is written.
        Messages::Ber(replies) => Some(of_channel(replies.session(), URGENT, &mut Vec::new())),
    };
    let mut hearer = Hearer {
        shared,
        bitmaps,
        probe,
        memory: &*memory,
        urgent: None,
        frames,
    };
    let mut buffer = vec![0; BUFFER];
    let mut used = 0;
    loop {
        if hearer.take(&mut messages, &mut buffer, &mut used)? {
            return Ok(());
        }
        let mut list = Scatter::new();
        list.buffer(buffer.get_mut(used..).unwrap_or_default());
        match link.read(&mut list, messages.offset()) {
            Ok(0) => return Err("the destination has closed the connection".to_owned()),
            Ok(count) => used += count,
            Err(error) if error.end == ChannelEnd::ShutDown => {
                return Err("the connection has been shut down".to_owned());
            }
            Err(error) => return Err(format!("return path: {}", reason(&error))),
        }
    }
}

/// What has come of the bytes at hand.
enum Next {
    /// They are not enough.
    More,
    /// The last message has come.
    Over,
    /// So many have been taken.
    Taken(usize),
}

/// Does what the return path asks for.
struct Hearer<'a> {
    shared: &'a Shared,
    bitmaps: &'a Bitmaps,
    probe: &'a Probe,
    memory: &'a dyn MappedMemory,
    /// The channel of requested pages, from the first one on.
    urgent: Option<(UrgentPages, StreamWriter<'a>)>,
    /// What writes it in frames.
    frames: Option<Writer>,
}

impl Hearer<'_> {
    /// Hands on the messages at hand; `true` after the last one.
    fn take(
        &mut self,
        messages: &mut Messages,
        buffer: &mut [u8],
        used: &mut usize,
    ) -> Result<bool, String> {
        let mut taken = 0;
        let mut over = false;
        while !over {
            let rest = buffer.get(taken..*used).unwrap_or_default();
            let next = match messages {
                Messages::Qemu(parser) => self.qemu_message(parser, rest)?,
                Messages::Ber(replies) => self.ber_message(replies, rest)?,
            };
            match next {
                Next::More => break,
                Next::Over => over = true,
                Next::Taken(count) => taken += count,
            }
        }
        buffer.copy_within(taken..*used, 0);
        *used -= taken;
        Ok(over)
    }

    fn qemu_message(
        &mut self,
        parser: &mut ReturnPathParser,
        bytes: &[u8],
    ) -> Result<Next, String> {
        Ok(
            match parser.next(bytes).map_err(|error| error.to_string())? {
                ReturnStep::NeedMore { .. } => Next::More,
                ReturnStep::End => Next::Over,
                ReturnStep::Event { consumed, event } => {
                    match event {
                        ReturnEvent::Message(message) => {
                            self.heard(&message)?;
                            if let ReturnMessage::Pong(value) = message
                                && self.probe.pong(value)
                            {
                                return match consumed == bytes.len() {
                                    true => Ok(Next::Over),
                                    false => Err("the destination goes on unasked".to_owned()),
                                };
                            }
                        }
                        ReturnEvent::BitmapBegin { size } => self.bitmaps.begins(size)?,
                        ReturnEvent::BitmapChunk(bytes) => self.bitmaps.piece(bytes),
                        ReturnEvent::BitmapEnd => self.bitmaps.complete()?,
                        _ => {}
                    }
                    Next::Taken(consumed)
                }
            },
        )
    }

    fn ber_message(&mut self, replies: &mut Replies, bytes: &[u8]) -> Result<Next, String> {
        let next = replies.next(bytes);
        Ok(
            match next.map_err(|error| format!("return path: {error}"))? {
                None => Next::More,
                Some((count, None)) => Next::Taken(count),
                Some((count, Some(Said::Piece(offset, bytes)))) => {
                    self.bitmaps.piece_at(offset, bytes)?;
                    Next::Taken(count)
                }
                Some((count, Some(Said::Message(message)))) => {
                    self.heard(&message)?;
                    match message {
                        ReturnMessage::RecvBitmap { .. } => {
                            // One of no bytes is complete.
                            self.bitmaps.piece_at(0, &[])?;
                            Next::Taken(count)
                        }
                        // What may follow says nothing more.
                        ReturnMessage::Shut(_) => Next::Over,
                        _ => Next::Taken(count),
                    }
                }
            },
        )
    }

    fn heard(&mut self, message: &ReturnMessage) -> Result<(), String> {
        match message {
            ReturnMessage::ReqPagesId {
                start,
                length,
                block,
            } => self.asked(Some(block.as_bytes()), *start, *length)?,
            ReturnMessage::ReqPages { start, length } => self.asked(None, *start, *length)?,
            ReturnMessage::RecvBitmap { block } => self.bitmaps.announced(block.as_bytes())?,
            _ => {}
        }
        let shared = self.shared;
        lock(&shared.source).source.message(shared.now(), message);
        // Also the main thread, which may wait for the last of the pages that have just been sent.
        shared.tell_source();
        Ok(())
    }

    fn asked(&mut self, name: Option<&[u8]>, start: u64, length: u32) -> Result<(), String> {
        let name = name.map(BlockName::new).transpose();
        let name = name.map_err(|error| error.to_string())?;
        let requests = self.shared.ram.requests();
        let pushed = requests.push(name.as_ref(), start, length.into());
        pushed.map_err(|error| format!("return path: {error}"))?;
        if let Err(why) = self.send_asked() {
            // Nobody goes on sending them on this connection.
            self.urgent = None;
            let shared = self.shared;
            let now = shared.now();
            lock(&shared.source).source.broken(now, &why);
        }
        Ok(())
    }

    /// Sends the pages that are asked for, if they have a channel of their own: from this thread, so that no other has to wake up
    /// for them.
    fn send_asked(&mut self) -> Result<(), String> {
        let shared = self.shared;
        if self.urgent.is_none() {
            let outward = lock(&shared.source);
            let Some(link) = outward.urgent.clone() else {
                return Ok(());
            };
            let counters = Arc::clone(&outward.counters);
            drop(outward);
            let Some(pages) = shared.ram.requests().urgent_pages() else {
                return Ok(());
            };
            let link = link.with_silence(Some(shared.deadlines.silence));
            let channel = StreamWriter::new(link, self.memory, counters);
            self.urgent = Some((pages, channel));
        }
        let Some((pages, channel)) = &mut self.urgent else {
            return Ok(());
        };
        let size = self.memory.page_size().bytes();
        loop {
            let sent = match &mut self.frames {
                Some(writer) => pages.send(&mut PageChannel::new(writer, channel, size)),
                None => pages.send(channel),
            };
            match sent {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    return Err(format!("channel of requested pages: {}", reason(&error)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_bitmap_are_its_own_in_order() {
        let name = BlockName::new(b"ram").expect("a name");
        let bitmaps = Bitmaps::default();
        assert!(bitmaps.piece_at(0, &[1]).is_err(), "nobody has asked");
        bitmaps.expect(&name, 100);
        assert!(bitmaps.piece_at(0, &[]).is_err(), "not announced");
        assert!(bitmaps.announced(b"rom").is_err(), "another block");
        for (offset, bytes) in [(1, 8), (0, 17), (u64::MAX, 1)] {
            bitmaps.announced(b"ram").expect("it was asked for");
            let refused = bitmaps.piece_at(offset, &vec![0; bytes]);
            refused.expect_err("another place, or too many");
        }
        bitmaps.piece_at(0, &[]).expect("nothing yet");
        bitmaps.piece_at(0, &[3; 9]).expect("the first nine");
        bitmaps.piece_at(9, &[0; 7]).expect("the rest");
        assert_eq!(bitmaps.wait(), Some(vec![0x0303_0303_0303_0303, 3]));
        assert!(bitmaps.piece_at(16, &[]).is_err(), "it is complete");
        bitmaps.expect(&name, 0);
        bitmaps.announced(b"ram").expect("it was asked for");
        bitmaps.piece_at(0, &[]).expect("all of it");
        assert_eq!(bitmaps.wait(), Some(Vec::new()));
        // Pages that the block does not have.
        bitmaps.expect(&name, 1);
        bitmaps.announced(b"ram").expect("it was asked for");
        assert!(bitmaps.piece_at(0, &[0xff; 8]).is_err());
    }
}
