//! When the channel of requested pages is there, and how it ends: machine types of QEMU 7.2 and older want it otherwise than newer
//! ones.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vmstate_engine::{Capability, MigrationStatus as Status, Settings};
use vmstate_io::live::MigrationEvent;
use vmstate_qmp::address::MigrationAddress;

use crate::toy::PATIENCE;
use crate::{pair, set};

/// The mark: the end of a RAM section.
const EOS: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 0x10];

/// What the source has sent over each connection, in the order in which they were made.
type Sent = Arc<Mutex<Vec<Vec<u8>>>>;

/// Hands connections on and keeps what goes over them.
fn recorder(at: &Path, to: PathBuf) -> Sent {
    let listener = UnixListener::bind(at).unwrap();
    let sent = Sent::default();
    let all = Arc::clone(&sent);
    std::thread::spawn(move || {
        for source in listener.incoming().take(2).flatten() {
            let destination = UnixStream::connect(&to).unwrap();
            let number = {
                let mut all = all.lock().unwrap();
                all.push(Vec::new());
                all.len() - 1
            };
            let (from, back) = (
                source.try_clone().unwrap(),
                destination.try_clone().unwrap(),
            );
            let all = Arc::clone(&all);
            let keep = move |bytes: &[u8]| all.lock().unwrap()[number].extend_from_slice(bytes);
            std::thread::spawn(move || pump(source, destination, keep));
            std::thread::spawn(move || pump(back, from, |_| {}));
        }
    });
    sent
}

fn pump(mut from: UnixStream, mut to: UnixStream, keep: impl Fn(&[u8])) {
    let mut piece = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        keep(&piece[..count]);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    // Fails only for a connection that is gone.
    let _ = to.shutdown(Shutdown::Write);
}

fn moves(early: bool) {
    let census = Arc::default();
    let (source, destination) = pair(&census);
    for toy in [&source, &destination] {
        set(toy, &[Capability::PostcopyRam, Capability::PostcopyPreempt]);
        let change = |settings: &mut Settings| {
            settings.dialect.preempt_pre_7_2 = early;
            settings.parameters.max_bandwidth = 8 << 20;
            settings.parameters.downtime_limit = 1;
            Ok::<_, ()>(())
        };
        toy.migrator.change_settings(change).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| MigrationAddress::unix(dir.path().join(name).to_str().unwrap());
    destination.migrator.incoming(&place("there")).unwrap();
    let sent = recorder(&dir.path().join("at"), dir.path().join("there"));
    let connections = || sent.lock().unwrap().len();
    source.migrator.migrate(place("at")).unwrap();
    source.wait(|event| *event == MigrationEvent::Source(Status::Active));
    let end = Instant::now() + PATIENCE;
    while early && connections() < 2 {
        assert!(Instant::now() < end, "it is not there at the beginning");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(connections(), if early { 2 } else { 1 });
    source.migrator.start_postcopy().unwrap();
    assert_eq!(source.departed(), Status::Completed);
    assert_eq!(destination.arrived(), None);
    destination.goes_on(1500);
    // Whoever keeps it may lag behind.
    let marked = || sent.lock().unwrap()[1].ends_with(&EOS);
    while early && !marked() {
        assert!(Instant::now() < end, "no mark");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(marked(), early);
    assert!(sent.lock().unwrap()[0].starts_with(b"QEVM"));
    assert_eq!((census.most(), census.running()), (1, 1));
}

#[test]
fn at_the_beginning_and_up_to_a_mark() {
    moves(true);
}

#[test]
fn when_the_guest_goes_and_until_it_is_closed() {
    moves(false);
}
