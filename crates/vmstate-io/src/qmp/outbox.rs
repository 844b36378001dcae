//! What is to be sent to one client. A client that does not read keeps nobody waiting but itself.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that may wait. A reply may always be put into an empty box, however long it is.
const MOST_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A line has been taken out and is being written.
    writing: bool,
    wants_events: bool,
    /// Commands that run or wait, whose replies are still to come.
    answering: usize,
    /// Nothing more is put in.
    closed: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that panics is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command is taken; [`answer`](Self::answer) ends it.
    pub(super) fn begin(&self) {
        let mut state = self.lock();
        state.answering = state.answering.saturating_add(1);
    }

    /// Puts the reply to a command in; waits until there is room. `false`: the box is closed.
    pub(super) fn answer(&self, line: Vec<u8>) -> bool {
        let mut state = self.room();
        state.answering = state.answering.saturating_sub(1);
        self.put_unless_closed(state, line)
    }

    /// Puts another line in; waits until there is room. `false`: the box is closed. `wants_events`: from here on, events too.
    pub(super) fn say(&self, line: Vec<u8>, wants_events: bool) -> bool {
        let mut state = self.room();
        state.wants_events |= wants_events;
        self.put_unless_closed(state, line)
    }

    fn room(&self) -> MutexGuard<'_, State> {
        let full = |state: &mut State| !state.closed && state.bytes >= MOST_BYTES;
        let waited = self.changed.wait_while(self.lock(), full);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn put_unless_closed(&self, mut state: MutexGuard<'_, State>, line: Vec<u8>) -> bool {
        if state.closed {
            return false;
        }
        self.put(&mut state, line);
        true
    }

    /// Puts an event in, if the client wants any. `false`: there is no room, the client must go.
    pub(super) fn event(&self, line: &[u8]) -> bool {
        let mut state = self.lock();
        if state.closed || !state.wants_events {
            return true;
        }
        if state.bytes >= MOST_BYTES {
            return false;
        }
        self.put(&mut state, line.to_vec());
        true
    }

    fn put(&self, state: &mut State, line: Vec<u8>) {
        state.bytes = state.bytes.saturating_add(line.len());
        state.lines.push_back(line);
        self.changed.notify_all();
    }

    /// The next line; waits for one. `None`: the box is closed and empty. The line before has been written.
    pub(super) fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        state.writing = false;
        self.changed.notify_all();
        let idle = |state: &mut State| !state.closed && state.lines.is_empty();
        let waited = self.changed.wait_while(state, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let line = state.lines.pop_front()?;
        state.bytes = state.bytes.saturating_sub(line.len());
        state.writing = true;
        self.changed.notify_all();
        Some(line)
    }

    /// Puts nothing more in. What is in goes out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Throws away what is in, and puts nothing more in.
    pub(super) fn discard(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.lines.clear();
        state.bytes = 0;
        self.changed.notify_all();
    }

    /// Waits until the replies to all commands that were taken are in, at most until then.
    pub(super) fn answered(&self, end: Instant) {
        self.wait_while(end, |state| state.answering > 0);
    }

    /// Waits until all has been written, at most until then.
    pub(super) fn drained(&self, end: Instant) {
        self.wait_while(end, |state| state.writing || !state.lines.is_empty());
    }

    fn wait_while(&self, end: Instant, busy: impl Fn(&State) -> bool) {
        let left = end.saturating_duration_since(Instant::now());
        let least = left.max(Duration::from_millis(1));
        // Whether it was in time makes no difference: the connection is ended now.
        let _ = self
            .changed
            .wait_timeout_while(self.lock(), least, |state| busy(state));
    }
}
