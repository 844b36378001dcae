//! The destination's thread.

use std::sync::Arc;

use vmstate_engine::destination::{Work, start_state};
use vmstate_engine::{Incoming, LoadError, LoadStep};
use vmstate_linux::Gather;
use vmstate_wire::stream::{ReturnMessage, StreamOffset, put_message};

use super::{MigrationEvent, Shared, lock};
use crate::live::connect::Listener;
use crate::live::link::Link;
use crate::live::reader::StreamReader;

/// Does all the destination's work of one migration.
pub(super) fn run(shared: &Arc<Shared>, listener: Listener) {
    let memory = Arc::clone(&shared.memory);
    let mut worker = Worker {
        shared,
        memory: &*memory,
        listener: Some(listener),
        stream: None,
        answers: None,
        sent: 0,
    };
    worker.run();
}

struct Worker<'m> {
    shared: &'m Arc<Shared>,
    memory: &'m dyn crate::live::MappedMemory,
    listener: Option<Listener>,
    stream: Option<(Incoming, StreamReader<'m>)>,
    /// The return path, once the source has opened it.
    answers: Option<Link>,
    /// Bytes sent on it.
    sent: u64,
}

impl Worker<'_> {
    fn run(&mut self) {
        loop {
            self.shared.tell_destination();
            let work = lock(&self.shared.destination).destination.work();
            if work == Work::Rest {
                break;
            }
            let result = self.work(work);
            let destination = &mut lock(&self.shared.destination).destination;
            // The machine has just given this work out, so it takes what came of it.
            let _ = match result {
                Ok(()) => destination.done(),
                Err(reason) => destination.failed(&reason),
            };
        }
        self.shared.tell_destination();
        let failure = lock(&self.shared.destination)
            .destination
            .error()
            .map(str::to_owned);
        (self.shared.observer)(&MigrationEvent::Arrived(failure));
    }

    fn work(&mut self, work: Work) -> Result<(), String> {
        match work {
            Work::Accept => self.accept(),
            Work::Load => self.load(),
            Work::Trailer => match &mut self.stream {
                Some((incoming, reader)) => incoming.trailer(reader).map_err(|e| e.to_string()),
                None => Ok(()),
            },
            Work::Start(token) => {
                let autostart = *lock(&self.shared.autostart);
                let state = start_state((self.shared.arrived)(), autostart);
                let bql = self.shared.bql();
                self.shared.machine.start(&bql, token, state);
                Ok(())
            }
            Work::Shut(value) => {
                if self.answers.is_some() {
                    self.answer(&ReturnMessage::Shut(value))?;
                }
                Ok(())
            }
            Work::CleanUp => {
                let bql = self.shared.bql();
                lock(&self.shared.registry).load_cleanup(&bql);
                drop(bql);
                if let Some(link) = self.answers.take() {
                    link.finish();
                }
                self.stream = None;
                self.listener = None;
                Ok(())
            }
            Work::Rest => Ok(()),
        }
    }

    fn accept(&mut self) -> Result<(), String> {
        let stop = lock(&self.shared.destination).stop.clone();
        let Some(listener) = self.listener.take() else {
            return Err("there is nothing to listen on".to_owned());
        };
        let link = listener.accept(&stop).map_err(|error| error.to_string())?;
        let settings = lock(&self.shared.settings).clone();
        let incoming = Incoming::new(settings, self.shared.identity.clone());
        self.stream = Some((incoming, StreamReader::new(link, self.memory)));
        Ok(())
    }

    fn load(&mut self) -> Result<(), String> {
        let Some((mut incoming, mut reader)) = self.stream.take() else {
            return Err("there is no connection".to_owned());
        };
        let result = self.load_from(&mut incoming, &mut reader);
        self.stream = Some((incoming, reader));
        result
    }

    fn load_from(
        &mut self,
        incoming: &mut Incoming,
        reader: &mut StreamReader<'_>,
    ) -> Result<(), String> {
        let shared = self.shared;
        incoming.begin(reader).map_err(text)?;
        incoming
            .setup(&shared.bql(), &mut lock(&shared.registry))
            .map_err(text)?;
        loop {
            match incoming.next(reader).map_err(text)? {
                LoadStep::Eof => return Ok(()),
                LoadStep::OpenReturnPath => {
                    if reader.link().is_bidirectional() {
                        self.answers = Some(reader.link().clone());
                    }
                }
                LoadStep::Send(message) => self.answer(&message)?,
                LoadStep::Section => {
                    let bql = shared.bql();
                    incoming
                        .section(Some(&bql), &mut lock(&shared.registry), reader)
                        .map_err(text)?;
                }
                LoadStep::SwitchoverStart => {
                    let bql = shared.bql();
                    incoming
                        .switchover_start(Some(&bql), &mut lock(&shared.registry))
                        .map_err(text)?;
                }
            }
        }
    }

    /// Sends a message on the return path, if it is open.
    fn answer(&mut self, message: &ReturnMessage) -> Result<(), String> {
        let Some(link) = &self.answers else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        put_message(&mut bytes, message);
        let mut list = Gather::new();
        list.bytes(&bytes);
        let offset = StreamOffset(self.sent);
        self.sent = self.sent.saturating_add(bytes.len() as u64);
        link.write(&mut list, offset)
            .map_err(|error| format!("return path: {error}"))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the argument of map_err")]
fn text(error: LoadError) -> String {
    super::outgoing::reason(&error)
}
