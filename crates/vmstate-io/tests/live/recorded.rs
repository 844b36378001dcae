//! What stock QEMU has sent, from a recording, to a machine that has its sections and its memory.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use vmstate_engine::{
    Bql, Capabilities, Capability, HandlerError, Identity, LoadCx, Machine, MachineError,
    RAM_VERSION, RamHandler, Registry, RunState, RunToken, SaveVmHandlers, StoppedGuest, Writes,
};
use vmstate_io::live::{Deadlines, Memory, MigrationEvent, Migrator, Vmm};
use vmstate_qmp::address::MigrationAddress;
use vmstate_ram::{BlockName, PageSize};
use vmstate_wire::stream::{
    InstanceId, ReturnEvent, ReturnMessage, ReturnPathParser, ReturnStep, VersionId,
};

/// A device of which only the end is known: its footer, and that something follows.
struct Opaque(u32);

impl SaveVmHandlers for Opaque {
    fn writes(&self) -> Writes {
        Writes::STATE
    }

    fn load_state(&mut self, cx: &mut LoadCx<'_>, _: VersionId) -> Result<(), HandlerError> {
        let rest = cx.input.fill(6)?;
        let id = self.0.to_be_bytes();
        let ends =
            |window: &[u8]| window[0] == 0x7e && window[1..5] == id && matches!(window[5], 4 | 8);
        let body = rest.windows(6).position(ends);
        let body = body.ok_or_else(|| HandlerError::refused("no footer"))?;
        cx.input.consume(body);
        Ok(())
    }
}

/// A machine without a guest.
#[derive(Default)]
pub(crate) struct Still(Mutex<Option<RunState>>);

impl Machine for Still {
    fn name(&self) -> &str {
        "pc-i440fx-11.1"
    }

    fn run_state(&self) -> RunState {
        self.0.lock().unwrap().unwrap_or(RunState::InMigrate)
    }

    fn stop(&self, _: &Bql<'_>, _: RunState) -> Result<StoppedGuest, MachineError> {
        Err(MachineError::new("stop the guest", "there is none"))
    }

    fn start(&self, _: &Bql<'_>, _: RunToken, state: RunState) {
        *self.0.lock().unwrap() = Some(state);
    }

    fn migrated(&self, _: &Bql<'_>) {}

    fn lost(&self) {}

    fn throttle(&self, _: u8) {}
}

struct Recording {
    sidecar: Value,
    main: Vec<u8>,
}

impl Recording {
    fn read(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams");
        let sidecar = std::fs::read(dir.join(format!("{name}.json"))).unwrap();
        let main = std::fs::read(dir.join(format!("{name}.main.bin.zst"))).unwrap();
        Self {
            sidecar: serde_json::from_slice(&sidecar).unwrap(),
            main: zstd::decode_all(&*main).unwrap(),
        }
    }

    /// A machine that is made like the one that sent this.
    fn machine(&self) -> (Arc<Memory>, Migrator, Receiver<MigrationEvent>) {
        let mut memory = Memory::new(PageSize::KIB4);
        for block in self.sidecar["ram_blocks"].as_array().unwrap() {
            let name = BlockName::new(block["name"].as_str().unwrap().as_bytes()).unwrap();
            let length = block["used_length"].as_u64().unwrap();
            memory.add(name, length).unwrap();
        }
        let memory = Arc::new(memory);
        let ram = RamHandler::new(memory.clone(), Box::new(memory.dirty_log()));
        let counters = ram.counters();
        let mut ram = Some(ram);
        let mut registry = Registry::new();
        for section in self.sidecar["sections"].as_array().unwrap() {
            let number = |at: usize| u32::try_from(section[at].as_u64().unwrap()).unwrap();
            let (name, instance) = (section[1].as_str().unwrap(), InstanceId(number(2)));
            let handlers: Box<dyn SaveVmHandlers> = match name {
                "ram" => Box::new(ram.take().unwrap()),
                _ => Box::new(Opaque(number(0))),
            };
            let version = if name == "ram" {
                RAM_VERSION
            } else {
                number(3)
            };
            registry
                .register_savevm_live(name, instance, version, handlers)
                .unwrap();
        }
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
        (memory, migrator, events)
    }

    fn check(&self, memory: &Memory) {
        for (block, id) in self.sidecar["ram_blocks"]
            .as_array()
            .unwrap()
            .iter()
            .zip(0..)
        {
            let ram = &memory.block(vmstate_ram::BlockId(id)).unwrap().ram;
            let mut content = vec![0; usize::try_from(ram.len()).unwrap()];
            ram.read(0, &mut content).unwrap();
            let digest: String = Sha256::digest(&content)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(Some(&*digest), block["sha256"].as_str(), "{block}");
        }
    }
}

/// All messages that come, up to SHUT.
pub(crate) fn answers(mut peer: UnixStream) -> Vec<ReturnMessage> {
    peer.set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut parser = ReturnPathParser::new();
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    let mut found = Vec::new();
    while !matches!(found.last(), Some(ReturnMessage::Shut(_))) {
        match parser.next(&bytes).unwrap() {
            ReturnStep::Event { consumed, event } => {
                if let ReturnEvent::Message(message) = event {
                    found.push(message);
                }
                bytes.drain(..consumed);
            }
            _ => {
                let count = peer.read(&mut piece).unwrap();
                assert!(count > 0, "the destination has closed: {found:?}");
                bytes.extend_from_slice(&piece[..count]);
            }
        }
    }
    found
}

pub(crate) fn over(events: &Receiver<MigrationEvent>) -> Option<String> {
    loop {
        let event = events.recv_timeout(Duration::from_secs(60)).unwrap();
        if let MigrationEvent::Arrived(failure) = event {
            return failure;
        }
    }
}

#[test]
fn a_postcopy_of_stock_qemu_arrives_to_the_last_page() {
    let recording = Recording::read("pc-11.1-postcopy");
    let (memory, migrator, events) = recording.machine();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let place = MigrationAddress::unix(path.to_str().unwrap());
    migrator.incoming(&place).unwrap();
    let mut source = UnixStream::connect(&path).unwrap();
    let reader = source.try_clone().unwrap();
    let reader = std::thread::spawn(move || answers(reader));
    source.write_all(&recording.main).unwrap();
    let mut found = reader.join().unwrap();
    assert_eq!(found.pop(), Some(ReturnMessage::Shut(0)));
    let mut values: Vec<_> = found
        .iter()
        .map(|message| match message {
            ReturnMessage::Pong(value) => *value,
            other => panic!("{other:?}: there is no guest that could wait"),
        })
        .collect();
    values.sort_unstable();
    assert_eq!(values, [1, 2, 3, 4, 0x42]);
    assert_eq!(over(&events), None);
    recording.check(&memory);
    let info = migrator.info().postcopy.unwrap();
    assert_eq!(info.missing, []);
    assert!(info.pages.background > 100, "{info:?}");
}
