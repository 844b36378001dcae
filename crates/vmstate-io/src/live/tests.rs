//! Channels and pages, without an engine.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use vmstate_engine::{
    ChannelEnd, ChannelWriter as _, GuestMemory as _, SectionReader as _, SectionWriter as _,
};
use vmstate_qmp::address::MigrationAddress;
use vmstate_ram::{BlockId, BlockName, PageSize};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn memory() -> Memory {
    let mut memory = Memory::new(PageSize::KIB4);
    memory
        .add(BlockName::new(b"one").unwrap(), 4 << 20)
        .unwrap();
    memory.add(BlockName::new(b"two").unwrap(), 4096).unwrap();
    memory
}

/// Both ends of a channel over `address`.
fn pair(address: &str, stop: &Stop) -> (Link, Link) {
    let address: MigrationAddress = address.parse().unwrap();
    let listener = Listener::new(&address, &Descriptors::default(), stop).unwrap();
    let out = connect_to(listener.address(), &Descriptors::default(), stop, PATIENCE).unwrap();
    (out, listener.accept(stop).unwrap())
}

/// Sends bytes, single pages and runs of pages, and checks that they arrive where they should.
fn carries_everything(out: Link, back: Link) {
    let (from, to) = (memory(), memory());
    let block = BlockId(0);
    for page in 0..1024_u64 {
        let data = [u8::try_from(page % 251).unwrap(); 4096];
        from.copy_in(block, page * 4096, &data).unwrap();
    }
    let words: Vec<[u8; 8]> = (0..1000_u64).map(u64::to_be_bytes).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = StreamWriter::new(out, &from, Default::default());
            writer.bytes(b"head").unwrap();
            writer.pages(block, 1023 * 4096, 4096).unwrap();
            writer.page_records(block, 0, 4096, &words).unwrap();
            writer.bytes(&vec![7; 300_000]).unwrap();
            writer.flush().unwrap();
            assert_eq!(writer.position().0, 4 + 4096 + 1000 * 4104 + 300_000);
            writer.link().finish();
        });
        let mut reader = StreamReader::new(back, &to);
        let mut head = [0; 4];
        reader.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"head");
        reader.read_into_guest(block, 1023 * 4096, 4096).unwrap();
        for (number, expected) in (0..).zip(&words) {
            let mut word = [0; 8];
            reader.read_exact(&mut word).unwrap();
            assert_eq!(&word, expected);
            reader.read_into_guest(block, number * 4096, 4096).unwrap();
        }
        let mut left = 300_000;
        while left > 0 {
            let here = reader.fill(1).unwrap();
            assert!(here.iter().all(|byte| *byte == 7));
            let count = here.len();
            reader.consume(count);
            left -= count;
        }
        assert_eq!(reader.fill(1).unwrap(), b"");
        assert_eq!(reader.offset().0, 4 + 4096 + 1000 * 4104 + 300_000);
    });
    for page in (0..1000).chain([1023]) {
        let (mut a, mut b) = ([0; 4096], [0; 4096]);
        from.copy_out(block, page * 4096, &mut a).unwrap();
        to.copy_out(block, page * 4096, &mut b).unwrap();
        assert!(a == b, "page {page}");
    }
    assert!(to.is_zero(block, 1000 * 4096, 23 * 4096));
}

#[test]
fn sockets_carry_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", dir.path().join("s").display());
    for address in ["tcp:127.0.0.1:0", "tcp:localhost:0,ipv4", &path] {
        let stop = Stop::new().unwrap();
        let (out, back) = pair(address, &stop);
        assert!(out.is_bidirectional() && back.is_bidirectional());
        carries_everything(out, back);
    }
    assert!(!dir.path().join("s").exists(), "nobody listens any more");
}

#[test]
fn files_and_commands_carry_everything() {
    let dir = tempfile::tempdir().unwrap();
    let stop = Stop::new().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, [1; 9000]).unwrap();
    let file: MigrationAddress = format!("file:{},offset=0x1000", path.display())
        .parse()
        .unwrap();
    let out = connect_to(&file, &Descriptors::default(), &stop, PATIENCE).unwrap();
    assert!(!out.is_bidirectional());
    assert_eq!(
        std::fs::read(&path).unwrap(),
        [1; 4096],
        "cut, and kept before"
    );
    let back = Listener::new(&file, &Descriptors::default(), &stop)
        .unwrap()
        .accept(&stop)
        .unwrap();
    // A file is read after it has been written.
    let from = memory();
    let mut writer = StreamWriter::new(out, &from, Default::default());
    writer.bytes(b"all").unwrap();
    writer.flush().unwrap();
    let mut reader = StreamReader::new(back, &from);
    assert_eq!(reader.fill(3).unwrap(), b"all");

    let path = dir.path().join("p");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let save = MigrationAddress::exec(format!("cat > {}", path.display()));
    let load = MigrationAddress::exec(format!("cat {}", path.display()));
    let back = Listener::new(&load, &Descriptors::default(), &stop)
        .unwrap()
        .accept(&stop)
        .unwrap();
    let out = connect_to(&save, &Descriptors::default(), &stop, PATIENCE).unwrap();
    carries_everything(out, back);
}

