//! The connection of a guest that goes before its memory is cut, after so many bytes of what hands it over, or of what comes back:
//! there is one guest, always, and whoever looks at both sides knows where.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstate_engine::{
    Capability, Device, Machine as _, MigrationStatus as Status, Peer, Registry, RunState, Settings,
};
use vmstate_qmp::address::MigrationAddress;

use crate::toy::{Looker, PATIENCE, Toy};
use crate::{pair, set, speak};

/// Where the connection is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// So many bytes behind the beginning of the command `PACKAGED`.
    There(usize),
    /// After so many bytes of answers, from the first PONG on.
    Back(usize),
    /// After so many bytes of requested pages, on their own channel.
    Urgent(usize),
}

/// The formats.
const FORMATS: [Peer; 2] = [Peer::Qemu, Peer::Vmstate];

/// What the command `PACKAGED` begins with.
fn packaged(format: Peer) -> &'static [u8] {
    match format {
        Peer::Qemu => &[8, 0, 7, 0, 4],
        // A frame of 15 octets: command, payload, checksum.
        _ => &[0x6c, 15, 2, 1, 7, 4, 4],
    }
}

/// What the first PONG begins with, where something else comes before it.
fn pong(format: Peer) -> &'static [u8] {
    match format {
        Peer::Qemu => &[],
        _ => &[0x6d, 9, 2, 1, 2, 4, 4],
    }
}

/// Hands one connection on, or with a channel of requested pages two, and cuts it.
fn proxy(at: &Path, to: &Path, cut: Cut, format: Peer) {
    let listener = UnixListener::bind(at).unwrap();
    let to = to.to_owned();
    std::thread::spawn(move || {
        let (source, _) = listener.accept().unwrap();
        let destination = UnixStream::connect(&to).unwrap();
        let (from, back) = (
            source.try_clone().unwrap(),
            destination.try_clone().unwrap(),
        );
        if let (Cut::Back(0), Peer::Qemu) = (cut, format) {
            // At once, not when a thread comes to it.
            for end in [&source, &destination] {
                end.shutdown(Shutdown::Both).unwrap();
            }
            return;
        }
        let answers = std::thread::spawn(move || {
            let cut = match cut {
                Cut::Back(left) => Some((pong(format), left)),
                Cut::There(_) | Cut::Urgent(_) => None,
            };
            pump(back, from, cut);
        });
        if let Cut::Urgent(left) = cut {
            std::thread::spawn(move || {
                // A source that fails before has none.
                let Ok((source, _)) = listener.accept() else {
                    return;
                };
                if let Ok(destination) = UnixStream::connect(to) {
                    pump(source, destination, Some((&[], left)));
                }
            });
        }
        let cut = match cut {
            Cut::There(behind) => Some((packaged(format), behind)),
            Cut::Back(_) | Cut::Urgent(_) => None,
        };
        pump(source, destination, cut);
        answers.join().unwrap();
    });
}

