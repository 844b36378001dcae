//! Sources that do not do in postcopy what they should.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vmstate_engine::{
    Capabilities, Capability, HandlerError, Identity, LoadCx, MigrationStatus as Status,
    RAM_VERSION, RamHandler, Registry, SaveVmHandlers, Writes,
};
use vmstate_io::live::{Deadlines, Memory, MigrationEvent, Migrator, Vmm};
use vmstate_qmp::address::MigrationAddress;
use vmstate_ram::{BlockId, BlockName, BlockTable, PageRef, PageSize, RamBlock, RamWriter, Record};
use vmstate_wire::stream::write::{
    put_command, put_configuration, put_eof, put_footer, put_header, put_packaged,
    put_section_header,
};
use vmstate_wire::stream::{
    BlockName as WireName, Command, Configuration, DiscardRange, IdStr, InstanceId, MachineName,
    PostcopyAdvise, ReturnMessage, SectionHeader, SectionId, SectionKind, VersionId,
};

use crate::recorded::{Still, answers, over};
use crate::toy::PATIENCE;

const PAGE: u64 = 4096;
const PAGES: u64 = 16;

/// A device of 8 bytes whose last state comes when the guest runs.
#[derive(Default)]
struct Late(Arc<Mutex<Vec<u64>>>);

impl SaveVmHandlers for Late {
    fn writes(&self) -> Writes {
        Writes::LIVE | Writes::COMPLETE_POSTCOPY
    }

    fn has_postcopy(&self) -> bool {
        true
    }

    fn load_state(&mut self, cx: &mut LoadCx<'_>, _: VersionId) -> Result<(), HandlerError> {
        let mut bytes = [0; 8];
        cx.input.read_exact(&mut bytes)?;
        let value = u64::from_be_bytes(bytes);
        // From POSTCOPY_LISTEN on, nobody holds the lock.
        assert_eq!(cx.bql.is_none(), value > 1);
        self.0.lock().unwrap().push(value);
        Ok(())
    }
}

struct Victim {
    memory: Arc<Memory>,
    late: Arc<Mutex<Vec<u64>>>,
    migrator: Migrator,
    events: Receiver<MigrationEvent>,
    dir: tempfile::TempDir,
}

