//! Other ends that stop in the middle of something, and threads that do.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vmstate_derive::VmState;
use vmstate_desc::{DescriptionRef, Error, LoadState, SaveState, VmState as _};
use vmstate_engine::{Bql, DescribedDevice, Device, MigrationStatus as Status, Peer, Registry};
use vmstate_io::live::{Deadlines, MigrationEvent};

use crate::toy::{Census, Toy};
use crate::{address, pair, socket, speak};

const SHORT: Deadlines = Deadlines {
    connect: Duration::from_secs(10),
    silence: Duration::from_millis(300),
};

/// It reads everything and does not say that it has loaded it: the guest does not stand still for ever.
#[test]
fn a_destination_that_does_not_confirm_does_not_keep_the_guest() {
    let census = Arc::default();
    let (dir, place) = socket();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let source = Toy::with(false, &census, SHORT, 16 << 20);
    source.boot();
    speak(&source, Peer::Qemu);
    source.migrator.migrate(place).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let mut writer = peer.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    assert_eq!(source.departed(), Status::Failed);
    let text = source.migrator.info().error_desc.unwrap();
    assert!(text.contains("has not confirmed within 300 ms"), "{text}");
    source.goes_on(1000);
    assert_eq!((census.most(), census.running()), (1, 1));
    // The last thing it got is the question; its answer comes too late.
    let all = reader.join().unwrap();
    let confirm = vmstate_engine::source::CONFIRM.to_be_bytes();
    assert!(all.ends_with(&[&[8, 0, 2, 0, 4][..], &confirm].concat()));
    let _ = writer.write_all(&[&[0, 2, 0, 4][..], &confirm].concat());
    source.goes_on(1000);
}

/// Bytes of a guest that has gone to a file, and where the trailer begins.
fn stream(census: &Arc<Census>) -> (Vec<u8>, usize) {
    let (source, _) = pair(census);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    let place = address(&format!("file:{}", path.display()));
    source.migrator.migrate(place).unwrap();
    assert_eq!(source.departed(), Status::Completed);
    let bytes = std::fs::read(path).unwrap();
    let trailer = (0..bytes.len()).rev().find(|at| {
        let rest = u32::try_from(bytes.len() - at).unwrap();
        rest > 5 && bytes[*at..].starts_with(&[&[6], &(rest - 5).to_be_bytes()[..]].concat())
    });
    (bytes, trailer.unwrap())
}

#[test]
fn a_source_that_stalls_behind_the_guest_does_not_hold_it() {
    let census = Arc::default();
    let (bytes, trailer) = stream(&census);
    for rest in [0, 10] {
        let census = Arc::default();
        let (dir, place) = socket();
        let destination = Toy::with(true, &census, SHORT, 16 << 20);
        destination.migrator.incoming(&place).unwrap();
        let mut source = UnixStream::connect(dir.path().join("s")).unwrap();
        // One byte too few: the guest's right to run is the last one.
        source.write_all(&bytes[..trailer - 1]).unwrap();
        destination.wait(|event| *event == MigrationEvent::Destination(Status::Active));
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(census.running(), 0);
        source
            .write_all(&bytes[trailer - 1..trailer + rest])
            .unwrap();
        destination.wait(|event| *event == MigrationEvent::Destination(Status::Completed));
        assert_eq!(census.running(), 1);
        destination.goes_on(100);
        assert_eq!(destination.arrived(), None);
        // What comes later is no error to the source, which would run its guest again.
        source.write_all(&bytes[trailer + rest..]).unwrap();
        drop(source);
        // It can go on at once.
        let (_dir, place) = socket();
        let next = Toy::new(true, &census);
        next.migrator.incoming(&place).unwrap();
        destination.migrator.migrate(place).unwrap();
        assert_eq!(destination.departed(), Status::Completed);
        assert_eq!(next.arrived(), None);
        assert_eq!((census.most(), census.running()), (1, 1));
    }
}

/// A device whose author has made a mistake, that shows once.
struct Mistaken {
    save: AtomicBool,
    load: AtomicBool,
}

#[derive(Debug, Default, VmState)]
#[vmstate(name = "mistaken", version = 1)]
struct Plain {
    number: u64,
}

impl DescribedDevice for Mistaken {
    fn description(&self) -> DescriptionRef {
        DescriptionRef::Static(Plain::DESCRIPTION)
    }

    fn save(
        &self,
        _bql: &Bql<'_>,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        assert!(!self.save.swap(false, Ordering::SeqCst), "cannot be saved");
        visit(&Plain::default())
    }

    fn load(
        &mut self,
        _bql: Option<&Bql<'_>>,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        assert!(!self.load.swap(false, Ordering::SeqCst), "cannot be loaded");
        visit(&mut Plain::default())
    }
}

fn mistaken(toy: &Toy, save: bool, load: bool) {
    let device = Device::new(Mistaken {
        save: save.into(),
        load: load.into(),
    });
    let added = |registry: &mut Registry| registry.register_device(device).unwrap();
    toy.migrator.change_registry(added).unwrap();
}

/// The panic of a device does not end the machine's migrations, nor its guest.
#[test]
fn a_panic_is_a_failure() {
    for peer in [Peer::Qemu, Peer::Auto] {
        let census = Arc::default();
        let (source, refuser) = pair(&census);
        let saver = Toy::new(true, &census);
        let last = Toy::new(true, &census);
        speak(&source, peer);
        mistaken(&source, true, false);
        mistaken(&saver, false, false);
        mistaken(&refuser, false, true);
        mistaken(&last, false, false);
        let mut went = Vec::new();
        for destination in [&saver, &refuser, &last] {
            let (_dir, place) = socket();
            destination.migrator.incoming(&place).unwrap();
            source.migrator.migrate(place).unwrap();
            let status = source.departed();
            let error = source.migrator.info().error_desc;
            went.push((status, error, destination.arrived()));
            if status == Status::Failed {
                source.goes_on(100);
            }
        }
        let (status, error, _) = &went[0];
        assert_eq!(*status, Status::Failed);
        assert!(
            error.as_deref().unwrap().contains("cannot be saved"),
            "{error:?}"
        );
        let (status, _, refusal) = &went[1];
        assert_eq!(*status, Status::Failed);
        assert!(
            refusal.as_deref().unwrap().contains("cannot be loaded"),
            "{refusal:?}"
        );
        assert_eq!(went[2], (Status::Completed, None, None));
        last.goes_on(100);
        assert_eq!((census.most(), census.running()), (1, 1));
    }
}