#[test]
fn a_commands_end_is_known() {
    let stop = Stop::new().unwrap();
    let link = connect_to(
        &MigrationAddress::exec("cat > /dev/null; exit 3"),
        &Descriptors::default(),
        &stop,
        PATIENCE,
    );
    let status = link.unwrap().exit_status(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(3));
    let link = connect_to(
        &MigrationAddress::exec("exec sleep 0.2"),
        &Descriptors::default(),
        &stop,
        PATIENCE,
    );
    assert!(link.unwrap().exit_status(Duration::ZERO).is_none());
}

#[test]
fn what_cannot_be_reached_is_named_in_time() {
    let stop = Stop::new().unwrap();
    let refused = |address: &str| {
        let address = address.parse().unwrap();
        let started = Instant::now();
        let text = connect_to(
            &address,
            &Descriptors::default(),
            &stop,
            Duration::from_millis(50),
        )
        .unwrap_err()
        .to_string();
        assert!(started.elapsed() < PATIENCE);
        text
    };
    assert!(refused("unix:/nonexistent/s").contains("unix:/nonexistent/s: No such file"));
    assert!(refused("file:/nonexistent/f").contains("No such file"));
    assert!(refused("fd:monitor").contains("monitor"));
    assert!(refused("fd:9999").contains("Bad file descriptor"));
    assert!(refused("rdma:host:1").contains("not supported"));
    assert!(refused("tcp:127.0.0.1:1").contains("refused"));
    // A listener that has no room and never accepts.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let uri = format!("unix:{}", path.display());
    let _first = connect_to(
        &uri.parse().unwrap(),
        &Descriptors::default(),
        &stop,
        PATIENCE,
    )
    .unwrap();
    assert!(refused(&uri).contains("no answer within 50 ms"));
    let stop = Stop::new().unwrap();
    stop.stop();
    let text = connect_to(
        &uri.parse().unwrap(),
        &Descriptors::default(),
        &stop,
        PATIENCE,
    )
    .unwrap_err();
    assert!(text.to_string().contains("given up"));
}

#[test]
fn silence_and_the_switch_end_a_wait() {
    let stop = Stop::new().unwrap();
    let (out, back) = pair("tcp:127.0.0.1:0", &stop);
    let memory = memory();
    let silent = back.clone().with_silence(Some(Duration::from_millis(20)));
    let mut reader = StreamReader::new(silent, &memory);
    assert_eq!(reader.fill(1).unwrap_err().end, ChannelEnd::TimedOut);
    // Nobody reads, so that writing ends in a wait, too.
    let link = out.clone().with_silence(Some(Duration::from_millis(20)));
    let mut writer = StreamWriter::new(link, &memory, Default::default());
    let error = loop {
        if let Err(error) = writer.bytes(&[0; 1 << 20]).and_then(|()| writer.flush()) {
            break error;
        }
        assert!(writer.position().0 < 1 << 30, "somebody takes it all");
    };
    assert_eq!(error.end, ChannelEnd::TimedOut);
    assert_eq!(
        writer.bytes(b"x").unwrap_err().end,
        ChannelEnd::TimedOut,
        "for good"
    );
    assert!(writer.rate_exceeded());
    stop.stop();
    let mut writer = StreamWriter::new(out, &memory, Default::default());
    assert!(writer.rate_exceeded());
    let result = writer.bytes(b"x").and_then(|()| writer.flush());
    assert_eq!(result.unwrap_err().end, ChannelEnd::ShutDown);
    // What has arrived is still there.
    let mut reader = StreamReader::new(back, &memory);
    assert!(!reader.fill(1).unwrap().is_empty());
}

