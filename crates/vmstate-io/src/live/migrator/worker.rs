//! Threads that are there before anything depends on them.

use std::io;
use std::sync::mpsc;
use std::thread::Builder;

/// Starts a thread, which does `work` with what it is told. If it is told nothing, it ends. So a system without a further thread
/// says so while nothing has changed yet.
pub(super) fn when_told<T: Send + 'static>(
    name: &str,
    work: impl FnOnce(T) + Send + 'static,
) -> io::Result<impl FnOnce(T)> {
    let (tell, told) = mpsc::sync_channel(1);
    let thread = Builder::new().name(name.to_owned());
    thread.spawn(move || {
        if let Ok(value) = told.recv() {
            work(value);
        }
    })?;
    Ok(move |value| {
        // The thread takes one value, whatever it does then.
        let _ = tell.send(value);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_begins_when_told_and_not_without() {
        let (say, said) = mpsc::channel();
        when_told("told", move |value: u8| say.send(value).unwrap()).unwrap()(7);
        assert_eq!(said.recv(), Ok(7));
        let (say, said) = mpsc::channel::<u8>();
        drop(when_told("not told", move |value| say.send(value).unwrap()).unwrap());
        // The thread has gone, and what it would have said it with.
        assert!(said.recv().is_err());
    }
}
