//! A connection that somebody can cut.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use vmstate_interop::Result;

/// The most connections that are handed on: two for each of several recoveries.
const CONNECTIONS: usize = 16;

/// Hands connections on until it is told to cut them.
pub(crate) struct Proxy {
    ends: Arc<Mutex<Vec<UnixStream>>>,
}

impl Proxy {
    pub(crate) fn new(at: &Path, to: PathBuf) -> Result<Self> {
        let listener = UnixListener::bind(at)?;
        let ends: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
        let known = Arc::clone(&ends);
        thread::spawn(move || {
            for source in listener.incoming().take(CONNECTIONS).flatten() {
                let Ok(destination) = UnixStream::connect(&to) else {
                    continue;
                };
                for (from, to) in [(&source, &destination), (&destination, &source)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                        return;
                    };
                    thread::spawn(move || pump(from, to));
                }
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.extend([source, destination]);
            }
        });
        Ok(Self { ends })
    }

    /// Cuts what is connected now. What comes later is handed on again.
    pub(crate) fn cut(&self) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for end in ends.drain(..) {
            // Fails only for a connection that is gone.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to
            .write_all(buffer.get(..count).unwrap_or_default())
            .is_err()
        {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
