//! Guest RAM as one handler among others.

mod counters;
mod dirty;
mod load;
mod pages;
mod postcopy;
mod requests;
mod save;

use std::fmt;
use std::sync::Arc;

use vmstate_wire::stream::VersionId;

pub use self::counters::{RamCounters, RamTotals};
pub use self::dirty::DirtyPages;
pub use self::requests::{PageRequestError, PageRequests, UrgentPages};

use self::counters::When;
use self::load::Receiving;
use self::save::Sending;
use crate::bql::Bql;
use crate::handlers::{
    CompleteCx, DiscardCx, HandlerError, IterateCx, LoadCx, LoadSetupCx, Pending, Progress,
    ResumeCx, SaveVmHandlers, SetupCx, Writes,
};
use crate::memory::{DirtyLog, GuestMemory};

/// Version of the section `ram`; the only one that is read.
pub const RAM_VERSION: u32 = 4;

/// The handler of the section `ram`: idstr `ram`, instance 0, version 4.
///
/// On the source it sends every page once (the bulk stage), then again what the guest has written since, round after
/// round. A page is marked clean *before* it is read. Pages of zeros travel as 9 bytes. Neither looking for dirty pages
/// nor reading the dirty log costs more than what is dirty.
///
/// With the capability `postcopy-ram`, all of it can also be sent after the guest runs at the destination. The pages that the
/// destination asks for go first ([`RamCounters::requests`]), their neighbours next.
///
/// On the destination it fills guest memory as the records come.
///
/// ```
/// use std::sync::Arc;
/// use vmstate_engine::{DirtyLog, GuestMemory, RAM_VERSION, RamHandler, Registry, RegistryError};
/// use vmstate_wire::stream::InstanceId;
///
/// fn register(
///     registry: &mut Registry,
///     memory: Arc<dyn GuestMemory>,
///     log: Box<dyn DirtyLog>,
/// ) -> Result<(), RegistryError> {
///     let ram = RamHandler::new(memory, log);
///     let _shown_by_query_migrate = ram.counters();
///     registry.register_savevm_live("ram", InstanceId(0), RAM_VERSION, Box::new(ram))?;
///     Ok(())
/// }
/// ```
///
/// Wire: QEMU 7.2 to 11.1; the records are in [`vmstate_ram`].
pub struct RamHandler {
    memory: Arc<dyn GuestMemory>,
    log: Box<dyn DirtyLog>,
    counters: RamCounters,
    sending: Option<Sending>,
    receiving: Option<Receiving>,
}

impl RamHandler {
    /// The handler of this memory. A destination never uses the log.
    #[must_use]
    pub fn new(memory: Arc<dyn GuestMemory>, log: Box<dyn DirtyLog>) -> Self {
        Self {
            memory,
            log,
            counters: RamCounters::default(),
            sending: None,
            receiving: None,
        }
    }

    /// The handler's counts, for whoever shows them.
    #[must_use]
    pub fn counters(&self) -> RamCounters {
        self.counters.clone()
    }

    fn sending(&mut self) -> Result<(&mut Sending, &mut dyn DirtyLog), HandlerError> {
        match &mut self.sending {
            Some(sending) => Ok((sending, &mut *self.log)),
            None => Err(HandlerError::refused("RAM has not been set up")),
        }
    }
}

impl fmt::Debug for RamHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RamHandler")
            .field("totals", &self.counters.totals())
            .finish_non_exhaustive()
    }
}

impl SaveVmHandlers for RamHandler {
    fn writes(&self) -> Writes {
        Writes::LIVE | Writes::COMPLETE_POSTCOPY | Writes::POSTCOPY_PREPARE
    }

    fn has_postcopy(&self) -> bool {
        let sends = self.sending.as_ref().is_some_and(|s| s.may_postcopy);
        let receives = self.receiving.as_ref();
        sends || receives.is_some_and(Receiving::has_postcopy)
    }

