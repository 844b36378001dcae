//! Whole streams, written and loaded without the machines that drive them.

use std::sync::{Arc, Mutex};

use vmstate_engine::{
    ANY_INSTANCE, Bql, Capabilities, Capability, CompleteCx, HandlerError, Identity, Incoming,
    LoadCx, LoadError, LoadStep, Outgoing, Progress, RunToken, SaveError, SaveVmHandlers, Settings,
    Writes,
};
use vmstate_wire::stream::{Dialect, ReturnMessage, VersionId};
use vmstate_wire::vmdesc::Trailer;

use crate::support::{Bytes, Recorder, Toy, identity};

/// Writes the whole stream of a toy, with its guest standing still.
fn written(toy: &Toy, settings: &Settings, identity: Identity, return_path: bool) -> Vec<u8> {
    try_write(toy, settings, identity, return_path).unwrap()
}

fn try_write(
    toy: &Toy,
    settings: &Settings,
    identity: Identity,
    return_path: bool,
) -> Result<Vec<u8>, SaveError> {
    let mut out = Recorder::new(toy.memory.clone());
    let mut registry = toy.registry.lock().unwrap();
    let bql = Bql::holding(());
    let mut stream = Outgoing::new(settings.clone(), identity, return_path);
    stream.begin(&mut out)?;
    stream.setup(&bql, &mut registry, &mut out)?;
    assert!(stream.estimate(&mut registry).must_precopy > 0);
    while stream.iterate(&mut registry, &mut out)? == Progress::More {}
    assert_eq!(stream.exact(&mut registry)?.total(), 0);
    stream.complete(&bql, &mut registry, &mut out)?;
    stream.commit(&mut out)?;
    stream.trailer(&mut out)?;
    registry.save_cleanup(&bql);
    Ok(out.bytes)
}

/// Loads it into another toy; returns the answers.
fn load(
    toy: &Toy,
    settings: &Settings,
    identity: Identity,
    bytes: &[u8],
    piece: usize,
) -> Result<Vec<ReturnMessage>, LoadError> {
    let mut input = Bytes::new(toy.memory.clone(), bytes, piece);
    let mut registry = toy.registry.lock().unwrap();
    let bql = Bql::holding(());
    let mut stream = Incoming::new(settings.clone(), identity);
    stream.begin(&mut input)?;
    stream.setup(&bql, &mut registry)?;
    let mut answers = Vec::new();
    loop {
        match stream.next(&mut input)? {
            LoadStep::OpenReturnPath => {}
            LoadStep::Send(message) => answers.push(message),
            LoadStep::Section => stream.section(Some(&bql), &mut registry, &mut input)?,
            LoadStep::SwitchoverStart => stream.switchover_start(Some(&bql), &mut registry)?,
            LoadStep::Eof => break,
            other => panic!("{other:?} without postcopy"),
        }
    }
    stream.trailer(&mut input)?;
    assert_eq!(input.position, bytes.len());
    registry.load_cleanup(&bql);
    Ok(answers)
}

fn busy() -> Toy {
    let toy = Toy::new(Some(RunToken::new_guest()));
    for _ in 0..33 {
        toy.step();
    }
    toy.uart.lock().unwrap().divider = 0x1234;
    toy
}

#[test]
fn a_machine_survives_the_stream_in_pieces_of_any_size() {
    let toy = busy();
    let settings = Settings::default();
    let bytes = written(&toy, &settings, identity(), true);
    for piece in [1, 5, 4099, 1 << 20] {
        let other = Toy::new(None);
        let answers = load(&other, &settings, identity(), &bytes, piece).unwrap();
        assert!(other.content() == toy.content(), "{piece}");
        let confirm = ReturnMessage::Pong(vmstate_engine::source::CONFIRM);
        assert_eq!(answers, [ReturnMessage::Pong(1), confirm]);
    }
}

#[test]
fn every_dialect_is_loaded_by_its_like() {
    for dialect in [(2, 2), (2, 3), (7, 2), (9, 2), (10, 0), (11, 1)] {
        let settings = Settings {
            dialect: Dialect::of_machine_version(dialect.0, dialect.1),
            ..Settings::default()
        };
        let toy = busy();
        let bytes = written(&toy, &settings, identity(), false);
        let other = Toy::new(None);
        load(&other, &settings, identity(), &bytes, 100).unwrap();
        assert!(other.content() == toy.content(), "{dialect:?}");
    }
}

