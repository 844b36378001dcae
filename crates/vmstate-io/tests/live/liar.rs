//! Destinations that answer in postcopy what they should not.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vmstate_engine::source::{CommandError, LOADED};
use vmstate_engine::{Capability, MigrationStatus as Status, Peer, Settings};
use vmstate_io::live::MigrationEvent;
use vmstate_qmp::address::MigrationAddress;
use vmstate_wire::stream::{BlockName, ReturnMessage, put_bitmap, put_message};

use crate::toy::{Census, PATIENCE, Toy};
use crate::{pair, set, socket, speak};

const PAGE: u32 = 4096;
/// Bytes of the block `toy.ram`.
const RAM: u64 = 16 << 20;

/// One connection of a destination that reads everything and says what it is told to.
struct Liar {
    stream: UnixStream,
    read: Arc<AtomicU64>,
}

impl Liar {
    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = stream.try_clone().unwrap();
        let read = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&read);
        std::thread::spawn(move || {
            let mut piece = vec![0; 1 << 16];
            while let Ok(bytes @ 1..) = reader.read(&mut piece) {
                count.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        });
        Self { stream, read }
    }

    fn say(&mut self, message: &ReturnMessage) {
        let mut bytes = Vec::new();
        put_message(&mut bytes, message);
        self.raw(&bytes);
    }

    /// The source may have closed its end.
    fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }
}

fn request(block: &str, start: u64, length: u32) -> ReturnMessage {
    ReturnMessage::ReqPagesId {
        start,
        length,
        block: BlockName::new(block.as_bytes()).unwrap(),
    }
}

fn source_is(source: &Toy, status: Status) {
    source.wait(|event| *event == MigrationEvent::Source(status));
}

/// A guest that has gone to a liar, with so many bytes per second for the rest of its memory; the liar has not said yet that it
/// runs it.
struct Gone {
    source: Toy,
    liar: Liar,
    listener: UnixListener,
    place: MigrationAddress,
    census: Arc<Census>,
    _dir: tempfile::TempDir,
}

fn gone(bandwidth: u64) -> Gone {
    let (dir, place) = socket();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let census = Arc::default();
    let (source, _) = pair(&census);
    source.board.fill(2048);
    set(&source, &[Capability::PostcopyRam]);
    speak(&source, Peer::Qemu);
    let change = |settings: &mut Settings| {
        settings.parameters.max_bandwidth = 8 << 20;
        settings.parameters.max_postcopy_bandwidth = bandwidth;
        settings.parameters.downtime_limit = 1;
        Ok::<_, ()>(())
    };
    source.migrator.change_settings(change).unwrap();
    source.migrator.migrate(place.clone()).unwrap();
    let liar = Liar::accept(&listener);
    source_is(&source, Status::Active);
    source.migrator.start_postcopy().unwrap();
    source_is(&source, Status::PostcopyDevice);
    assert_eq!(census.running(), 0);
    Gone {
        source,
        liar,
        listener,
        place,
        census,
        _dir: dir,
    }
}

impl Gone {
    fn loads(&mut self) {
        self.liar.say(&ReturnMessage::Pong(LOADED));
        source_is(&self.source, Status::PostcopyActive);
    }

    /// The source pauses, and has said why; nothing runs here.
    #[track_caller]
    fn pauses(&self, why: &str) {
        source_is(&self.source, Status::PostcopyPaused);
        let error = self.source.migrator.info().error_desc.unwrap_or_default();
        assert!(error.contains(why), "{error}\nexpected: {why}");
        assert_eq!(self.census.running(), 0);
        let refused = self.source.migrator.cancel();
        assert_eq!(refused, Err(CommandError::InPostcopy));
    }
}

#[test]
fn nonsense_pauses_and_never_brings_the_guest_back() {
    let unasked = ReturnMessage::RecvBitmap {
        block: BlockName::new(b"toy.ram").unwrap(),
    };
    let unnamed = ReturnMessage::ReqPages {
        start: 0,
        length: PAGE,
    };
    for (answer, why) in [
        (request("toy.disk", 0, PAGE), "unknown RAM block toy.disk"),
        (request("toy.ram", RAM, PAGE), "of RAM block toy.ram"),
        (
            request("toy.ram", RAM - u64::from(PAGE), 2 * PAGE),
            "of RAM block toy.ram",
        ),
        (request("toy.ram", 1, PAGE), "of RAM block toy.ram"),
        (request("toy.ram", 0, 100), "of RAM block toy.ram"),
        (request("toy.ram", 0, 0), "of RAM block toy.ram"),
        (
            request("toy.ram", u64::MAX - 4095, PAGE),
            "of RAM block toy.ram",
        ),
        (unnamed, "before a block has been named"),
        (unasked, "nobody asked for"),
        (ReturnMessage::Shut(0), "before everything has been sent"),
        (ReturnMessage::Shut(1), "reports error 1"),
    ] {
        let mut gone = gone(1);
        gone.loads();
        gone.liar.say(&answer);
        gone.pauses(why);
        let here = gone.source.migrator.resume_here();
        assert_eq!(here, Err(CommandError::HasRun), "{answer:?}");
        gone.source.migrator.give_up().unwrap();
        assert_eq!(gone.source.departed(), Status::Failed);
        assert_eq!(gone.census.running(), 0);
    }
}