    fn postcopy_page_sizes(&self) -> u64 {
        Sending::page_sizes(&*self.memory)
    }

    fn save_setup(&mut self, cx: &mut SetupCx<'_>) -> Result<(), HandlerError> {
        let memory = Arc::clone(&self.memory);
        let sending = Sending::new(memory, self.counters.clone(), cx.settings)?;
        self.log.start()?;
        let sending = self.sending.insert(sending);
        sending.write_setup(cx.out)
    }

    fn state_pending_estimate(&mut self, pending: &mut Pending) {
        let Some(sending) = &self.sending else {
            return;
        };
        if sending.postcopy {
            let left = self.counters.requests().remaining();
            pending.can_postcopy = pending.can_postcopy.saturating_add(left);
        } else if sending.may_postcopy {
            pending.can_postcopy = pending.can_postcopy.saturating_add(sending.remaining());
        } else {
            pending.must_precopy = pending.must_precopy.saturating_add(sending.remaining());
        }
    }

    fn state_pending_exact(&mut self, pending: &mut Pending) -> Result<(), HandlerError> {
        let (sending, log) = self.sending()?;
        let dirtied = sending.sync(log)?;
        pending.dirtied = pending.dirtied.saturating_add(dirtied);
        self.state_pending_estimate(pending);
        Ok(())
    }

    fn save_live_iterate(&mut self, cx: &mut IterateCx<'_>) -> Result<Progress, HandlerError> {
        let requests = self.counters.requests().clone();
        let (sending, _) = self.sending()?;
        if sending.postcopy {
            return sending.send_left(cx.out, &requests, true);
        }
        sending.send(cx.out, When::Precopy)
    }

    fn save_postcopy_prepare(&mut self, cx: &mut IterateCx<'_>) -> Result<(), HandlerError> {
        let (sending, _) = self.sending()?;
        sending.write_nothing(cx.out)
    }

    fn save_postcopy_discard(&mut self, cx: &mut DiscardCx<'_>) -> Result<(), HandlerError> {
        let requests = self.counters.requests().clone();
        let (sending, log) = self.sending()?;
        sending.switch(log, &requests, cx.out)
    }

    fn save_live_complete_postcopy(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        let requests = self.counters.requests().clone();
        let (sending, _) = self.sending()?;
        sending.send_left(cx.out, &requests, false)?;
        Ok(())
    }

    fn resume_prepare(&mut self, cx: &mut ResumeCx<'_>) -> Result<(), HandlerError> {
        let requests = self.counters.requests().clone();
        let (sending, _) = self.sending()?;
        sending.resume(cx.link, &requests)
    }

    fn save_live_complete_precopy(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        let (sending, log) = self.sending()?;
        sending.sync(log)?;
        sending.send(cx.out, When::Downtime)?;
        Ok(())
    }

    fn save_cleanup(&mut self, _bql: &Bql<'_>) {
        self.log.stop();
        self.counters.requests().end();
        self.sending = None;
    }

    fn load_setup(&mut self, cx: &mut LoadSetupCx<'_>) -> Result<(), HandlerError> {
        let memory = Arc::clone(&self.memory);
        let postcopy = cx.postcopy.cloned();
        self.receiving = Some(Receiving::new(memory, cx.settings, postcopy));
        Ok(())
    }

    fn load_state(&mut self, cx: &mut LoadCx<'_>, version: VersionId) -> Result<(), HandlerError> {
        if version.0 != RAM_VERSION {
            let reason = format!("RAM of version {version}, only {RAM_VERSION} is known");
            return Err(HandlerError::refused(reason));
        }
        match &mut self.receiving {
            Some(receiving) => receiving.payload(cx.input),
            None => Err(HandlerError::refused("RAM has not been set up for loading")),
        }
    }

    fn load_cleanup(&mut self, _bql: &Bql<'_>) {
        self.receiving = None;
    }
}
