//! What the source does from the moment on in which the guest is to go before its memory.

use std::sync::Arc;

use vmstate_engine::source::Outcome;
use vmstate_engine::{Capability, Peer, UrgentPages};
use vmstate_linux::Gather;
use vmstate_wire::stream::{ReturnPathParser, StreamOffset};

use super::super::answers::Messages;
use super::super::lock;
use super::{Worker, no_stream, reason};
use crate::live::ber::{Replies, URGENT, of_channel};
use crate::live::connect::connect_to;
use crate::live::writer::StreamWriter;

/// Bytes that are gathered at most before they are written, where requested pages have a channel of their own.
const BATCH: u64 = 256 << 10;
/// The same where a requested page waits behind them.
const SMALL: u64 = 64 << 10;
/// And bytes that may wait in the socket.
const UNSENT: u32 = 96 << 10;

impl<'m> Worker<'m> {
    /// Connects the channel for requested pages, if there is to be one, while the guest still runs.
    pub(super) fn prepare_postcopy(&mut self) -> Outcome {
        let connected = self.then_connect_urgent(Outcome::Done, false);
        if !matches!(connected, Outcome::Done) {
            return connected;
        }
        self.stream(|outgoing, channel, shared| {
            channel.unlimited();
            outgoing.postcopy_prepare(&mut lock(&shared.registry), channel)
        })
    }

    pub(super) fn package(&mut self) -> Outcome {
        let bql = self.lock.take().unwrap_or_else(|| self.shared.bql());
        self.stream(|outgoing, channel, shared| {
            channel.unlimited();
            outgoing.package(&bql, &mut lock(&shared.registry), channel)
        })
    }

    pub(super) fn hand_over(&mut self) -> Outcome {
        self.lock = None;
        let outcome = self.last_byte(|outgoing, channel| outgoing.hand_over(channel));
        self.shorten_queue();
        outcome
    }

    pub(super) fn complete_postcopy(&mut self) -> Outcome {
        let bql = self.shared.bql();
        let completed = self.stream(|outgoing, channel, shared| {
            channel.unlimited();
            outgoing.complete_postcopy(&bql, &mut lock(&shared.registry), channel)
        });
        drop(bql);
        match completed {
            Outcome::Done => match self.end_urgent() {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Failed(error),
            },
            other => other,
        }
    }

    /// Says on the channel of requested pages that it ends, where the destination waits for that.
    fn end_urgent(&self) -> Result<(), String> {
        if !self.preempts_early() {
            return Ok(());
        }
        let outward = lock(&self.shared.source);
        let (link, counters) = (outward.urgent.clone(), Arc::clone(&outward.counters));
        drop(outward);
        let Some(link) = link else {
            return Ok(());
        };
        // Every page that was asked for has left, and what is asked for now has been sent: nobody else writes there.
        let link = link.with_silence(Some(self.shared.deadlines.silence));
        let mut channel = StreamWriter::new(link, self.memory, counters);
        UrgentPages::end(&mut channel)
            .map_err(|error| format!("channel of requested pages: {}", reason(&error)))
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
        outward.urgent = None;
        let stop = outward.stop.clone();
        drop(outward);
        if let Some(channel) = self.channel.take() {
            channel.link().finish();
        }
        stop.stop();
        // It has nothing to return, and a panic of its own has been printed.
        let _ = self.answers.take().map(std::thread::JoinHandle::join);
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
        let messages = match self.session {
            // In the format that it began in.
            Some(session) => Messages::Ber(Box::new(Replies::again(session))),
            None => Messages::Qemu(ReturnPathParser::new()),
        };
        if let Err(error) = self.listen(&link, messages) {
            return Outcome::Failed(format!("no thread: {error}"));
        }
        lock(&self.shared.source).link = Some(link.clone());
        let link = link.with_silence(Some(deadlines.silence));
        self.channel = Some(StreamWriter::new(link, self.memory, counters));
        self.shorten_queue();
        self.then_connect_urgent(Outcome::Done, true)
    }

    /// Finds out what the destination has, and tells it to go on.
    pub(super) fn recover(&mut self) -> Outcome {
        let bitmaps = Arc::clone(&self.bitmaps);
        let asked = self.stream(|outgoing, channel, shared| {
            outgoing.recover(&mut lock(&shared.registry), channel, &mut &*bitmaps)
        });
        let connected = self.then_connect_urgent(asked, false);
        if !matches!(connected, Outcome::Done) {
            return connected;
        }
        self.stream(|outgoing, channel, _| outgoing.resume(channel))
    }

    /// From now on, little stands between a requested page and the destination.
    fn shorten_queue(&mut self) {
        let separate = self.wants_urgent_channel();
        let Some(channel) = &mut self.channel else {
            return;
        };
        if separate {
            channel.gather_at_most(BATCH);
        } else {
            channel.gather_at_most(SMALL);
            channel.link().limit_unsent(UNSENT);
        }
    }

    fn wants_urgent_channel(&self) -> bool {
        let outward = lock(&self.shared.source);
        let settings = outward.source.settings();
        settings.capabilities.has(Capability::PostcopyPreempt)
    }

    /// Whether the channel for requested pages is that of machine types of 7.2 and older. VM state over BER has its own.
    pub(super) fn preempts_early(&self) -> bool {
        let outward = lock(&self.shared.source);
        let settings = outward.source.settings();
        let may_be_qemu = matches!(settings.parameters.x_peer, Peer::Auto | Peer::Qemu);
        self.session.is_none() && may_be_qemu && settings.preempts_early()
    }

    /// After work that is done: connects the channel for requested pages, if there is to be one and this is the moment. `early`: right
    /// behind the main channel, which is where machine types of 7.2 and older expect it; others, when it is needed.
    pub(super) fn then_connect_urgent(&mut self, outcome: Outcome, early: bool) -> Outcome {
        if !matches!(outcome, Outcome::Done)
            || !self.wants_urgent_channel()
            || self.preempts_early() != early
        {
            return outcome;
        }
        match self.connect_urgent() {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(error),
        }
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
        if let Some(session) = self.session {
            let mut bytes = Vec::new();
            of_channel(session, URGENT, &mut bytes);
            let mut list = Gather::new();
            list.bytes(&bytes);
            let begun = link.write(&mut list, StreamOffset(0));
            begun.map_err(|error| format!("channel of requested pages: {}", reason(&error)))?;
        }
        lock(&self.shared.source).urgent = Some(link);
        Ok(())
    }
}
