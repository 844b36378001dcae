//! The half of a pair that the guest goes to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use vmstate_engine::destination::{self, start_state};
use vmstate_engine::postcopy::{FaultAnswer, MissingPages};
use vmstate_engine::{
    Bql, GuestMemory as _, Incoming, LoadStep, Machine as _, MemoryError, SectionWriter as _,
};
use vmstate_ram::BlockId;
use vmstate_wire::stream::{BlockName as WireName, ReturnMessage};

use super::LatePair;
use crate::support::{MORE, PAGE, TestMemory, identity};

/// The destination's host: which pages are missing.
pub(super) struct Host {
    pub(super) memory: Arc<TestMemory>,
    pub(super) absent: Mutex<BTreeSet<(u32, u64)>>,
}

impl Host {
    fn place(&self, block: BlockId, offset: u64) {
        let absent = self.absent.lock().unwrap().remove(&(block.0, offset));
        assert!(absent, "{offset:#x} is there already");
    }
}

impl MissingPages for Host {
    fn prepare(&self) -> Result<(), MemoryError> {
        Ok(())
    }

    fn discard(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        let pages = (offset..offset + length).step_by(4096);
        let mut absent = self.absent.lock().unwrap();
        absent.extend(pages.map(|page| (block.0, page)));
        self.memory.zero(block, offset, length)
    }

    fn serve(&self) -> Result<(), MemoryError> {
        Ok(())
    }

    fn place(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.place(block, offset);
        self.memory.copy_in(block, offset, data)
    }

    fn place_zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        self.place(block, offset);
        self.memory.zero(block, offset, length)
    }
}

impl LatePair {
    pub(super) fn destination_step(&mut self) -> bool {
        let loads = self.destination.phase() == destination::Phase::Loading;
        if self.reading || loads && self.incoming.is_some() {
            return self.load_step();
        }
        let bql = Bql::holding(());
        match self.destination.work() {
            destination::Work::Accept => {}
            destination::Work::Load => {
                let incoming = Incoming::new(self.settings.clone(), identity());
                self.incoming = Some(incoming.with_postcopy(self.ram.clone()));
                return true;
            }
            destination::Work::Start(token) | destination::Work::Launch(token) => {
                let sent = self.there.global.lock().unwrap().run_state();
                self.there.start(&bql, token, start_state(sent, true));
            }
            destination::Work::Receive => {
                self.reading = true;
                return true;
            }
            destination::Work::Reconnect => self.incoming.as_mut().unwrap().interrupted(),
            destination::Work::Recover => {
                self.reading = true;
                return true;
            }
            destination::Work::Shut(value) => self.answer(ReturnMessage::Shut(value)),
            destination::Work::CleanUp => {
                let mut registry = self.there.registry.lock().unwrap();
                registry.rejoin(std::mem::take(&mut self.late));
                registry.load_cleanup(&bql);
            }
            destination::Work::Trailer => panic!("a trailer in postcopy"),
            destination::Work::GiveUp => panic!("nobody gives up"),
            destination::Work::Wait | destination::Work::Rest => return false,
        }
        self.destination.done().unwrap();
        true
    }

    fn load_step(&mut self) -> bool {
        if self.receive_urgent() {
            return true;
        }
        if self.package.is_none() && !self.input.is_readable() {
            return self.touch();
        }
        match self.element() {
            Ok(false) => {}
            Ok(true) => {
                self.reading = false;
                self.destination.done().unwrap();
            }
            Err(reason) => {
                self.reading = false;
                self.package = None;
                self.destination.failed(&reason).unwrap();
            }
        }
        true
    }

    /// The guest, which runs there already, looks at a page.
    fn touch(&mut self) -> bool {
        if self.touched >= 70 || !self.reading {
            return false;
        }
        let (id, pages) = match self.urgent {
            None => (BlockId(0), 70),
            Some(_) => (BlockId(2), MORE),
        };
        let page = self.touched * 31 % pages;
        self.touched += 1;
        let Some(name) = self.ram.name(id) else {
            return false;
        };
        let block = WireName::new(name.as_bytes()).unwrap();
        match self.ram.fault(id, page * PAGE) {
            FaultAnswer::Ask(request) => self.answer(ReturnMessage::ReqPagesId {
                start: request.offset,
                length: request.length,
                block,
            }),
            FaultAnswer::Asked | FaultAnswer::Arrived => {}
            FaultAnswer::Outside => panic!("page {page}"),
        }
        true
    }