/// A liar that has not said that it runs the guest may have it all the same: only somebody who knows decides.
#[test]
fn a_connection_that_ends_before_the_guest_is_known_to_run() {
    let gone = gone(1);
    gone.liar.stream.shutdown(std::net::Shutdown::Both).unwrap();
    gone.pauses("it is unknown whether");
    assert!(gone.source.migrator.info().unknown);
    gone.source.migrator.resume_here().unwrap();
    assert_eq!(gone.source.departed(), Status::Failed);
    gone.source.goes_on(1000);
    assert_eq!((gone.census.running(), gone.census.most()), (1, 1));
}

#[test]
fn one_page_a_hundred_thousand_times() {
    const TIMES: u64 = 100_000;
    let mut gone = gone(1);
    gone.loads();
    let before = gone.source.migrator.info().ram.unwrap();
    let mut bytes = Vec::new();
    let last = RAM - u64::from(PAGE);
    for _ in 0..TIMES {
        put_message(&mut bytes, &request("toy.ram", last, PAGE));
    }
    gone.liar.raw(&bytes);
    let begun = Instant::now();
    let after = loop {
        let ram = gone.source.migrator.info().ram.unwrap();
        if ram.postcopy_requests >= TIMES {
            break ram;
        }
        assert!(begun.elapsed() < PATIENCE, "{ram:?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(after.postcopy_requests, TIMES);
    assert_eq!(
        gone.source.migrator.info().status,
        Some(Status::PostcopyActive)
    );
    // The page itself, and its neighbours' share of each slice.
    let pages = |ram: &vmstate_engine::MigrationStats| ram.normal + ram.duplicate;
    let sent = pages(&after) - pages(&before);
    let seconds = begun.elapsed().as_secs() + 2;
    assert!(sent <= 64 * 10 * seconds, "{sent} pages");
    gone.source.migrator.pause().unwrap();
    gone.pauses("paused by a command");
}

/// All is sent nevertheless, and the last word ends it.
#[test]
fn nothing_is_ever_asked_for() {
    let mut gone = gone(0);
    gone.loads();
    let end = Instant::now() + PATIENCE;
    while gone.source.migrator.info().remaining != Some(0) {
        assert!(Instant::now() < end, "{:?}", gone.source.migrator.info());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(gone.liar.read.load(Ordering::Relaxed) > 1 << 20);
    // The mark that ends the stream is on its way when nothing more comes.
    let mut read = 0;
    while read != gone.liar.read.load(Ordering::Relaxed) {
        read = gone.liar.read.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(1));
    }
    gone.liar.say(&ReturnMessage::Shut(0));
    assert_eq!(gone.source.departed(), Status::Completed);
    let ram = gone.source.migrator.info().ram.unwrap();
    assert_eq!((ram.postcopy_requests, ram.remaining), (0, 0));
    assert_eq!(gone.census.running(), 0);
}

/// What a liar says of the pages that it has is checked before it counts.
#[test]
fn bitmaps_that_cannot_be() {
    let mut gone = gone(1);
    gone.loads();
    gone.liar.stream.shutdown(std::net::Shutdown::Both).unwrap();
    gone.pauses("the guest runs at the destination");
    let pages = usize::try_from(RAM / u64::from(PAGE)).unwrap();
    let bitmap = |bytes: usize| {
        let mut out = Vec::new();
        put_bitmap(&mut out, &vec![0xff; bytes]);
        out
    };
    let mut mark = bitmap(pages / 8);
    *mark.last_mut().unwrap() ^= 1;
    for (name, bytes, why) in [
        ("toy.rom", bitmap(pages / 8), "nobody asked for"),
        ("toy.ram", bitmap(pages / 8 + 8), "a bitmap of"),
        ("toy.ram", bitmap(8), "a bitmap of"),
        ("toy.ram", mark, "bitmap of block toy.ram ends with"),
    ] {
        gone.source.migrator.resume(gone.place.clone()).unwrap();
        gone.liar = Liar::accept(&gone.listener);
        source_is(&gone.source, Status::PostcopyRecover);
        // The source asks first.
        while gone.liar.read.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let block = BlockName::new(name.as_bytes()).unwrap();
        gone.liar.say(&ReturnMessage::RecvBitmap { block });
        gone.liar.raw(&bytes);
        gone.pauses(why);
    }
}