impl Victim {
    fn new() -> Self {
        let mut memory = Memory::new(PageSize::KIB4);
        memory
            .add(BlockName::new(b"ram").unwrap(), PAGES * PAGE)
            .unwrap();
        let memory = Arc::new(memory);
        let ram = RamHandler::new(memory.clone(), Box::new(memory.dirty_log()));
        let counters = ram.counters();
        let late: Arc<Mutex<Vec<u64>>> = Arc::default();
        let mut registry = Registry::new();
        let only = InstanceId(0);
        registry
            .register_savevm_live("ram", only, RAM_VERSION, Box::new(ram))
            .unwrap();
        registry
            .register_savevm_live("late", only, 1, Box::new(Late(late.clone())))
            .unwrap();
        let vmm = Vmm {
            machine: Arc::new(Still::default()),
            memory: memory.clone(),
            registry,
            ram: counters,
            identity: Identity::new("pc-i440fx-11.1"),
            big_lock: Arc::default(),
            arrived: Box::new(|| None),
            incoming: true,
            autostart: true,
        };
        let (sender, events) = channel();
        let sender = Mutex::new(sender);
        let migrator = Migrator::new(vmm, Deadlines::default(), move |event| {
            let _ = sender.lock().unwrap().send(event.clone());
        });
        let migrator = migrator.unwrap();
        let change = |settings: &mut vmstate_engine::Settings| {
            settings.capabilities = Capabilities::of(&[Capability::PostcopyRam]);
            Ok::<_, ()>(())
        };
        migrator.change_settings(change).unwrap();
        Self {
            memory,
            late,
            migrator,
            events,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn connect(&self, name: &str, recover: bool) -> UnixStream {
        let path = self.dir.path().join(name);
        let place = MigrationAddress::unix(path.to_str().unwrap());
        match recover {
            true => self.migrator.recover(&place).unwrap(),
            false => self.migrator.incoming(&place).unwrap(),
        };
        UnixStream::connect(path).unwrap()
    }

    fn wait_for(&self, status: Status) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let info = self.migrator.info();
            if info.status == Some(status) {
                return info.error_desc.unwrap_or_default();
            }
            assert!(Instant::now() < end, "no {status}: {info:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn byte(&self, page: u64) -> Option<u8> {
        let ram = &self.memory.block(BlockId(0)).unwrap().ram;
        ram.load(page * PAGE)
    }
}

/// Writes what a source sends.
struct Script {
    bytes: Vec<u8>,
    ram: RamWriter,
}

impl Script {
    fn new() -> Self {
        let mut table = BlockTable::new();
        let block = RamBlock::new(BlockName::new(b"ram").unwrap(), PAGES * PAGE);
        table.push(block, PageSize::KIB4).unwrap();
        Self {
            bytes: Vec::new(),
            ram: RamWriter::new(PageSize::KIB4, Arc::new(table)),
        }
    }

    fn command(&mut self, command: &Command) {
        put_command(&mut self.bytes, command).unwrap();
    }

    fn section(&mut self, kind: SectionKind, id: u32, body: impl FnOnce(&mut Self)) {
        let (name, version) = if id == 1 { ("ram", 4) } else { ("late", 1) };
        let header = SectionHeader {
            kind,
            section_id: SectionId(id),
            idstr: IdStr::new(name).unwrap(),
            instance_id: InstanceId(0),
            version_id: VersionId(version),
        };
        put_section_header(&mut self.bytes, &header);
        body(self);
        put_footer(&mut self.bytes, SectionId(id));
    }

    fn page(&mut self, page: u64, with: u8) {
        let record = Record::Page {
            page: PageRef {
                block: BlockId(0),
                offset: page * PAGE,
                named: true,
            },
            data: &[with; 4096],
        };
        self.ram.record(&record, &mut self.bytes).unwrap();
    }

    fn pages(&mut self, kind: SectionKind, pages: &[(u64, u8)]) {
        self.section(kind, 1, |script| {
            for (page, with) in pages {
                script.page(*page, *with);
            }
            script.ram.end_of_section(&mut script.bytes);
        });
    }

    fn late(&mut self, kind: SectionKind, value: u64) {
        self.section(kind, 2, |script| {
            script.bytes.extend_from_slice(&value.to_be_bytes());
        });
    }

    /// Up to `POSTCOPY_RUN`: all pages but 3, 4 and 5 have come, and hold 1.
    fn up_to_run(&mut self) {
        put_header(&mut self.bytes);
        let machine = MachineName::new("pc-i440fx-11.1").unwrap();
        put_configuration(&mut self.bytes, &Configuration::new(machine));
        self.command(&Command::OpenReturnPath);
        self.command(&Command::PostcopyAdvise(Some(PostcopyAdvise {
            page_sizes: PAGE,
            target_page_size: PAGE,
        })));
        self.section(SectionKind::Start, 1, |script| {
            script.ram.setup(&mut script.bytes);
            script.ram.end_of_section(&mut script.bytes);
        });
        self.late(SectionKind::Start, 0);
        let all: Vec<_> = (0..PAGES).map(|page| (page, 1)).collect();
        self.pages(SectionKind::Part, &all);
        self.late(SectionKind::Part, 1);
        self.command(&Command::RamDiscard {
            block: WireName::new("ram").unwrap(),
            ranges: vec![DiscardRange {
                start: 3 * PAGE,
                length: 3 * PAGE,
            }],
        });
        let mut package = Vec::new();
        for command in [
            Command::PostcopyListen,
            Command::Ping(0x42),
            Command::PostcopyRun,
        ] {
            put_command(&mut package, &command).unwrap();
        }
        put_packaged(&mut self.bytes, &package).unwrap();
    }
}

/// What comes after the guest has been started, in one piece; then the connection ends.
fn paused(after: impl FnOnce(&mut Script)) -> (Victim, String) {
    let victim = Victim::new();
    let mut script = Script::new();
    script.up_to_run();
    let mut source = victim.connect("s", false);
    source.write_all(&script.bytes).unwrap();
    victim.wait_for(Status::PostcopyActive);
    script.bytes.clear();
    after(&mut script);
    // It may have had enough before.
    let _ = source.write_all(&script.bytes);
    drop(source);
    let why = victim.wait_for(Status::PostcopyPaused);
    (victim, why)
}

/// Another connection, over which everything comes that is missing.
fn recovers(victim: &Victim) {
    let mut source = victim.connect("again", true);
    let reader = source.try_clone().unwrap();
    let mut script = Script::new();
    script.command(&Command::PostcopyResume);
    script.pages(SectionKind::Part, &[(3, 2), (4, 2), (5, 2)]);
    script.pages(SectionKind::End, &[]);
    script.late(SectionKind::End, 7);
    put_eof(&mut script.bytes);
    source.write_all(&script.bytes).unwrap();
    let found = answers(reader);
    assert_eq!(found, [ReturnMessage::ResumeAck(1), ReturnMessage::Shut(0)]);
    assert_eq!(over(&victim.events), None);
    victim.wait_for(Status::Completed);
    assert_eq!(victim.byte(0), Some(1));
    assert_eq!(victim.late.lock().unwrap().last(), Some(&7));
}

#[test]
fn pages_outside_and_other_nonsense_pause_and_change_nothing() {
    let word = |word: u64| word.to_be_bytes().to_vec();
    let named = |word: u64| [&word.to_be_bytes()[..], b"\x03ram"].concat();
    for (records, expected) in [
        (named((PAGES * PAGE) | 8), "ram"),
        (named((u64::MAX << 12) | 8), "ram"),
        ([&word(8)[..], b"\x05other"].concat(), "other"),
        // A delta against what is not there.
        (
            [&named(0x40)[..], b"\x01\0\x04\0\x01\x09\0"].concat(),
            "postcopy",
        ),
        (word(0x8_0000), "flags"),
    ] {
        let (victim, why) = paused(|script| {
            script.section(SectionKind::Part, 1, |script| {
                script.bytes.extend_from_slice(&records);
                script.bytes.extend_from_slice(&[9; 8192]);
            });
        });
        assert!(why.contains(expected), "{why}");
        let missing = victim.migrator.info().postcopy.unwrap().missing;
        assert_eq!((missing[0].pages, missing[0].first), (3, 3 * PAGE));
        recovers(&victim);
        for page in 0..PAGES {
            let late = (3..6).contains(&page);
            assert_eq!(victim.byte(page), Some(if late { 2 } else { 1 }));
        }
    }
}

#[test]
fn commands_that_do_not_come_now_pause() {
    let ram = || WireName::new("ram").unwrap();
    for command in [
        Command::PostcopyListen,
        Command::PostcopyRun,
        Command::PostcopyResume,
        Command::RecvBitmap { block: ram() },
        Command::RamDiscard {
            block: ram(),
            ranges: vec![DiscardRange {
                start: 0,
                length: PAGE,
            }],
        },
        Command::EnableColo,
    ] {
        let (victim, why) = paused(|script| script.command(&command));
        assert!(
            why.contains("not expected") || why.contains("POSTCOPY"),
            "{why}"
        );
        recovers(&victim);
    }
}

#[test]
fn a_page_that_comes_again_is_dropped() {
    let (victim, _) = paused(|script| {
        let again: Vec<_> = (0..PAGES).flat_map(|_| [(0, 9), (3, 2), (3, 9)]).collect();
        script.pages(SectionKind::Part, &again);
    });
    let pages = victim.migrator.info().postcopy.unwrap().pages;
    assert_eq!((pages.background, pages.repeated), (1, 3 * PAGES - 1));
    assert_eq!((victim.byte(0), victim.byte(3)), (Some(1), Some(2)));
    recovers(&victim);
    assert_eq!(victim.byte(3), Some(2));
}

#[test]
fn an_end_without_all_pages_is_none() {
    let (victim, why) = paused(|script| {
        script.pages(SectionKind::Part, &[(3, 2), (5, 2)]);
        script.pages(SectionKind::End, &[]);
        script.late(SectionKind::End, 7);
        put_eof(&mut script.bytes);
    });
    let expected = "the source has ended without 1 pages of RAM block ram, the first at 0x4000";
    assert!(why.contains(expected), "{why}");
    recovers(&victim);
}

#[test]
fn a_page_that_somebody_waits_for_is_asked_for_once_and_again_on_the_next_connection() {
    let victim = Victim::new();
    let mut script = Script::new();
    script.up_to_run();
    let mut source = victim.connect("s", false);
    source.write_all(&script.bytes).unwrap();
    victim.wait_for(Status::PostcopyActive);
    std::thread::scope(|scope| {
        // Several wait for one page.
        let ram = &victim.memory.block(BlockId(0)).unwrap().ram;
        let wait = || ram.load::<u8>(4 * PAGE);
        let waiting: Vec<_> = (0..3).map(|_| scope.spawn(wait)).collect();
        let mut expected = vec![ReturnMessage::Pong(0x42)];
        expected.push(ReturnMessage::ReqPagesId {
            start: 4 * PAGE,
            length: 4096,
            block: WireName::new("ram").unwrap(),
        });
        let mut bytes = Vec::new();
        for message in &expected {
            vmstate_wire::stream::put_message(&mut bytes, message);
        }
        // One of them asks; whether the others begin before or after the pause, they do not.
        let mut seen = vec![0; bytes.len()];
        std::io::Read::read_exact(&mut source, &mut seen).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        victim.migrator.pause_arrival().unwrap();
        victim.wait_for(Status::PostcopyPaused);
        std::io::Read::read_to_end(&mut source, &mut seen).unwrap();
        assert_eq!(seen, bytes);
        // The next connection hears of it again, after the acknowledgement.
        let mut source = victim.connect("again", true);
        let mut script = Script::new();
        script.command(&Command::RecvBitmap {
            block: WireName::new("ram").unwrap(),
        });
        script.command(&Command::PostcopyResume);
        source.write_all(&script.bytes).unwrap();
        victim.wait_for(Status::PostcopyActive);
        let mut bytes = Vec::new();
        let block = WireName::new("ram").unwrap();
        vmstate_wire::stream::put_message(&mut bytes, &ReturnMessage::RecvBitmap { block });
        vmstate_wire::stream::put_bitmap(&mut bytes, &[0b1100_0111, 0xff]);
        for message in [ReturnMessage::ResumeAck(1), expected.remove(1)] {
            vmstate_wire::stream::put_message(&mut bytes, &message);
        }
        let mut seen = vec![0; bytes.len()];
        std::io::Read::read_exact(&mut source, &mut seen).unwrap();
        assert_eq!(seen, bytes);
        let mut script = Script::new();
        script.pages(SectionKind::Part, &[(4, 6), (3, 2), (5, 2)]);
        script.late(SectionKind::End, 7);
        put_eof(&mut script.bytes);
        source.write_all(&script.bytes).unwrap();
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), Some(6));
        }
    });
    assert_eq!(over(&victim.events), None);
    let info = victim.migrator.info().postcopy.unwrap();
    assert_eq!((info.latency.faults, info.pages.requested), (3, 1));
    assert_eq!(*victim.late.lock().unwrap(), [0, 1, 7]);
}

