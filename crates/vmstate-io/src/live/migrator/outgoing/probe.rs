//! Is the destination one of ours? Asked in a way that QEMU answers, too.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmstate_ber::frame::{Finding, Severity};
use vmstate_ber::stream::Writer;
use vmstate_engine::probe::{ALLOWED, FENCE};
use vmstate_engine::source::Outcome;
use vmstate_engine::{ChannelError, ChannelWriter as _, Peer, SectionWriter as _, Settings};
use vmstate_linux::Scatter;
use vmstate_negotiate::{Handshake, Report, Rule};
use vmstate_wire::stream::StreamOffset;

use super::super::answers::Messages;
use super::super::lock;
use super::super::negotiate::{End, Talk, negotiate};
use super::{Worker, no_stream};
use crate::live::ber::Replies;
use crate::live::link::Link;
use crate::live::writer::StreamWriter;

/// What the destination has said to the probe.
#[derive(Debug, Default)]
pub(in crate::live::migrator) struct Probe {
    said: Mutex<Said>,
    changed: Condvar,
}

/// What came of the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The destination allows the upgrade.
    Ours,
    /// It does not.
    AsQemu,
    /// The return path has ended before.
    Ended,
    /// It says nothing at all.
    Nothing,
}

#[derive(Debug, Default)]
struct Said {
    allowed: bool,
    fenced: bool,
    /// Nothing more will come.
    ended: bool,
}

impl Probe {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A PONG has come. `true`: the return path of QEMU's stream ends here, the destination will speak otherwise.
    pub(in crate::live::migrator) fn pong(&self, value: u32) -> bool {
        let mut said = self.said();
        match value {
            ALLOWED if !said.fenced => said.allowed = true,
            FENCE if !said.fenced => {
                said.fenced = true;
                self.changed.notify_all();
                return said.allowed;
            }
            _ => {}
        }
        false
    }

    pub(in crate::live::migrator) fn end(&self) {
        self.said().ended = true;
        self.changed.notify_all();
    }

    /// Waits for the fence.
    fn wait(&self, patience: Duration) -> Answer {
        let open = |said: &mut Said| !said.fenced && !said.ended;
        let (said, _) = self
            .changed
            .wait_timeout_while(self.said(), patience, open)
            .unwrap_or_else(PoisonError::into_inner);
        match (said.fenced, said.ended) {
            (true, _) if said.allowed => Answer::Ours,
            (true, _) => Answer::AsQemu,
            (false, true) => Answer::Ended,
            (false, false) => Answer::Nothing,
        }
    }
}

impl<'m> Worker<'m> {
    /// Writes the beginning of the stream, and finds out who reads it.
    pub(super) fn begin(&mut self) -> Outcome {
        let begun = self.stream(|outgoing, channel, _| outgoing.begin(channel));
        // By now the destination can tell that what is connected is the main channel.
        let begun = self.then_connect_urgent(begun, true);
        let peer = self.peer();
        if !matches!(begun, Outcome::Done) || !self.asks(peer) {
            return match (begun, peer) {
                (Outcome::Done, Peer::Ber) => Outcome::Failed(refused(CANNOT_ASK)),
                (begun, _) => begun,
            };
        }
        let asked = self.stream(|outgoing, channel, _| outgoing.probe(channel));
        if !matches!(asked, Outcome::Done) {
            return asked;
        }
        match self.probe.wait(self.shared.deadlines.silence) {
            Answer::Ours => self.upgrade(),
            Answer::AsQemu if peer == Peer::Ber => Outcome::Failed(refused(NOT_OURS)),
            Answer::AsQemu => Outcome::Done,
            // The thread of the return path has said why.
            Answer::Ended => no_stream(),
            Answer::Nothing => Outcome::Failed(SILENT.to_owned()),
        }
    }

    fn peer(&self) -> Peer {
        let outward = lock(&self.shared.source);
        outward.source.settings().parameters.x_peer
    }

    /// Whether the destination is asked who it is. Not if the channel for requested pages is already there, in QEMU's form.
    fn asks(&self, peer: Peer) -> bool {
        if self.preempts_early() {
            return false;
        }
        let link = self.channel.as_ref().map(StreamWriter::link);
        matches!(peer, Peer::Auto | Peer::Ber) && link.is_some_and(Link::is_bidirectional)
    }