#[test]
fn the_order_of_a_stream() {
    let toy = busy();
    let bytes = written(&toy, &Settings::default(), identity(), true);
    let mut parts = Vec::new();
    let mut parser = vmstate_wire::stream::StreamParser::new(Default::default());
    let (mut at, mut registry) = (0, toy.registry.lock().unwrap());
    let known: Vec<_> = registry
        .entries()
        .map(|e| (e.section_id(), e.idstr().to_string()))
        .collect();
    let name = |id| {
        known
            .iter()
            .find(|(known, _)| *known == id)
            .unwrap()
            .1
            .clone()
    };
    loop {
        use vmstate_wire::stream::{Event, Step};
        match parser.next(&bytes[at..]).unwrap() {
            Step::Event { consumed, event } => {
                at += consumed;
                match event {
                    Event::Section(header) => {
                        parts.push(format!("{} {}", header.kind, name(header.section_id)));
                    }
                    Event::Command(command) => parts.push(command.id().to_string()),
                    Event::Eof => parts.push("EOF".to_owned()),
                    Event::TrailerBegin { .. } => parts.push("trailer".to_owned()),
                    _ => {}
                }
            }
            Step::InBody => {
                // As long as the footer of the section does not stand there.
                let id = parser.current_section().unwrap().section_id.0.to_be_bytes();
                let footer = [&[0x7e], &id[..]].concat();
                let after = |end: &usize| bytes[*end..].starts_with(&footer);
                let end = (at..).find(after).unwrap();
                parser.body_done((end - at) as u64).unwrap();
                at = end;
            }
            Step::End => break,
            Step::NeedMore { .. } => panic!(),
        }
    }
    let expected = [
        "OPEN_RETURN_PATH",
        "PING",
        "START ram",
        "START mill",
        "PART ram",
        "PART mill",
        "SWITCHOVER_START",
        "END ram",
        "END mill",
        "FULL tick",
        "FULL bus.0/uart",
        "FULL globalstate",
        "PING",
        "EOF",
        "trailer",
    ];
    assert_eq!(parts, expected);
    registry.save_cleanup(&Bql::holding(()));
    // The description of every device, and of nothing else.
    let start = bytes.windows(2).rposition(|w| w == b"{\"").unwrap();
    let begin = bytes[..start]
        .windows(16)
        .rposition(|w| w == b"{\"configuration\"")
        .unwrap();
    let text = &bytes[begin..];
    let trailer = Trailer::parse(text).unwrap();
    assert!(trailer.device("tick", 0).is_some() && trailer.device("bus.0/uart", 0).is_some());
    assert!(trailer.device("ram", 0).is_none() && trailer.device("mill", 0).is_none());
    let begins = concat!(
        r#"{"configuration": {"vmsd_name": "configuration", "version": 1, "fields": [{"name": "len", "#,
        r#""type": "uint32", "size": 4}, {"name": "name", "type": "buffer", "size": 3}]}, "page_size": 4096, "#
    );
    assert!(
        text.starts_with(begins.as_bytes()),
        "{}",
        String::from_utf8_lossy(&text[..300])
    );
}

#[test]
fn the_configuration_is_checked() {
    let capable = |on: &[Capability]| Settings {
        capabilities: Capabilities::of(on),
        ..Settings::default()
    };
    let plain = capable(&[]);
    let uuid = capable(&[Capability::ValidateUuid]);
    let shared = capable(&[Capability::XIgnoreShared]);
    let with = |uuid: u8| Identity {
        uuid: Some([uuid; 16]),
        ..identity()
    };
    let arm = |size: u64| Identity {
        page_size: vmstate_ram::PageSize::new(size).unwrap(),
        says_page_size: true,
        ..identity()
    };
    let check =
        |out: (&Settings, Identity), into: (&Settings, Identity), expected: Option<&str>| {
            let bytes = written(&busy(), out.0, out.1, false);
            let result = load(&Toy::new(None), into.0, into.1, &bytes, 1 << 20);
            match (result, expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => assert_eq!(error.to_string(), expected),
                other => panic!("{other:?}"),
            }
        };
    check((&plain, identity()), (&plain, identity()), None);
    check(
        (&plain, identity()),
        (&plain, Identity::new("toy-2")),
        Some("Machine type received is 'toy' and local is 'toy-2'"),
    );
    // A stock destination would take a prefix of its own name.
    check(
        (&plain, Identity::new("to")),
        (&plain, identity()),
        Some("Machine type received is 'to' and local is 'toy'"),
    );
    check((&uuid, with(1)), (&plain, with(1)), None);
    check((&uuid, with(1)), (&plain, identity()), None);
    check((&plain, with(1)), (&plain, with(2)), None);
    let refused = format!(
        "UUID received is {:02x?} and local is {:02x?}",
        [1; 16], [2; 16]
    );
    check((&uuid, with(1)), (&plain, with(2)), Some(&refused));
    check((&plain, arm(4096)), (&plain, identity()), None);
    check(
        (&plain, arm(4096)),
        (&plain, arm(65536)),
        Some("the source's target page has 12 bits, this machine's has 16"),
    );
    check((&shared, identity()), (&shared, identity()), None);
    check(
        (&shared, identity()),
        (&plain, identity()),
        Some("Capability x-ignore-shared is off, but received capability is on"),
    );
    check(
        (&plain, identity()),
        (&shared, identity()),
        Some("Capability x-ignore-shared is on, but received capability is off"),
    );
    let nameless = try_write(&busy(), &plain, Identity::new(""), false);
    assert_eq!(
        nameless.unwrap_err().to_string(),
        "machine name \"\" cannot be sent"
    );
}