#[test]
fn ranges_outside_are_refused() {
    let stop = Stop::new().unwrap();
    let (out, back) = pair("tcp:127.0.0.1:0", &stop);
    let memory = memory();
    let mut writer = StreamWriter::new(out, &memory, Default::default());
    assert!(writer.pages(BlockId(2), 0, 4096).is_err());
    assert!(writer.pages(BlockId(1), 1, 4096).is_err());
    writer.bytes(&[1; 100]).unwrap();
    writer.flush().unwrap();
    let mut reader = StreamReader::new(back, &memory);
    assert!(reader.read_into_guest(BlockId(1), 4095, 2).is_err());
    assert!(reader.read_into_guest(BlockId(9), 0, 1).is_err());
    assert!(reader.fill(vmstate_engine::MAX_PEEK + 1).is_err());
}

#[test]
fn a_budget_and_a_time_limit_the_rate() {
    let stop = Stop::new().unwrap();
    let (out, _back) = pair("tcp:127.0.0.1:0", &stop);
    let memory = memory();
    let mut writer = StreamWriter::new(out, &memory, Default::default());
    let later = Instant::now() + Duration::from_secs(3600);
    writer.bytes(&[0; 50]).unwrap();
    writer.limit(Some(10), later);
    writer.bytes(&[0; 9]).unwrap();
    assert!(!writer.rate_exceeded());
    writer.bytes(&[0]).unwrap();
    assert!(writer.rate_exceeded());
    writer.limit(None, later);
    assert!(!writer.rate_exceeded());
    writer.limit(None, Instant::now());
    assert!(writer.rate_exceeded());
    writer.unlimited();
    assert!(!writer.rate_exceeded());
}

/// Nobody is at the other end of the FIFO: whoever opened it without care would wait for ever.
#[test]
fn a_file_that_is_none_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let socket = dir.path().join("s");
    let _listener = UnixListener::bind(&socket).unwrap();
    let stop = Stop::new().unwrap();
    for (path, why) in [
        (&*path, "it is a FIFO"),
        (&*socket, "it is a socket"),
        (dir.path(), "it is a directory"),
    ] {
        let file: MigrationAddress = format!("file:{}", path.display()).parse().unwrap();
        let error = connect_to(&file, &Descriptors::default(), &stop, PATIENCE).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        let error = Listener::new(&file, &Descriptors::default(), &stop).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let null: MigrationAddress = "file:/dev/null".parse().unwrap();
    connect_to(&null, &Descriptors::default(), &stop, PATIENCE).unwrap();
}

#[test]
fn what_is_in_the_way_of_a_socket_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    std::fs::write(&path, "sectors").unwrap();
    let stop = Stop::new().unwrap();
    let place = MigrationAddress::unix(path.to_str().unwrap());
    let error = Listener::new(&place, &Descriptors::default(), &stop).unwrap_err();
    assert!(error.to_string().contains("is no socket"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"sectors");
}

/// Who wants the path of another's socket is not taken for its source.
#[test]
fn a_path_in_use_is_refused_without_a_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let stop = Stop::new().unwrap();
    let place = MigrationAddress::unix(path.to_str().unwrap());
    let first = Listener::new(&place, &Descriptors::default(), &stop).unwrap();
    let error = Listener::new(&place, &Descriptors::default(), &stop).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    let short = Duration::from_millis(20);
    let error = first.accept_another(&stop, &stop, short).unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
    let out = connect_to(&place, &Descriptors::default(), &stop, PATIENCE).unwrap();
    carries_everything(out, first.accept(&stop).unwrap());
}

#[test]
fn patience_without_end_is_none_that_overflows() {
    const ENDLESS: Duration = Duration::from_secs(u64::MAX);
    let stop = Stop::new().unwrap();
    let address: MigrationAddress = "tcp:127.0.0.1:0".parse().unwrap();
    let listener = Listener::new(&address, &Descriptors::default(), &stop).unwrap();
    let out = connect_to(listener.address(), &Descriptors::default(), &stop, ENDLESS).unwrap();
    let back = listener.accept_another(&stop, &stop, ENDLESS).unwrap();
    let memory = memory();
    let mut reader = StreamReader::new(back.with_silence(Some(ENDLESS)), &memory);
    std::thread::scope(|scope| {
        let reads = scope.spawn(move || reader.fill(1).map(<[u8]>::to_vec));
        std::thread::sleep(Duration::from_millis(20));
        let mut writer = StreamWriter::new(out, &memory, Default::default());
        writer.bytes(b"x").and_then(|()| writer.flush()).unwrap();
        assert_eq!(reads.join().unwrap().unwrap(), b"x");
    });
}
