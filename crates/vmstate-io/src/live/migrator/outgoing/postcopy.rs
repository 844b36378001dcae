//! What the source does from the moment on in which the guest is to go before its memory.

use std::sync::Arc;

use vmstate_engine::source::Outcome;
use vmstate_engine::{
    Capability, ChannelEnd, ChannelError, Outgoing, RecoveryLink, SaveError, SectionWriter as _,
    UrgentPages,
};
use vmstate_ram::BlockName;
use vmstate_wire::stream::ReturnPathParser;

use super::super::answers::{Bitmaps, Messages};
use super::super::{Shared, lock};
use super::{Worker, no_stream, reason};
use crate::live::connect::connect_to;
use crate::live::link::Link;
use crate::live::writer::StreamWriter;

/// Bytes that are gathered at most before they are written, so that a requested page does not wait behind more.
const BATCH: u64 = 256 << 10;

impl<'m> Worker<'m> {
    /// Connects the channel for requested pages, if there is to be one, while the guest still runs.
    pub(super) fn prepare_postcopy(&mut self) -> Outcome {
        if self.wants_urgent_channel()
            && let Err(error) = self.connect_urgent()
        {
            return Outcome::Failed(error);
        }
        self.stream(|outgoing, channel, shared| {
            channel.unlimited();
            outgoing.postcopy_prepare(&mut lock(&shared.registry), channel)
        })
    }

    pub(super) fn package(&mut self) -> Outcome {
        let bql = self.lock.take().unwrap_or_else(|| self.shared.bql());
        let outcome = self.stream(|outgoing, channel, shared| {
            channel.unlimited();
            outgoing.package(&bql, &mut lock(&shared.registry), channel)
        });
        drop(bql);
        if let Outcome::Failed(_) = &outcome {
            return outcome;
        }
        match self.start_urgent() {
            Ok(()) => outcome,
            Err(error) => Outcome::Failed(error),
        }
    }

    pub(super) fn hand_over(&mut self) -> Outcome {
        self.lock = None;
        let outcome = self.last_byte(|outgoing, channel| outgoing.hand_over(channel));
        if let Some(channel) = &mut self.channel {
            channel.gather_at_most(BATCH);
        }
        outcome
    }

    pub(super) fn complete_postcopy(&mut self) -> Outcome {
        let bql = self.shared.bql();
        self.stream(|outgoing, channel, shared| {
            channel.unlimited();
            outgoing.complete_postcopy(&bql, &mut lock(&shared.registry), channel)
        })
    }

    /// Ends all channels and whoever works on them.
    pub(super) fn disconnect(&mut self) -> Outcome {
        self.lock = None;
        self.close_channels();
        Outcome::Done
    }

    /// Ends all channels and whoever works on them.
    pub(super) fn close_channels(&mut self) {
        let mut outward = lock(&self.shared.source);
        outward.link = None;
        let urgent = outward.urgent.take();
        let stop = outward.stop.clone();
        drop(outward);
        if let Some(channel) = self.channel.take() {
            channel.link().finish();
        }
        stop.stop();
        self.shared.ram.requests().close();
        drop(urgent);
        for thread in [self.answers.take(), self.urgent.take()] {
            // It has nothing to return, and a panic of its own has been printed.
            let _ = thread.map(std::thread::JoinHandle::join);
        }
    }