#[test]
fn before_the_guest_runs_everything_that_is_wrong_fails() {
    let run = |break_it: &dyn Fn(&mut Vec<u8>)| {
        let victim = Victim::new();
        let mut script = Script::new();
        script.up_to_run();
        break_it(&mut script.bytes);
        let mut source = victim.connect("s", false);
        let _ = source.write_all(&script.bytes);
        drop(source);
        let why = over(&victim.events).unwrap();
        assert_eq!(victim.migrator.info().status, Some(Status::Failed));
        assert!(
            victim
                .migrator
                .recover(&MigrationAddress::unix("/nonexistent"))
                .is_err()
        );
        why
    };
    // The package is cut anywhere: 5 + 9 + 5 bytes, and the command before it.
    for cut in 1..28 {
        run(&|bytes| bytes.truncate(bytes.len() - cut));
    }
    let why = run(&|bytes| {
        let at = bytes.len() - 19;
        // Another command in the place of POSTCOPY_LISTEN.
        bytes[at + 2] = 3;
    });
    assert!(
        why.contains("POSTCOPY_ADVISE") || why.contains("package"),
        "{why}"
    );
    let why = run(&|bytes| {
        let at = bytes.len() - 23;
        // A package of 4 GiB.
        bytes[at..at + 4].fill(0xff);
    });
    assert!(why.contains("package"), "{why}");
}
