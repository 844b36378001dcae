//! The connection of a guest that goes before its memory is cut, after so many bytes of what hands it over, or of what comes back:
//! there is one guest, always, and whoever looks at both sides knows where.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstate_engine::{
    Capability, Device, Machine as _, MigrationStatus as Status, Registry, RunState, Settings,
};
use vmstate_qmp::address::MigrationAddress;

use crate::toy::{Looker, PATIENCE, Toy};
use crate::{pair, set};

/// Where the connection is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// So many bytes behind the beginning of the command `PACKAGED`.
    There(usize),
    /// After so many bytes of answers.
    Back(usize),
    /// After so many bytes of requested pages, on their own channel.
    Urgent(usize),
}

/// Hands one connection on, or with a channel of requested pages two, and cuts it.
fn proxy(at: &Path, to: &Path, cut: Cut) {
    let listener = UnixListener::bind(at).unwrap();
    let to = to.to_owned();
    std::thread::spawn(move || {
        let (source, _) = listener.accept().unwrap();
        let destination = UnixStream::connect(&to).unwrap();
        let (from, back) = (
            source.try_clone().unwrap(),
            destination.try_clone().unwrap(),
        );
        if let Cut::Back(0) = cut {
            // At once, not when a thread comes to it.
            for end in [&source, &destination] {
                end.shutdown(Shutdown::Both).unwrap();
            }
            return;
        }
        let answers = std::thread::spawn(move || {
            let left = match cut {
                Cut::Back(left) => left,
                Cut::There(_) | Cut::Urgent(_) => usize::MAX,
            };
            pump(back, from, left, None);
        });
        if let Cut::Urgent(left) = cut {
            std::thread::spawn(move || {
                // A source that fails before has none.
                let Ok((source, _)) = listener.accept() else {
                    return;
                };
                if let Ok(destination) = UnixStream::connect(to) {
                    pump(source, destination, left, None);
                }
            });
        }
        let behind = match cut {
            Cut::There(behind) => Some(behind),
            Cut::Back(_) | Cut::Urgent(_) => None,
        };
        pump(source, destination, usize::MAX, behind);
        answers.join().unwrap();
    });
}

/// Up to `left` bytes in all, or so many behind the command.
fn pump(mut from: UnixStream, mut to: UnixStream, mut left: usize, behind: Option<usize>) {
    const PACKAGED: [u8; 5] = [8, 0, 7, 0, 4];
    let mut last = [0; 5];
    let mut byte = vec![0; 1 << 16];
    let mut seen = false;
    while left > 0 {
        let most = byte.len().min(left);
        let Ok(count @ 1..) = from.read(&mut byte[..most]) else {
            break;
        };
        let mut count = count;
        left -= count;
        if let Some(behind) = behind.filter(|_| !seen) {
            for (at, one) in byte.iter().enumerate().take(count) {
                last.rotate_left(1);
                last[4] = *one;
                if last == PACKAGED {
                    seen = true;
                    // What follows has come with it, or comes soon.
                    let here = at + 1 - 5 + behind;
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

fn run(cut: Cut) -> End {
    run_with(cut, false)
}

/// With devices that wait for pages while they are being loaded, or without.
fn run_with(cut: Cut, lookers: bool) -> End {
    let census = Arc::default();
    let (source, destination) = pair(&census);
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
    proxy(&path("at"), &path("there"), cut);
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
        "{cut:?} {:?} {:?}",
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
    // The package at every few bytes, and then pages.
    let package = (0..440).step_by(20);
    let places = package.chain([2000, 20_000, 200_000, 1_000_000]);
    let ends: Vec<_> = places.map(|at| run(Cut::There(at))).collect();
    assert!(ends.contains(&End::HereAfterDoubt), "{ends:?}");
    assert!(ends.contains(&End::Recovered), "{ends:?}");
}

#[test]
fn on_the_way_back() {
    // PONGs of eight bytes each, and requests.
    let ends: Vec<_> = (0..64).step_by(4).map(|at| run(Cut::Back(at))).collect();
    assert!(
        matches!(ends[0], End::Here | End::HereAfterDoubt),
        "{ends:?}"
    );
    assert!(ends.contains(&End::Recovered), "{ends:?}");
}

#[test]
fn on_the_channel_of_requested_pages() {
    // A page and its header each, and in the middle of one.
    let places = (0..10).map(|pages| pages * 4106).chain([1, 5, 2000]);
    let ends: Vec<_> = places.map(|at| run(Cut::Urgent(at))).collect();
    assert!(ends.contains(&End::Recovered), "{ends:?}");
}

/// A device waits for a page while it is being loaded, and none comes any more: it fails, and the guest stays where it is.
#[test]
fn while_a_device_waits_for_a_page() {
    // Two PONGs before the package, then requests of 16 bytes and more.
    let places = [16, 17, 40, 100, 400].map(Cut::Back);
    let more = [0, 200, 420].map(Cut::There);
    let ends: Vec<_> = places
        .into_iter()
        .chain(more)
        .map(|cut| run_with(cut, true))
        .collect();
    let here = |end: &End| matches!(end, End::Here | End::HereAfterDoubt);
    assert!(ends[..2].iter().all(here), "{ends:?}");
    assert!(ends.contains(&End::HereAfterDoubt), "{ends:?}");
    let whole = run_with(Cut::Back(usize::MAX), true);
    assert_eq!(whole, End::There);
}