    /// One element of what the destination reads; `true` at the end.
    fn element(&mut self) -> Result<bool, String> {
        let mut answers = Vec::new();
        let result = self.read(&mut answers);
        for answer in answers {
            self.answer(answer);
        }
        result
    }

    fn read(&mut self, answers: &mut Vec<ReturnMessage>) -> Result<bool, String> {
        let broken = self.is_broken();
        let bql = Bql::holding(());
        let text = |error: vmstate_engine::LoadError| error.to_string();
        let incoming = self.incoming.as_mut().unwrap();
        let registry = &mut self.there.registry.lock().unwrap();
        if let Some((inner, package)) = &mut self.package {
            match inner.next(package).map_err(text)? {
                LoadStep::Section => inner.section(Some(&bql), registry, package).map_err(text)?,
                LoadStep::Send(message) => {
                    if broken {
                        return Err("gone".to_owned());
                    }
                    self.promised = true;
                    answers.push(message);
                }
                LoadStep::SwitchoverStart => {
                    inner.switchover_start(Some(&bql), registry).map_err(text)?;
                }
                LoadStep::Listen => {
                    self.destination.listening().unwrap();
                    self.late = registry.split_postcopy();
                }
                LoadStep::Run => {
                    if !self.promised && broken {
                        return Err("gone".to_owned());
                    }
                    self.package = None;
                    self.destination.ran().unwrap();
                }
                other => return Err(format!("{other:?} in a package")),
            }
            return Ok(false);
        }
        let input = &mut self.input;
        if input.position().0 > 0 && !incoming.is_set_up() {
            let memory = &self.there.memory;
            self.format.begin(incoming, memory, input).map_err(text)?;
            incoming.begin(input).map_err(text)?;
            incoming.setup(&bql, registry).map_err(text)?;
            return Ok(false);
        }
        match incoming.next(input).map_err(text)? {
            LoadStep::OpenReturnPath => self.opened = true,
            LoadStep::Send(message) => answers.push(message),
            LoadStep::Section if self.reading => incoming
                .section(None, &mut self.late, input)
                .map_err(text)?,
            LoadStep::Section => incoming
                .section(Some(&bql), registry, input)
                .map_err(text)?,
            LoadStep::SwitchoverStart if self.reading => {}
            LoadStep::SwitchoverStart => incoming
                .switchover_start(Some(&bql), registry)
                .map_err(text)?,
            LoadStep::Package => {
                self.package = Some(incoming.package(input).map_err(text)?);
            }
            LoadStep::Resume => {
                self.destination.resumed().unwrap();
                answers.push(ReturnMessage::ResumeAck(1));
                for request in self.ram.outstanding() {
                    let name = self.ram.name(request.block).unwrap();
                    let block = WireName::new(name.as_bytes()).unwrap();
                    let (start, length) = (request.offset, request.length);
                    answers.push(ReturnMessage::ReqPagesId {
                        start,
                        length,
                        block,
                    });
                }
            }
            LoadStep::Eof if self.reading => {
                self.ram.complete().map_err(|error| error.to_string())?;
                let absent = self.host.absent.lock().unwrap().len();
                assert_eq!(absent, self.zeros());
                return Ok(true);
            }
            other => return Err(format!("{other:?} comes here")),
        }
        Ok(false)
    }

    /// Pages that came as zeros while the guest ran at the source: they take no memory.
    fn zeros(&self) -> usize {
        let absent = self.host.absent.lock().unwrap();
        let arrived = absent.iter().filter(|(block, offset)| {
            self.ram.fault(BlockId(*block), *offset) == FaultAnswer::Arrived
        });
        arrived.count()
    }
}