    /// Goes on in VM state over BER.
    fn upgrade(&mut self) -> Outcome {
        // It ends with the fence.
        let _ = self.answers.take().map(std::thread::JoinHandle::join);
        let told = self.stream(|outgoing, channel, _| outgoing.upgrade(channel));
        if !matches!(told, Outcome::Done) {
            return told;
        }
        let Some(channel) = self.channel.take() else {
            return no_stream();
        };
        let settings = lock(&self.shared.source).source.settings().clone();
        let link = channel.link().clone();
        match self.begin_ber(&link, channel, settings) {
            Ok(()) => self.stream(|outgoing, channel, _| outgoing.begin(channel)),
            Err(reason) => Outcome::Failed(reason),
        }
    }

    /// Negotiates with a destination of ours. What follows is written behind what is returned; what it answers is heard from here on.
    pub(super) fn agree(
        &mut self,
        link: &Link,
        channel: &mut StreamWriter<'m>,
        settings: &Settings,
    ) -> Result<Writer, String> {
        let terms = self.shared.terms_with_counts(settings, End::Source)?;
        let mut handshake = Handshake::source(terms);
        let mut talk = Speaking {
            link,
            channel,
            read: 0,
        };
        let outcome = negotiate(&mut handshake, &mut talk)?;
        self.shared.conclude(End::Source, outcome)?;
        let Some(parts) = handshake.into_parts() else {
            return Err("there is nothing to go on with".to_owned());
        };
        self.session = Some(parts.writer.session());
        self.listen(link, Messages::Ber(Box::new(Replies::new(parts.parser))))
            .map_err(|error| format!("no thread: {error}"))?;
        Ok(parts.writer)
    }
}

/// What every destination with a return path does.
const SILENT: &str = "the destination has answered nothing for too long";
const NOT_OURS: &str = "it answers as QEMU does";
const CANNOT_ASK: &str = "it cannot be asked: there is no way back";

/// The destination speaks nothing but QEMU's stream, and that is not enough.
fn refused(found: &str) -> String {
    let finding = Finding {
        severity: Severity::Error,
        rule: Rule::N09.id().to_owned(),
        path: "destination".to_owned(),
        expected: None,
        found: None,
        text: Some(format!("{}: {found}", Rule::N09.title())),
    };
    let refused = true;
    let findings = vec![finding];
    Report { refused, findings }.to_string()
}

/// The channel of a source that negotiates.
struct Speaking<'a, 'm> {
    link: &'a Link,
    channel: &'a mut StreamWriter<'m>,
    /// Bytes that have come.
    read: u64,
}

impl Talk for Speaking<'_, '_> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.channel.bytes(bytes)?;
        self.channel.flush()
    }

    fn receive(&mut self, into: &mut Vec<u8>, most: usize) -> Result<(), ChannelError> {
        let before = into.len();
        into.resize(before.saturating_add(most), 0);
        let mut list = Scatter::new();
        list.buffer(into.get_mut(before..).unwrap_or_default());
        let count = self.link.read(&mut list, StreamOffset(self.read));
        let got = count.as_ref().copied().unwrap_or(0);
        into.truncate(before.saturating_add(got));
        self.read = self.read.saturating_add(got as u64);
        count.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use vmstate_engine::probe::PROBE;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn said(pongs: &[u32]) -> (bool, Answer) {
        let probe = Probe::default();
        let switched = pongs.iter().any(|value| probe.pong(*value));
        probe.end();
        (switched, probe.wait(PATIENCE))
    }

    #[test]
    fn the_fence_decides() {
        for (pongs, expected) in [
            (&[][..], (false, Answer::Ended)),
            (&[1, PROBE], (false, Answer::Ended)),
            (&[ALLOWED], (false, Answer::Ended)),
            (&[1, PROBE, FENCE], (false, Answer::AsQemu)),
            (&[1, PROBE, ALLOWED, FENCE], (true, Answer::Ours)),
            // Too late.
            (&[PROBE, FENCE, ALLOWED], (false, Answer::AsQemu)),
            (&[PROBE, FENCE, ALLOWED, FENCE], (false, Answer::AsQemu)),
        ] {
            assert_eq!(said(pongs), expected, "{pongs:x?}");
        }
        let silent = Probe::default();
        assert_eq!(silent.wait(Duration::from_millis(1)), Answer::Nothing);
    }

    #[test]
    fn whoever_waits_is_woken() {
        for (end, expected) in [
            (
                (|probe| assert!(!probe.pong(FENCE))) as fn(&Probe),
                Answer::AsQemu,
            ),
            (Probe::end, Answer::Ended),
        ] {
            let probe = Probe::default();
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| probe.wait(PATIENCE));
                end(&probe);
                assert_eq!(waits.join().ok(), Some(expected));
            });
        }
    }
}