/// A section in a form of its own; takes one byte more or fewer than it writes if told to.
struct Legacy {
    bytes: Arc<Mutex<Vec<u8>>>,
    reads: usize,
    active: bool,
    fails: bool,
}

impl Legacy {
    fn new(bytes: &Arc<Mutex<Vec<u8>>>) -> Self {
        Self {
            bytes: bytes.clone(),
            reads: bytes.lock().unwrap().len(),
            active: true,
            fails: false,
        }
    }
}

impl SaveVmHandlers for Legacy {
    fn writes(&self) -> Writes {
        Writes::STATE
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn save_state(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        if self.fails {
            return Err(HandlerError::refused("no paper"));
        }
        Ok(cx.out.bytes(&self.bytes.lock().unwrap())?)
    }

    fn load_state(&mut self, cx: &mut LoadCx<'_>, _: VersionId) -> Result<(), HandlerError> {
        let mut bytes = vec![0; self.reads];
        cx.input.read_exact(&mut bytes)?;
        *self.bytes.lock().unwrap() = bytes;
        Ok(())
    }
}

fn with_legacy(toy: Toy, legacy: Legacy) -> Toy {
    let mut registry = toy.registry.lock().unwrap();
    registry
        .register_savevm_live("printer", ANY_INSTANCE, 1, Box::new(legacy))
        .unwrap();
    drop(registry);
    toy
}

#[test]
fn old_style_state_travels_and_its_length_is_described() {
    let (sent, got) = (
        Arc::new(Mutex::new(vec![1, 2, 3])),
        Arc::new(Mutex::new(vec![0; 3])),
    );
    let source = with_legacy(busy(), Legacy::new(&sent));
    let bytes = written(&source, &Settings::default(), identity(), false);
    let described = br#"{"name": "printer", "instance_id": 0, "size": 3, "fields": [{"name": "data", "size": 3, "type": "buffer"}]}"#;
    assert!(bytes.windows(described.len()).any(|w| w == described));
    let target = with_legacy(Toy::new(None), Legacy::new(&got));
    load(&target, &Settings::default(), identity(), &bytes, 7).unwrap();
    assert_eq!(*got.lock().unwrap(), [1, 2, 3]);
    // A destination without it says which, and where.
    let error = load(&Toy::new(None), &Settings::default(), identity(), &bytes, 7).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("unknown section printer/0 (stream offset 0x"),
        "{error}"
    );
}

#[test]
fn a_handler_that_takes_too_much_or_too_little_is_caught_by_the_footer() {
    let sent = Arc::new(Mutex::new(vec![1, 2, 3]));
    let source = with_legacy(busy(), Legacy::new(&sent));
    let bytes = written(&source, &Settings::default(), identity(), false);
    for reads in [2, 4] {
        let mut legacy = Legacy::new(&Arc::new(Mutex::new(Vec::new())));
        legacy.reads = reads;
        let target = with_legacy(Toy::new(None), legacy);
        let error = load(&target, &Settings::default(), identity(), &bytes, 1 << 20).unwrap_err();
        assert!(matches!(&error, LoadError::Stream(_)), "{error}");
        assert!(error.to_string().contains("printer"), "{error}");
    }
}

