//! The channel of requested pages between two machines in one thread.

use std::sync::{Arc, Mutex};

use vmstate_engine::postcopy::{PostcopyRam, PreemptChannel};
use vmstate_engine::{ChannelError, HandlerError, PageRequests, SectionReader, UrgentPages};
use vmstate_ram::BlockId;
use vmstate_wire::stream::StreamOffset;

use super::channel::Channel;
use super::{Pipe, TestMemory};

/// Both its ends.
pub(crate) struct Urgent {
    out: Pipe,
    input: Pipe,
    /// What sends them, from the first request on.
    pages: Option<UrgentPages>,
    /// What places them.
    places: Option<PreemptChannel>,
    /// Its last mark has come.
    marked: bool,
}

impl Urgent {
    /// One that breaks after so many bytes, or does not.
    pub(crate) fn new([from, to]: [&Arc<TestMemory>; 2], cut: Option<u64>, noticed: bool) -> Self {
        let (out, input) = Pipe::pair(from.clone(), to.clone());
        {
            let mut channel = out.channel.lock().unwrap();
            channel.cut = cut;
            channel.tells = noticed;
        }
        Self {
            out,
            input,
            pages: None,
            places: None,
            marked: false,
        }
    }

    pub(crate) fn channel(&self) -> &Mutex<Channel> {
        &self.out.channel
    }

    /// The source sends all that has been asked for.
    pub(crate) fn send(&mut self, requests: &PageRequests) -> Result<(), HandlerError> {
        if self.pages.is_none() {
            self.pages = requests.urgent_pages();
        }
        let Some(pages) = &mut self.pages else {
            return Ok(());
        };
        while pages.send(&mut self.out)? {}
        Ok(())
    }

    /// The source has sent everything.
    pub(crate) fn end(&mut self) -> Result<(), HandlerError> {
        UrgentPages::end(&mut self.out)
    }

    /// Whether its mark has come.
    pub(crate) fn is_marked(&self) -> bool {
        self.marked
    }

    /// The destination places all that has come; `false` if there was nothing.
    pub(crate) fn receive(&mut self, ram: &Arc<PostcopyRam>) -> Result<bool, String> {
        if self.marked || !self.input.is_readable() {
            return Ok(false);
        }
        if self.places.is_none() {
            self.places = ram.preempt_channel();
        }
        let places = self.places.as_mut().expect("the list of blocks has come");
        let ran = places.run(&mut Present(&mut self.input));
        self.marked = ran.map_err(|error| error.to_string())?;
        if !self.marked && self.out.channel.lock().unwrap().is_over() {
            return Err("it has ended".to_owned());
        }
        Ok(true)
    }

    /// Nothing goes through any more.
    pub(crate) fn shut_down(&self) {
        self.out.shut_down();
    }
}

/// Reads what is there, as if there were no more: records are written as a whole, unless the channel is cut.
struct Present<'a>(&'a mut Pipe);

impl SectionReader for Present<'_> {
    fn fill(&mut self, _at_least: usize) -> Result<&[u8], ChannelError> {
        self.0.fill(0)
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }

    fn offset(&self) -> StreamOffset {
        self.0.offset()
    }

    fn read_into_guest(
        &mut self,
        block: BlockId,
        offset: u64,
        length: u64,
    ) -> Result<(), ChannelError> {
        self.0.read_into_guest(block, offset, length)
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        self.shut_down();
    }
}
