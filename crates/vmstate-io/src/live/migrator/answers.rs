//! The source's thread that reads the return path.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use vmstate_engine::ChannelEnd;
use vmstate_linux::Scatter;
use vmstate_ram::{BlockName, DirtyBitmap, WordOrder};
use vmstate_wire::stream::{
    ReturnEvent, ReturnMessage, ReturnPathParser, ReturnStep, StreamOffset,
};

use super::outgoing::reason;
use super::{Shared, lock};
use crate::live::ber::Replies;
use crate::live::link::Link;

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
    pub(super) fn expect(&self, block: &BlockName, pages: u64) {
        let mut state = self.state();
        state.expected = Some((block.clone(), pages));
        state.words = None;
    }

    /// Waits for the answer; none if the return path has ended before.
    pub(super) fn wait(&self) -> Option<Vec<u64>> {
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

    fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
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
    /// What has come already.
    fn waiting(&mut self) -> Vec<u8> {
        match self {
            Self::Qemu(_) => Vec::new(),
            Self::Ber(replies) => replies.waiting(),
        }
    }

    fn offset(&self) -> StreamOffset {
        match self {
            Self::Qemu(parser) => StreamOffset(parser.offset().0),
            Self::Ber(replies) => StreamOffset(replies.offset()),
        }
    }
}

/// Reads the return path to its end.
pub(super) fn read_answers(
    shared: &Shared,
    link: &Link,
    bitmaps: &Bitmaps,
    mut messages: Messages,
) {
    let mut buffer = messages.waiting();
    let mut used = buffer.len();
    buffer.resize(used.max(BUFFER), 0);
    let why = loop {
        match take_answers(shared, bitmaps, &mut messages, &mut buffer, &mut used) {
            Ok(true) => {
                bitmaps.end();
                return;
            }
            Ok(false) => {}
            Err(why) => break why,
        }
        let mut list = Scatter::new();
        list.buffer(buffer.get_mut(used..).unwrap_or_default());
        match link.read(&mut list, messages.offset()) {
            Ok(0) => break "the destination has closed the connection".to_owned(),
            Ok(count) => used += count,
            Err(error) if error.end == ChannelEnd::ShutDown => {
                break "the connection has been shut down".to_owned();
            }
            Err(error) => break format!("return path: {}", reason(&error)),
        }
    };
    let now = shared.now();
    lock(&shared.source).source.return_path_ended(now, &why);
    bitmaps.end();
    shared.tell_source();
}

/// Hands on the messages at hand; `true` after the last one.
fn take_answers(
    shared: &Shared,
    bitmaps: &Bitmaps,
    messages: &mut Messages,
    buffer: &mut [u8],
    used: &mut usize,
) -> Result<bool, String> {
    let mut taken = 0;
    let mut over = false;
    while !over {
        let rest = buffer.get(taken..*used).unwrap_or_default();
        let next = match messages {
            Messages::Qemu(parser) => qemu_message(shared, bitmaps, parser, rest)?,
            Messages::Ber(replies) => ber_message(shared, bitmaps, replies, rest)?,
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

/// What has come of the bytes at hand.
enum Next {
    /// They are not enough.
    More,
    /// The last message has come.
    Over,
    /// So many have been taken.
    Taken(usize),
}

fn qemu_message(
    shared: &Shared,
    bitmaps: &Bitmaps,
    parser: &mut ReturnPathParser,
    bytes: &[u8],
) -> Result<Next, String> {
    Ok(
        match parser.next(bytes).map_err(|error| error.to_string())? {
            ReturnStep::NeedMore { .. } => Next::More,
            ReturnStep::End => Next::Over,
            ReturnStep::Event { consumed, event } => {
                match event {
                    ReturnEvent::Message(message) => heard(shared, bitmaps, &message)?,
                    ReturnEvent::BitmapBegin { size } => bitmaps.begins(size)?,
                    ReturnEvent::BitmapChunk(bytes) => bitmaps.piece(bytes),
                    ReturnEvent::BitmapEnd => bitmaps.complete()?,
                    _ => {}
                }
                Next::Taken(consumed)
            }
        },
    )
}

fn ber_message(
    shared: &Shared,
    bitmaps: &Bitmaps,
    replies: &mut Replies,
    bytes: &[u8],
) -> Result<Next, String> {
    let next = replies.next(bytes);
    Ok(
        match next.map_err(|error| format!("return path: {error}"))? {
            None => Next::More,
            Some((count, None)) => Next::Taken(count),
            Some((count, Some(message))) => {
                heard(shared, bitmaps, &message)?;
                match message {
                    // What may follow says nothing more.
                    ReturnMessage::Shut(_) => Next::Over,
                    _ => Next::Taken(count),
                }
            }
        },
    )
}

fn heard(shared: &Shared, bitmaps: &Bitmaps, message: &ReturnMessage) -> Result<(), String> {
    let request = |name: Option<&[u8]>, start, length: u32| {
        let name = name.map(BlockName::new).transpose();
        let name = name.map_err(|error| error.to_string())?;
        let requests = shared.ram.requests();
        let pushed = requests.push(name.as_ref(), start, length.into());
        pushed.map_err(|error| format!("return path: {error}"))
    };
    match message {
        ReturnMessage::ReqPagesId {
            start,
            length,
            block,
        } => request(Some(block.as_bytes()), *start, *length)?,
        ReturnMessage::ReqPages { start, length } => request(None, *start, *length)?,
        ReturnMessage::RecvBitmap { block } => bitmaps.announced(block.as_bytes())?,
        _ => {}
    }
    lock(&shared.source).source.message(shared.now(), message);
    shared.tell_source();
    Ok(())
}
