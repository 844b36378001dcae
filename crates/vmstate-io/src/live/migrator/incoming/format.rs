//! In which format the stream is: what the source begins with, and what it agrees on with this end.

use std::sync::Arc;

use vmstate_ber::frame::{Hello, Role};
use vmstate_engine::{ChannelError, Incoming, Peer, SectionReader as _};
use vmstate_linux::{Gather, Scatter};
use vmstate_negotiate::{Handshake, Outcome};
use vmstate_wire::stream::StreamOffset;

use super::super::lock;
use super::super::negotiate::{End, Talk, negotiate, send};
use super::{Worker, text};
use crate::live::ber::{self, BerDecoder, ReplyWriter};
use crate::live::link::Link;
use crate::live::reader::StreamReader;

/// Reads at most until a source that was refused has closed its end.
const LEFT: usize = 1024;

impl<'m> Worker<'_, '_, 'm> {
    /// Finds out in which format the stream is, and answers a source that wants to agree on it. Returns whether it is VM state over
    /// BER.
    pub(super) fn recognise(
        &self,
        incoming: &mut Incoming,
        reader: &mut StreamReader<'m>,
    ) -> Result<bool, String> {
        let peer = incoming.settings().parameters.x_peer;
        let bytes = reader.fill(1).map_err(|error| error.to_string())?;
        if !vmstate_ber::stream::is_stream(bytes) {
            return match peer {
                Peer::Vmstate => Err("x-peer is 'vmstate', and this is another stream".to_owned()),
                Peer::Auto | Peer::Qemu | Peer::Ber => Ok(false),
            };
        }
        if peer == Peer::Qemu {
            return Err("x-peer is 'qemu', and this is VM state over BER".to_owned());
        }
        self.in_frames(incoming, reader)?;
        Ok(true)
    }

    /// Whether a source that asks is told that it may go on in VM state over BER.
    pub(super) fn allows_upgrade(incoming: &Incoming) -> bool {
        let settings = incoming.settings();
        matches!(settings.parameters.x_peer, Peer::Auto | Peer::Ber)
    }

    /// Whether what replaces a broken connection goes on in the format that the migration began in: nothing is agreed on again.
    pub(super) fn begins_alike(&self, reader: &mut StreamReader<'m>) -> Result<(), String> {
        let bytes = reader.fill(1).map_err(|error| error.to_string())?;
        let framed = vmstate_ber::stream::is_stream(bytes);
        match (framed, self.answers.session()) {
            _ if bytes.is_empty() => Ok(()),
            (true, Some(_)) | (false, None) => Ok(()),
            (false, Some(_)) => Err(
                "the migration began in VM state over BER, and this is another stream".to_owned(),
            ),
            (true, None) => Err(
                "the migration began in QEMU's stream, and this is VM state over BER".to_owned(),
            ),
        }
    }

    /// VM state over BER begins here.
    pub(super) fn in_frames(
        &self,
        incoming: &mut Incoming,
        reader: &mut StreamReader<'m>,
    ) -> Result<(), String> {
        let memory = Arc::clone(&self.shared.memory);
        let mut decoder = BerDecoder::new(memory, vmstate_ber::Limits::default());
        let hello = decoder.hello(reader).map_err(text)?;
        match hello.role {
            Role::Source if reader.link().is_bidirectional() => {
                self.agree(incoming, &mut decoder, hello, reader)?;
            }
            Role::File => ber::check(&hello).map_err(|error| error.to_string())?,
            role => return Err(format!("a stream of a {role:?}, which cannot be answered")),
        }
        *lock(&self.shared.adapted) = decoder.adapted();
        incoming.change_format(Box::new(decoder));
        Ok(())
    }

    /// Negotiates with a source whose first frame has been read.
    fn agree(
        &self,
        incoming: &Incoming,
        decoder: &mut BerDecoder,
        hello: Hello,
        reader: &mut StreamReader<'m>,
    ) -> Result<(), String> {
        let terms = self
            .shared
            .terms_with_counts(incoming.settings(), End::Destination)?;
        let parser = decoder.parser().clone();
        let begun = Handshake::answering(terms, parser, hello);
        let (mut handshake, mut outcome) = begun.map_err(|error| error.to_string())?;
        let link = reader.link().clone();
        let link = link.with_silence(Some(self.shared.deadlines.silence));
        let mut talk = Answering {
            reader,
            link: &link,
        };
        send(&mut handshake, &mut talk)?;
        let outcome = match outcome.take() {
            Some(outcome) => outcome,
            None => negotiate(&mut handshake, &mut talk)?,
        };
        let refused = matches!(outcome, Outcome::Refused(_));
        let concluded = self.shared.conclude(End::Destination, outcome);
        if refused {
            let_go(&link);
        }
        concluded?;
        let Some(parts) = handshake.into_parts() else {
            return Err("there is nothing to go on with".to_owned());
        };
        decoder.go_on(parts.parser, parts.types);
        let replies = ReplyWriter::new(parts.writer);
        self.answers.open_in_frames(reader.link().clone(), replies);
        Ok(())
    }
}

/// Lets a source that was refused read why, before the connection is gone.
fn let_go(link: &Link) {
    link.finish();
    let mut buffer = [0; 4096];
    for _ in 0..LEFT {
        let mut list = Scatter::new();
        list.buffer(&mut buffer);
        if !matches!(link.read(&mut list, StreamOffset(0)), Ok(1..)) {
            return;
        }
    }
}

/// The channel of a destination that negotiates.
struct Answering<'a, 'm> {
    reader: &'a mut StreamReader<'m>,
    link: &'a Link,
}

impl Talk for Answering<'_, '_> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        let mut list = Gather::new();
        list.bytes(bytes);
        self.link.write(&mut list, StreamOffset(0))
    }

    fn receive(&mut self, into: &mut Vec<u8>, most: usize) -> Result<(), ChannelError> {
        let bytes = self.reader.fill(1)?;
        let taken = bytes.get(..most.min(bytes.len())).unwrap_or_default();
        into.extend_from_slice(taken);
        let count = taken.len();
        self.reader.consume(count);
        Ok(())
    }
}
