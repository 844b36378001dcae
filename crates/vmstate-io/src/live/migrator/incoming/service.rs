//! The service of missing pages: a thread that turns those who wait into requests.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::PollFlags;
use vmstate_engine::postcopy::{FaultAnswer, PostcopyRam};
use vmstate_engine::{PostcopyInfo, Registry};
use vmstate_ram::BlockId;

use super::answers::Answers;
use super::pages::Pages;
use crate::live::MappedMemory;
use crate::live::migrator::lock;
use crate::live::stop::{Stop, Woken};

/// What an incoming migration has that may go on when the guest runs.
pub(in crate::live::migrator) struct Service {
    pub(super) ram: Arc<PostcopyRam>,
    pages: Arc<Pages>,
    answers: Arc<Answers>,
    /// The sections that go on.
    pub(super) registry: Mutex<Registry>,
    thread: Mutex<Option<(Stop, JoinHandle<()>)>>,
}

impl Service {
    pub(super) fn new(
        memory: &Arc<dyn MappedMemory>,
        vcpus: Vec<u32>,
        answers: Arc<Answers>,
    ) -> Self {
        let pages = Arc::new(Pages::new(Arc::clone(memory), vcpus));
        let ram = PostcopyRam::new(Arc::clone(memory) as _, Arc::clone(&pages) as _);
        Self {
            ram: Arc::new(ram),
            pages,
            answers,
            registry: Mutex::default(),
            thread: Mutex::new(None),
        }
    }

    /// Begins to ask for pages that somebody waits for.
    pub(super) fn start(&self) -> Result<(), String> {
        let stop = Stop::new().map_err(|error| format!("no descriptor: {error}"))?;
        let (ram, pages) = (Arc::clone(&self.ram), Arc::clone(&self.pages));
        let (answers, until) = (Arc::clone(&self.answers), stop.clone());
        let thread = std::thread::Builder::new()
            .name("postcopy faults".to_owned())
            .spawn(move || serve(&ram, &pages, &answers, &until))
            .map_err(|error| format!("no thread: {error}"))?;
        *lock(&self.thread) = Some((stop, thread));
        Ok(())
    }

    /// Ends the service: what is missing is zero from now on. May be called at any time, and again.
    pub(super) fn end(&self) {
        let thread = lock(&self.thread).take();
        if let Some((stop, thread)) = thread {
            stop.stop();
            // It has nothing to return, and a panic of its own has been printed.
            let _ = thread.join();
        }
        self.pages.end();
    }

    /// Statistics; QEMU's own only if asked for.
    pub(in crate::live::migrator) fn info(&self, blocktime: bool) -> PostcopyInfo {
        PostcopyInfo {
            latency: self.pages.latency(),
            pages: self.ram.counts(),
            missing: self.ram.missing(),
            blocktime: blocktime.then(|| self.pages.blocktime()),
        }
    }
}

/// What the thread does.
fn serve(ram: &PostcopyRam, pages: &Pages, answers: &Answers, stop: &Stop) {
    let Some(source) = pages.faults() else {
        return;
    };
    let mut faults = Vec::new();
    loop {
        match stop.wait(source.as_fd(), PollFlags::IN, None) {
            Ok(Woken::Ready) => {}
            Ok(Woken::Stopped | Woken::TimedOut) | Err(_) => return,
        }
        faults.clear();
        if source.take_faults(&mut faults).is_err() {
            return;
        }
        let now = Instant::now();
        let mut arrived: Vec<(BlockId, u64)> = Vec::new();
        // A connection that breaks is noticed by who reads it; what was to be asked for is asked for on the next one.
        let _ = answers.ask(ram, |requests| {
            for fault in &faults {
                let Some((block, page)) = pages.begins(*fault, now) else {
                    continue;
                };
                match ram.fault(block, page) {
                    FaultAnswer::Ask(request) => requests.push(request),
                    FaultAnswer::Arrived => arrived.push((block, page)),
                    FaultAnswer::Asked | FaultAnswer::Outside => {}
                }
            }
        });
        for (block, page) in arrived {
            pages.settle(block, page);
        }
    }
}