    /// Connects the main channel again.
    pub(super) fn reconnect(&mut self) -> Outcome {
        let outward = lock(&self.shared.source);
        let (stop, counters) = (outward.stop.clone(), Arc::clone(&outward.counters));
        let address = outward.address.clone();
        drop(outward);
        let Some(address) = address else {
            return no_stream();
        };
        let deadlines = self.shared.deadlines;
        let link = match connect_to(&address, &self.shared.descriptors, &stop, deadlines.connect) {
            Ok(link) => link,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        if !link.is_bidirectional() {
            return Outcome::Failed("Unable to open return-path for postcopy".to_owned());
        }
        if let Err(error) = self.listen(&link, Messages::Qemu(ReturnPathParser::new())) {
            return Outcome::Failed(format!("no thread: {error}"));
        }
        lock(&self.shared.source).link = Some(link.clone());
        let link = link.with_silence(Some(deadlines.silence));
        let mut channel = StreamWriter::new(link, self.memory, counters);
        channel.gather_at_most(BATCH);
        self.channel = Some(channel);
        Outcome::Done
    }

    /// Finds out what the destination has, and tells it to go on.
    pub(super) fn recover(&mut self) -> Outcome {
        let bitmaps = Arc::clone(&self.bitmaps);
        let asked = self.stream(|outgoing, channel, shared| {
            let mut link = Asking {
                channel,
                bitmaps: &bitmaps,
            };
            outgoing.recover(&mut lock(&shared.registry), &mut link)
        });
        if let Outcome::Failed(_) = &asked {
            return asked;
        }
        if self.wants_urgent_channel()
            && let Err(error) = self.connect_urgent().and_then(|()| self.start_urgent())
        {
            return Outcome::Failed(error);
        }
        self.stream(|outgoing, channel, _| outgoing.resume(channel))
    }

    fn wants_urgent_channel(&self) -> bool {
        let outward = lock(&self.shared.source);
        let settings = outward.source.settings();
        settings.capabilities.has(Capability::PostcopyPreempt)
    }

    /// Connects the channel for requested pages.
    fn connect_urgent(&mut self) -> Result<(), String> {
        let outward = lock(&self.shared.source);
        let stop = outward.stop.clone();
        let address = outward.address.clone();
        drop(outward);
        let address = address.ok_or_else(|| "there is no connection".to_owned())?;
        let link = connect_to(
            &address,
            &self.shared.descriptors,
            &stop,
            self.shared.deadlines.connect,
        )
        .map_err(|error| error.to_string())?;
        lock(&self.shared.source).urgent = Some(link);
        Ok(())
    }

    /// Begins to send requested pages over their channel, if there is one.
    fn start_urgent(&mut self) -> Result<(), String> {
        let link = lock(&self.shared.source).urgent.clone();
        let Some(link) = link else {
            return Ok(());
        };
        let pages = self.shared.ram.requests().urgent_pages();
        let pages = pages.ok_or_else(|| "nothing sends requested pages".to_owned())?;
        let shared = Arc::clone(self.shared);
        let thread = std::thread::Builder::new()
            .name("requested pages".to_owned())
            .spawn(move || send_urgent(&shared, link, pages))
            .map_err(|error| format!("no thread: {error}"))?;
        self.urgent = Some(thread);
        Ok(())
    }
}

/// Sends requested pages until nobody wants it any more.
fn send_urgent(shared: &Shared, link: Link, mut pages: UrgentPages) {
    let memory = Arc::clone(&shared.memory);
    let counters = Arc::clone(&lock(&shared.source).counters);
    let link = link.with_silence(Some(shared.deadlines.silence));
    let mut channel = StreamWriter::new(link, &*memory, counters);
    loop {
        match pages.send(&mut channel) {
            // The main thread may wait for the last of them.
            Ok(true) => shared.wake.notify_all(),
            Ok(false) => return,
            Err(error) => {
                let why = format!("channel of requested pages: {}", reason(&error));
                let now = shared.now();
                lock(&shared.source).source.broken(now, &why);
                shared.tell_source();
                return;
            }
        }
    }
}

/// Asks on the main channel, hears on the return path.
struct Asking<'a, 'm> {
    channel: &'a mut StreamWriter<'m>,
    bitmaps: &'a Bitmaps,
}

impl RecoveryLink for Asking<'_, '_> {
    fn received_bitmap(&mut self, block: &BlockName, pages: u64) -> Result<Vec<u64>, ChannelError> {
        self.bitmaps.expect(block, pages);
        let at = self.channel.position();
        Outgoing::ask_received(block, self.channel).map_err(|error| match error {
            SaveError::Channel(error) => error,
            other => ChannelError::failed(at, other),
        })?;
        let closed = || ChannelError::new(ChannelEnd::Closed, self.channel.position());
        self.bitmaps.wait().ok_or_else(closed)
    }
}
