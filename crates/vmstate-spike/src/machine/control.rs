//! Who runs when.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use vmstate_engine::{MachineError, RunState, RunToken};

use crate::error::GuestError;
use crate::hart::Line;

/// What has happened to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Its harts run. QEMU: `RESUME`.
    Resumed,
    /// Its harts stand still. QEMU: `STOP`.
    Stopped,
    /// The guest has ended it. QEMU: `SHUTDOWN`.
    Shutdown {
        /// The guest's status; 0 is success.
        status: u64,
    },
    /// The guest cannot go on.
    GuestFailed {
        /// Why.
        error: GuestError,
    },
}

/// An [`Event`], and when: whoever hears of it does so later, by as much as the host is busy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// When it happened, by the host's clock.
    pub at: SystemTime,
    /// What happened.
    pub event: Event,
}

#[derive(Debug)]
pub(crate) struct Control {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    state: RunState,
    token: Option<RunToken>,
    /// Harts have been told to run, and not to stop since.
    running: bool,
    /// Harts that do not stand still yet.
    active: usize,
    /// How often the harts were started.
    starts: u64,
    quit: bool,
    error: Option<GuestError>,
    status: Option<u64>,
    listeners: Vec<Sender<Occurrence>>,
}

impl Inner {
    fn tell(&mut self, event: &Event) {
        let at = SystemTime::now();
        self.listeners.retain(|listener| {
            let event = event.clone();
            listener.send(Occurrence { at, event }).is_ok()
        });
    }

    fn tell_to_stop(&mut self, lines: &[Line]) {
        self.running = false;
        for line in lines {
            line.stop();
        }
    }
}

impl Control {
    pub(super) fn new(incoming: bool) -> Self {
        let (state, token) = if incoming {
            (RunState::InMigrate, None)
        } else {
            (RunState::Prelaunch, Some(RunToken::new_guest()))
        };
        Self {
            inner: Mutex::new(Inner {
                state,
                token,
                running: false,
                active: 0,
                starts: 0,
                quit: false,
                error: None,
                status: None,
                listeners: Vec::new(),
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let guard = self.changed.wait(guard);
        guard.unwrap_or_else(PoisonError::into_inner)
    }

    /// For a hart: waits for the start after the one it has seen; none when all is over.
    pub(super) fn wait_for_start(&self, seen: u64) -> Option<u64> {
        let mut inner = self.lock();
        while !inner.quit && inner.starts == seen {
            inner = self.wait(inner);
        }
        (!inner.quit).then_some(inner.starts)
    }

    /// For a hart: it stands still. The last one calls `all`.
    pub(super) fn parked(&self, all: impl FnOnce()) {
        let mut inner = self.lock();
        inner.active -= 1;
        if inner.active == 0 {
            all();
            inner.tell(&Event::Stopped);
        }
        self.changed.notify_all();
    }

    /// For a hart: the guest has come to an end. It still has to park.
    pub(super) fn end(&self, lines: &[Line], state: RunState, event: &Event) {
        let mut inner = self.lock();
        if inner.error.is_some() || inner.status.is_some() {
            return;
        }
        match event {
            Event::Shutdown { status } => inner.status = Some(*status),
            Event::GuestFailed { error } => inner.error = Some(error.clone()),
            Event::Resumed | Event::Stopped => {}
        }
        inner.state = state;
        inner.tell(event);
        inner.tell_to_stop(lines);
    }

    /// Nothing goes on, now or later. Does not wait for the harts.
    pub(super) fn lose(&self, lines: &[Line]) {
        let mut inner = self.lock();
        inner.state = RunState::InternalError;
        inner.token = None;
        inner.tell_to_stop(lines);
    }

    /// Starts the harts; `before` runs when they stand still for the last time.
    pub(super) fn start(&self, lines: &[Line], before: impl FnOnce()) -> Result<(), MachineError> {
        let mut inner = self.lock();
        let refused = |reason: &'static str| Err(MachineError::new("start the guest", reason));
        if inner.token.is_none() {
            return refused("the right to run it is not here");
        }
        if inner.error.is_some() || inner.status.is_some() {
            return refused("it is over");
        }
        if inner.running {
            return Ok(());
        }
        while inner.active > 0 {
            inner = self.wait(inner);
        }
        for line in lines {
            line.may_run();
        }
        before();
        inner.state = RunState::Running;
        inner.running = true;
        inner.active = lines.len();
        inner.starts += 1;
        inner.tell(&Event::Resumed);
        self.changed.notify_all();
        Ok(())
    }

    /// Stops the harts and waits for them. Returns the state before; where it is live, it becomes `state`.
    pub(super) fn stop(&self, lines: &[Line], state: RunState) -> RunState {
        let mut inner = self.lock();
        let was = inner.state;
        if inner.running {
            inner.tell_to_stop(lines);
        }
        while inner.active > 0 {
            inner = self.wait(inner);
        }
        if was.is_live() && inner.state == was {
            inner.state = state;
        }
        was
    }

    pub(super) fn quit(&self) {
        self.lock().quit = true;
        self.changed.notify_all();
    }

    pub(super) fn state(&self) -> RunState {
        self.lock().state
    }

    /// Changes the state of a machine that stands still.
    pub(super) fn set_state(&self, state: RunState) {
        let mut inner = self.lock();
        if !inner.running {
            inner.state = state;
        }
    }

    /// Changes to the state of a guest that is over.
    pub(super) fn set_ended(&self) {
        let mut inner = self.lock();
        if inner.status.is_some() {
            inner.state = RunState::Shutdown;
        } else if inner.error.is_some() {
            inner.state = RunState::InternalError;
        }
    }

    pub(super) fn take_token(&self) -> Option<RunToken> {
        self.lock().token.take()
    }

    pub(super) fn give_token(&self, token: RunToken) {
        self.lock().token = Some(token);
    }

    pub(super) fn error(&self) -> Option<GuestError> {
        self.lock().error.clone()
    }

    pub(super) fn status(&self) -> Option<u64> {
        self.lock().status
    }

    pub(super) fn listen(&self) -> Receiver<Occurrence> {
        let (sender, receiver) = channel();
        self.lock().listeners.push(sender);
        receiver
    }
}