#[test]
fn inactive_entries_write_nothing_and_load_all_the_same() {
    let bytes = Arc::new(Mutex::new(vec![1, 2, 3]));
    let mut legacy = Legacy::new(&bytes);
    legacy.active = false;
    let source = with_legacy(busy(), legacy);
    let stream = written(&source, &Settings::default(), identity(), false);
    assert!(!stream.windows(7).any(|w| w == b"printer"));

    let source = with_legacy(busy(), Legacy::new(&bytes));
    let stream = written(&source, &Settings::default(), identity(), false);
    let mut legacy = Legacy::new(&Arc::new(Mutex::new(vec![0; 3])));
    legacy.active = false;
    let target = with_legacy(Toy::new(None), legacy);
    load(&target, &Settings::default(), identity(), &stream, 99).unwrap();
}

#[test]
fn errors_name_the_section() {
    let bytes = Arc::new(Mutex::new(vec![1, 2, 3]));
    let mut legacy = Legacy::new(&bytes);
    legacy.fails = true;
    let source = with_legacy(busy(), legacy);
    let error = try_write(&source, &Settings::default(), identity(), false).unwrap_err();
    assert_eq!(error.to_string(), "saving printer/0: no paper");

    let stream = written(&busy(), &Settings::default(), identity(), false);
    let name = b"\x0abus.0/uart\0\0\0\0\0\0\0";
    let at = stream.windows(name.len()).position(|w| w == name).unwrap() + name.len();
    for (version, expected) in [
        (
            1,
            "loading bus.0/uart/0: uart: version 1 of uart is not loadable: this end knows 2..=3",
        ),
        (4, "section bus.0/uart/0: version 4 is newer than 3"),
    ] {
        let mut other = stream.clone();
        other[at] = version;
        let error = load(
            &Toy::new(None),
            &Settings::default(),
            identity(),
            &other,
            77,
        )
        .unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn commands_of_postcopy_are_refused() {
    use vmstate_wire::stream::{Command, write};
    for command in [Command::PostcopyListen, Command::Packaged { length: 3 }] {
        let mut bytes = Vec::new();
        write::put_header(&mut bytes);
        write::put_command(&mut bytes, &command).unwrap();
        let settings = Settings {
            dialect: Dialect {
                send_configuration: false,
                ..Dialect::QEMU_11_1
            },
            ..Settings::default()
        };
        let error = load(&Toy::new(None), &settings, identity(), &bytes, 9).unwrap_err();
        let expected = format!(
            "command {} is not expected here (stream offset 0x8)",
            command.id()
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_stream_cut_anywhere_is_refused() {
    let stream = written(&busy(), &Settings::default(), identity(), true);
    let eof = stream
        .windows(16)
        .rposition(|w| w == b"{\"configuration\"")
        .unwrap()
        - 6;
    assert_eq!(stream[eof..eof + 2], [0, 6]);
    for cut in (0..=eof).rev().step_by(101).chain([0, 1, 7]) {
        let error = load(
            &Toy::new(None),
            &Settings::default(),
            identity(),
            &stream[..cut],
            4096,
        );
        assert!(error.is_err(), "{cut}");
    }
    // Behind the mark, the guest has arrived: only the trailer is broken.
    let toy = Toy::new(None);
    let error = load(
        &toy,
        &Settings::default(),
        identity(),
        &stream[..eof + 9],
        4096,
    )
    .unwrap_err();
    assert!(matches!(error, LoadError::Stream(_)));
    assert_ne!(toy.tick.lock().unwrap().count, 0);
}

#[test]
fn recorded_configurations_are_described_as_qemu_does() {
    for (name, machine, says_page_size) in [
        ("spike-11.1", "spike", false),
        ("arm-virt-11.1", "virt-11.1", true),
    ] {
        let path = format!(
            "{}/../../vectors/streams/{name}.main.bin.zst",
            env!("CARGO_MANIFEST_DIR")
        );
        let recorded = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
        let identity = Identity {
            says_page_size,
            ..Identity::new(machine)
        };
        let ours = written(&busy(), &Settings::default(), identity, false);
        // Header and configuration, up to the first section.
        let length = ours
            .windows(6)
            .position(|w| w == b"\x01\0\0\0\x01\x03")
            .unwrap();
        assert_eq!(ours[..length], recorded[..length], "{name}");
        let described = |bytes: &[u8]| {
            let start = bytes
                .windows(16)
                .rposition(|w| w == b"{\"configuration\"")
                .unwrap();
            let text = String::from_utf8_lossy(&bytes[start..]).into_owned();
            text[..text.find("\"devices\"").unwrap()].to_owned()
        };
        assert_eq!(described(&ours), described(&recorded), "{name}");
    }
}