/// All bytes, or so many from the beginning of some on.
fn pump(mut from: UnixStream, mut to: UnixStream, cut: Option<(&[u8], usize)>) {
    let (mark, behind) = cut.unwrap_or_default();
    let mut last = std::collections::VecDeque::from(vec![0; mark.len()]);
    let mut byte = vec![0; 1 << 16];
    let mut seen = cut.is_none() || mark.is_empty();
    let mut left = match cut {
        Some((_, behind)) if seen => behind,
        _ => usize::MAX,
    };
    while left > 0 {
        let most = byte.len().min(left);
        let Ok(count @ 1..) = from.read(&mut byte[..most]) else {
            break;
        };
        let mut count = count;
        left -= count;
        if !seen {
            for (at, one) in byte.iter().enumerate().take(count) {
                last.pop_front();
                last.push_back(*one);
                if last.iter().eq(mark) {
                    seen = true;
                    // What follows has come with it, or comes soon.
                    let here = (at + 1 + behind).saturating_sub(mark.len());
                    left = here.saturating_sub(count);
                    count = count.min(here);
                    break;
                }
            }
        }
        if to.write_all(&byte[..count]).is_err() {
            break;
        }
    }
    for end in [&from, &to] {
        // Fails only for a connection that is gone.
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// How it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The guest runs where it was.
    Here,
    /// It has never run there, and the source was told so.
    HereAfterDoubt,
    /// It runs there, after another connection.
    Recovered,
    /// It runs there with all of its memory, and the source was told so.
    There,
}

fn run(cut: Cut, format: Peer) -> End {
    run_with(cut, format, false)
}

/// With devices that wait for pages while they are being loaded, or without.
fn run_with(cut: Cut, format: Peer, lookers: bool) -> End {
    let census = Arc::default();
    let (source, destination) = pair(&census);
    speak(&source, format);
    for toy in [&source, &destination].into_iter().filter(|_| lookers) {
        let looker = Device::new(Looker(toy.board.clone()));
        let added = |registry: &mut Registry| registry.register_device(looker).unwrap();
        toy.migrator.change_registry(added).unwrap();
    }
    let change = |settings: &mut Settings| {
        settings.parameters.max_bandwidth = 8 << 20;
        settings.parameters.downtime_limit = 1;
        Ok::<_, ()>(())
    };
    source.migrator.change_settings(change).unwrap();
    let both = [Capability::PostcopyRam, Capability::PostcopyPreempt];
    let capabilities = match cut {
        Cut::Urgent(_) => &both[..],
        _ => &both[..1],
    };
    for toy in [&source, &destination] {
        set(toy, capabilities);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let place = |name: &str| MigrationAddress::unix(path(name).to_str().unwrap());
    destination.migrator.incoming(&place("there")).unwrap();
    proxy(&path("at"), &path("there"), cut, format);
    source.migrator.migrate(place("at")).unwrap();
    // It may be over already.
    while source.migrator.start_postcopy().is_err() && !over(&source) {}
    let wait = |toy: &Toy| {
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(census.running() <= 1, "{cut:?}");
            let status = toy.migrator.info().status;
            if let Some(status) = status.filter(|s| is_over(*s) || *s == Status::PostcopyPaused) {
                return status;
            }
            assert!(Instant::now() < end, "{cut:?} {:?}", toy.migrator.info());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let (here, there) = (wait(&source), wait(&destination));
    let what = format!(
        "{cut:?} {format:?} {:?} {:?}",
        source.migrator.info(),
        destination.migrator.info()
    );
    let end = match (here, there) {
        (Status::Failed, Status::Failed) => End::Here,
        (Status::PostcopyPaused, Status::Failed) => {
            source.migrator.resume_here().expect(&what);
            End::HereAfterDoubt
        }
        (Status::PostcopyPaused, Status::PostcopyPaused) => {
            destination.migrator.recover(&place("again")).expect(&what);
            source.migrator.resume(place("again")).expect(&what);
            assert_eq!(source.departed(), Status::Completed, "{what}");
            assert_eq!(destination.arrived(), None, "{what}");
            End::Recovered
        }
        (Status::Completed, Status::Completed) => End::There,
        (Status::PostcopyPaused, Status::Completed) => {
            source.migrator.give_up().expect(&what);
            End::There
        }
        other => panic!("{other:?}: {what}"),
    };
    let running = match end {
        End::Here | End::HereAfterDoubt => &source,
        End::Recovered | End::There => &destination,
    };
    running.goes_on(1500);
    assert_eq!(running.board.run_state(), RunState::Running, "{what}");
    assert_eq!((census.most(), census.running()), (1, 1), "{what}");
    end
}

fn over(toy: &Toy) -> bool {
    toy.migrator.info().status.is_some_and(is_over)
}

fn is_over(status: Status) -> bool {
    matches!(
        status,
        Status::Completed | Status::Failed | Status::Cancelled
    )
}

#[test]
fn on_the_way_there() {
    for format in FORMATS {
        // The package at every few bytes, and then pages.
        let package = (0..560).step_by(20);
        let places = package.chain([2000, 20_000, 200_000, 1_000_000]);
        let ends: Vec<_> = places.map(|at| run(Cut::There(at), format)).collect();
        assert!(ends.contains(&End::HereAfterDoubt), "{ends:?}");
        assert!(ends.contains(&End::Recovered), "{ends:?}");
    }
}

#[test]
fn on_the_way_back() {
    for format in FORMATS {
        // PONGs of eight bytes each, or of eleven, and requests.
        let places = (0..96).step_by(4);
        let ends: Vec<_> = places.map(|at| run(Cut::Back(at), format)).collect();
        let here = |end: &End| matches!(end, End::Here | End::HereAfterDoubt);
        // In frames, what is cut first stands behind the verdict, and the guest may have gone when a thread comes to it.
        assert!(here(&ends[0]) || format != Peer::Qemu, "{ends:?}");
        assert!(ends.contains(&End::Recovered), "{ends:?}");
    }
}

#[test]
fn on_the_channel_of_requested_pages() {
    for format in FORMATS {
        // A page and its header each, and in the middle of one.
        let places = (0..10).map(|pages| pages * 4106).chain([1, 5, 40, 2000]);
        let ends: Vec<_> = places.map(|at| run(Cut::Urgent(at), format)).collect();
        assert!(ends.contains(&End::Recovered), "{ends:?}");
    }
}

/// A device waits for a page while it is being loaded, and none comes any more: it fails, and the guest stays where it is.
#[test]
fn while_a_device_waits_for_a_page() {
    for (format, pong) in FORMATS.into_iter().zip([8, 11]) {
        // Two PONGs before the package, then requests of 16 bytes and more.
        let places = [2 * pong, 2 * pong + 1, 40, 100, 400].map(Cut::Back);
        let more = [0, 200, 420].map(Cut::There);
        let ends: Vec<_> = places
            .into_iter()
            .chain(more)
            .map(|cut| run_with(cut, format, true))
            .collect();
        let here = |end: &End| matches!(end, End::Here | End::HereAfterDoubt);
        assert!(ends[..2].iter().all(here), "{ends:?}");
        assert!(ends.contains(&End::HereAfterDoubt), "{ends:?}");
        let whole = run_with(Cut::Back(usize::MAX >> 1), format, true);
        assert_eq!(whole, End::There);
    }
}
