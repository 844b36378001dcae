//! Reading pages when the guest may run already: the main channel, and that of requested pages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstate_engine::{HandlerError, Incoming, LoadStep};

use super::answers::Answers;
use super::service::Service;
use super::text;
use crate::clock::after;
use crate::live::ber::BerDecoder;
use crate::live::connect::Listener;
use crate::live::link::Link;
use crate::live::migrator::{Shared, lock};
use crate::live::reader::StreamReader;
use crate::live::stop::{Stop, Woken};

/// How long the channels may end one after the other, when the source has sent everything.
const APART: Duration = Duration::from_secs(2);
/// How often is looked whether all that was asked for has come.
const LOOK: Duration = Duration::from_millis(1);

/// Everything that is needed to read pages.
pub(super) struct Receiver<'a, 'm> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) service: &'a Service,
    pub(super) answers: &'a Answers,
    /// Ends the main channel.
    pub(super) stop: &'a Stop,
    pub(super) reader: StreamReader<'m>,
    /// The channel of requested pages.
    pub(super) preempt: Option<Link>,
    /// Where that channel comes from when the connection is a new one.
    pub(super) listener: Option<&'a Listener>,
}

impl Receiver<'_, '_> {
    /// Reads up to the end of the stream, when all pages are there.
    pub(super) fn run(mut self, incoming: &mut Incoming) -> Result<(), String> {
        let preempt = self.preempt.take();
        let (service, stop, shared) = (self.service, self.stop, self.shared);
        std::thread::scope(|scope| {
            let begin = |link: Link| {
                let ends = link.stop().clone();
                let session = self.answers.session();
                let thread =
                    scope.spawn(move || read_preempt(shared, service, session, link, stop));
                (ends, thread)
            };
            let mut urgent = preempt.map(begin);
            let result = self.read(incoming, |link| urgent = Some(begin(link)));
            let more = || {
                urgent
                    .as_ref()
                    .is_some_and(|(_, thread)| !thread.is_finished())
            };
            let framed = self.answers.session().is_some();
            let early = incoming.settings().preempts_early() && !framed;
            let result = result.and_then(|()| self.all_is_there(more, early));
            let Some((ends, thread)) = urgent else {
                return result;
            };
            ends.stop();
            let other = thread
                .join()
                .unwrap_or_else(|_| Err("it panicked".to_owned()));
            match (result, other) {
                // Whichever broke has shut the other one down.
                (Err(_), Err(why)) if self.stop.is_stopped() => {
                    Err(format!("preempt channel: {why}"))
                }
                (result, _) => result,
            }
        })
    }

    fn read(&mut self, incoming: &mut Incoming, mut begin: impl FnMut(Link)) -> Result<(), String> {
        loop {
            match incoming.next(&mut self.reader).map_err(text)? {
                LoadStep::Section => {
                    let registry = &mut lock(&self.service.registry);
                    incoming
                        .section(None, registry, &mut self.reader)
                        .map_err(text)?;
                }
                LoadStep::Send(message) => self.answers.send(&message)?,
                LoadStep::Bitmap { block, received } => self.answers.bitmap(block, &received)?,
                LoadStep::Resume => {
                    if let Some(listener) = self.listener {
                        begin(super::accept_preempt(self.shared, listener, self.stop)?);
                    }
                    let resumed = lock(&self.shared.destination).destination.resumed();
                    resumed.map_err(|error| error.to_string())?;
                    self.shared.tell_destination();
                    self.answers.resume(&self.service.ram)?;
                }
                LoadStep::Eof => return Ok(()),
                LoadStep::OpenReturnPath | LoadStep::SwitchoverStart => {}
                other => return Err(format!("{other:?} comes when the guest runs")),
            }
        }
    }

    /// Whether everything that was promised or asked for is there. What comes over the other channel may be late. `marked`: so may the mark
    /// at its end, which a source would not get rid of if it were closed here before.
    fn all_is_there(&self, may_come: impl Fn() -> bool, marked: bool) -> Result<(), String> {
        let deadline = after(self.shared.deadlines.silence);
        let mark = Instant::now() + APART;
        loop {
            let more = may_come();
            let Err(error) = self.service.ram.complete() else {
                if marked && more && Instant::now() < mark && !self.stop.is_stopped() {
                    std::thread::sleep(LOOK);
                    continue;
                }
                return Ok(());
            };
            if !more || Instant::now() > deadline || self.stop.is_stopped() {
                return Err(error.to_string());
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Reads requested pages, in frames if the migration has a number. If the channel breaks, the main one ends, too.
fn read_preempt(
    shared: &Shared,
    service: &Service,
    session: Option<[u8; 16]>,
    link: Link,
    main: &Stop,
) -> Result<(), String> {
    let ends = link.stop().clone();
    let memory = Arc::clone(&shared.memory);
    let mut reader = StreamReader::new(link, &*memory);
    let result = match (service.ram.preempt_channel(), session) {
        (Some(mut channel), None) => channel.run(&mut reader),
        (Some(mut channel), Some(session)) => {
            let memory = Arc::clone(&shared.memory);
            BerDecoder::urgent(memory, session).run_urgent(&mut channel, &mut reader)
        }
        (None, _) => Err(HandlerError::refused("it comes before the list of blocks")),
    };
    let result = result.map_err(|error| error.to_string());
    let result = match result {
        // With a mark, there is nothing more to come.
        Ok(true) => return Ok(()),
        // A source that has sent everything may close the two in any order.
        Ok(false) => match ends.sleep(Instant::now() + APART) {
            Ok(Woken::Stopped) => return Ok(()),
            _ => Err("it has ended".to_owned()),
        },
        Err(_) if ends.is_stopped() => return Ok(()),
        Err(error) => Err(error),
    };
    main.stop();
    result
}
