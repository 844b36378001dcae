//! Streams in other forms: several channels, pages at fixed places, differences.

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde_json::json;
use vmstate_interop::{Generation, Machine, Result, sha256};
use vmstate_io::SliceInput;
use vmstate_io::inspect::{Analysis, Options, Pages, rewrite};

use crate::board::{self, Board, COUNTING_PC, PC};
use crate::check::{analyzed, analyzed_file, assert_ram, write};

/// Channels beside the main one.
const CHANNELS: usize = 2;

/// Accepts this many connections and reads all to their ends.
fn receive(listener: &UnixListener, connections: usize) -> Result<Vec<Vec<u8>>> {
    let readers: Vec<thread::JoinHandle<Result<Vec<u8>>>> = (0..connections)
        .map(|_| {
            let (stream, _) = listener.accept()?;
            Ok(thread::spawn(move || read(stream)))
        })
        .collect::<Result<_>>()?;
    readers
        .into_iter()
        .map(|reader| reader.join().map_err(|_| "a reader has panicked")?)
        .collect()
}

fn read(mut stream: UnixStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What QEMU sends over several connections: main channel first.
fn captured(source: &mut Machine, connections: usize) -> Result<Vec<Vec<u8>>> {
    let path = source.dir().join("migration");
    let listener = UnixListener::bind(&path)?;
    source.run(
        "migrate",
        json!({ "uri": format!("unix:{}", path.display()) }),
    )?;
    let receiver = thread::spawn(move || receive(&listener, connections));
    source.wait_for_migration()?;
    let mut channels = receiver.join().map_err(|_| "the receiver has panicked")??;
    channels.sort_by_key(|bytes| !bytes.starts_with(b"QEVM"));
    Ok(channels)
}

fn multifd(generation: Generation, compression: &str) -> Result<()> {
    let Some(program) = PC.find(generation) else {
        return Ok(());
    };
    let mut source = PC.start(&program)?;
    board::settle(&mut source, generation)?;
    source.capabilities(&["multifd"])?;
    let parameters = json!({ "multifd-channels": CHANNELS, "multifd-compression": compression });
    source.run("migrate-set-parameters", parameters)?;
    let mut channels = captured(&mut source, 1 + CHANNELS)?;
    let main = channels.remove(0);
    let analysis = analyzed(&main, &channels)?;
    assert_ram(&analysis, &source, PC.ram)?;
    let report = &analysis.report;
    assert_eq!(report.channels.len(), CHANNELS);
    for channel in &report.channels {
        assert_eq!(channel.kind, "multifd");
        assert!(channel.syncs > 0, "{channel:?}");
        let method = channel.compression.map(|method| method.to_string());
        assert!(
            method.is_none_or(|method| method == compression),
            "{channel:?}"
        );
    }
    assert!(pages(&analysis).multifd > 0, "{:?}", report.ram);
    Ok(())
}

#[test]
fn multifd_7_2() -> Result<()> {
    multifd(Generation::V7_2, "none")
}

#[test]
fn multifd_zlib_10_0() -> Result<()> {
    multifd(Generation::V10_0, "zlib")
}

#[test]
fn multifd_11_1() -> Result<()> {
    multifd(Generation::V11_1, "none")
}

#[test]
fn multifd_zstd_11_1() -> Result<()> {
    multifd(Generation::V11_1, "zstd")
}

fn pages(analysis: &Analysis) -> Pages {
    let mut sum = Pages::default();
    for block in &analysis.report.ram.blocks {
        let pages = &block.pages;
        sum.normal += pages.normal;
        sum.xbzrle += pages.xbzrle;
        sum.multifd += pages.multifd;
        sum.mapped += pages.mapped;
    }
    sum
}

fn mapped_ram(generation: Generation) -> Result<()> {
    let Some(program) = PC.find(generation) else {
        return Ok(());
    };
    let mut source = PC.start(&program)?;
    source.capabilities(&["mapped-ram"])?;
    let path = source.dir().join("stream");
    source.migrate(&format!("file:{}", path.display()))?;
    let analysis = analyzed_file(&path)?;
    assert_ram(&analysis, &source, PC.ram)?;
    let found = pages(&analysis);
    assert!(found.mapped > 0 && found.normal == 0, "{found:?}");
    Ok(())
}

#[test]
fn mapped_ram_10_0() -> Result<()> {
    mapped_ram(Generation::V10_0)
}

#[test]
fn mapped_ram_11_1() -> Result<()> {
    mapped_ram(Generation::V11_1)
}

/// Migrates a guest that dirties its memory all the time, until there are enough pages dirtied again after a round.
fn migrate_slowly(source: &mut Machine) -> Result<PathBuf> {
    let path = source.dir().join("stream");
    let uri = format!("exec:cat > {}", path.display());
    source.capabilities(&["xbzrle"])?;
    // How many rounds there are depends on who gets the processor. Without enough of them, once more.
    for _ in 0..20 {
        let set = "migrate-set-parameters";
        source.run(
            set,
            json!({ "downtime-limit": 1, "max-bandwidth": 256 << 10 }),
        )?;
        source.run("migrate", json!({ "uri": uri }))?;
        let differences = source.wait_until("third round", |machine| {
            let status = machine.run("query-migrate", json!({}))?;
            let differences = status["xbzrle-cache"]["pages"].as_u64().unwrap_or(0);
            let over = status["status"] == "completed";
            Ok((over || differences > 0).then_some(differences))
        })?;
        source.run(
            set,
            json!({ "downtime-limit": 10_000, "max-bandwidth": 1 << 30 }),
        )?;
        source.wait_for_migration()?;
        if differences > 0 {
            return Ok(path);
        }
        source.run("cont", json!({}))?;
    }
    Err("no migration had pages that changed from round to round".into())
}

fn xbzrle(board: &Board, generation: Generation) -> Result<()> {
    let Some(program) = board.find(generation) else {
        return Ok(());
    };
    let mut source = board.start(&program)?;
    let path = migrate_slowly(&mut source)?;
    let saved = analyzed_file(&path)?;
    assert_ram(&saved, &source, board.ram)?;
    assert!(pages(&saved).xbzrle > 0, "{:?}", saved.report.ram);

    // A stream with differences, written by us, gives the same memory.
    let theirs = std::fs::read(&path)?;
    let mut ours = Vec::new();
    rewrite(
        &mut SliceInput::new(&theirs),
        &mut ours,
        &Options::default(),
    )?;
    let mut destination = board.waiting(&program)?;
    destination.capabilities(&["xbzrle"])?;
    let path = write(&destination, "stream", &ours)?;
    destination.load(&path)?;
    assert_eq!(
        sha256(&destination.ram()?),
        sha256(&source.ram()?),
        "RAM after loading"
    );
    destination.run("cont", json!({}))?;
    destination.wait_for_change(board.pulse)
}

#[test]
fn xbzrle_10_0() -> Result<()> {
    xbzrle(&COUNTING_PC, Generation::V10_0)
}

#[test]
fn xbzrle_11_1() -> Result<()> {
    xbzrle(&COUNTING_PC, Generation::V11_1)
}
