//! Streams in files: QEMU of three releases with our helpers, and the bytes of the section.

use std::fs;
use std::sync::Arc;

use vmstate_dbus::{DbusVmstate, Helper, HelperError, Place, Served};
use vmstate_engine::Registry;
use vmstate_interop::{Bus, Generation, Machine, Program, Result, Users, find};
use vmstate_wire::helpers::{decode_blob, put_blob};

use super::process::Store;
use crate::board::COUNTING_PC;
use crate::check::analyzed;

/// A QEMU with the object for this bus.
fn with_object(program: &Program, bus: &Bus, list: &str, more: &[&str]) -> Result<Machine> {
    let object = format!("dbus-vmstate,id=dv0,addr={},id-list={list}", bus.address());
    let arguments = [&["-object", &object], more].concat();
    let mut machine = COUNTING_PC.launch(program, &arguments)?;
    if more.is_empty() {
        machine.wait_for_change(COUNTING_PC.pulse)?;
    }
    Ok(machine)
}

/// A store's content is saved by one QEMU, and loaded by a new one that has a new store.
#[test]
fn a_store_under_every_qemu() -> Result<()> {
    for generation in Generation::ALL {
        let Some(program) = find(generation, "x86_64") else {
            continue;
        };
        let (Some(here), Some(there)) = (Bus::start()?, Bus::start()?) else {
            return Ok(());
        };
        let mut old = Store::on(&here, "kv0")?;
        assert_eq!(old.line(&format!("set qemu {generation}"))?, "ok");
        let mut source = with_object(&program, &here, "kv0", &[])?;
        let path = source.migrate_to_file("stream")?;
        let stream = fs::read(path)?;
        drop((source, old));

        let mut new = Store::on(&there, "kv0")?;
        assert_eq!(new.line("get qemu")?, "-");
        let mut destination = with_object(&program, &there, "kv0", &["-incoming", "defer"])?;
        let path = destination.dir().join("stream");
        fs::write(&path, stream)?;
        destination.load(&path)?;
        assert_eq!(new.line("get qemu")?, generation.number());
        destination.wait_for_change(COUNTING_PC.pulse)?;
    }
    Ok(())
}

struct Fixed(&'static str, Vec<u8>);

impl Helper for Fixed {
    fn id(&self) -> String {
        self.0.to_owned()
    }

    fn save(&self) -> std::result::Result<Vec<u8>, HelperError> {
        Ok(self.1.clone())
    }

    fn load(&self, state: &[u8]) -> std::result::Result<(), HelperError> {
        if state == self.1 {
            Ok(())
        } else {
            Err(HelperError::new("not what was saved"))
        }
    }
}

/// The section as it stands in a stream, from its header to its footer, and its entry in the trailer.
fn section(stream: &[u8]) -> Result<(Vec<u8>, String)> {
    let analysis = analyzed(stream, &[])?;
    let section = analysis.report.sections.iter();
    let section = section
        .clone()
        .find(|s| s.idstr == "dbus-vmstate/dbus-vmstate");
    let section = section.ok_or("no section of helpers")?;
    let start = usize::try_from(section.offset)?;
    // Behind the type and the section's number, which are the machine's own affair.
    let header = start + 5;
    let body = header + 1 + section.idstr.len() + 8;
    let end = body + usize::try_from(section.length)?;
    let text = String::from_utf8_lossy(stream);
    let begin = text.find(r#"{"name": "dbus-vmstate/dbus-vmstate""#);
    let entry = &text[begin.ok_or("no entry in the trailer")?..];
    let end_of_entry = entry.find("]}").ok_or("no end of the entry")?;
    Ok((
        stream[header..end].to_vec(),
        entry[..end_of_entry].to_owned(),
    ))
}

/// What our object writes for the helpers of this bus.
fn ours(bus: &Bus) -> Result<Vec<u8>> {
    let object = DbusVmstate::new(Place::bus(&bus.address())?);
    let machine = vmstate_spike::Machine::new(vmstate_spike::Config {
        program: Some(vmstate_spike::Program::parse(
            vmstate_spike::guests::COUNTER,
        )?),
        ..vmstate_spike::Config::default()
    })?;
    let machine = Arc::new(machine);
    let vmm = machine.vmm(false, true)?;
    let migrator = vmstate_io::live::Migrator::new(vmm, Default::default(), |_| {})?;
    migrator.change_registry(|registry: &mut Registry| {
        registry.register_device(object.device(None))
    })??;
    let file = bus.dir().join("ours");
    migrator.migrate(format!("file:{}", file.display()).parse()?)?;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while migrator.is_running() {
        if std::time::Instant::now() > end {
            return Err("the migration does not end".into());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let info = migrator.info();
    if let Some(error) = info.error_desc {
        return Err(error.into());
    }
    Ok(fs::read(file)?)
}

/// The same helper under both objects: the same bytes, padding included, for sizes at which the padding changes.
#[test]
fn the_section_is_qemus_to_the_last_byte() -> Result<()> {
    for generation in [Generation::V7_2, Generation::V11_1] {
        let Some(program) = find(generation, "x86_64") else {
            continue;
        };
        for size in [1, 3, 4, 51, 52, 5000, (1 << 20) - 13, 1 << 20] {
            let Some(bus) = Bus::start()? else {
                return Ok(());
            };
            let state: Vec<u8> = (0..=250).cycle().take(size).collect();
            // 13 bytes beside the state.
            let place = Place::bus(&bus.address())?;
            let _served = Served::on_bus(&place, Fixed("a", state.clone()))?;
            let mut machine = with_object(&program, &bus, "a", &[])?;
            let theirs = fs::read(machine.migrate_to_file("stream")?)?;
            let (bytes, entry) = section(&theirs)?;
            let (our_bytes, our_entry) = section(&ours(&bus)?)?;
            assert!(bytes == our_bytes, "{generation}, {size} bytes of state");
            // The trailer of 7.2 has no name of the description.
            let named = |entry: &str| entry.replace(r#""vmsd_name": "dbus-vmstate", "#, "");
            assert_eq!(named(&entry), named(&our_entry), "{generation}");
        }
    }
    Ok(())
}

/// No helper, and two: whatever their order, the blob is of the same size and holds the same.
#[test]
fn blobs_of_none_and_of_two() -> Result<()> {
    let Some(program) = find(Generation::V11_1, "x86_64") else {
        return Ok(());
    };
    let states = [("alpha", &b"abc"[..]), ("mid", b"xy")];
    for count in [0, 2] {
        let Some(bus) = Bus::start()? else {
            return Ok(());
        };
        let place = Place::bus(&bus.address())?;
        let mut served = Vec::new();
        for (id, state) in &states[..count] {
            served.push(Served::on_bus(&place, Fixed(id, state.to_vec()))?);
        }
        let object = format!("dbus-vmstate,id=dv0,addr={}", bus.address());
        let mut machine = COUNTING_PC.launch(&program, &["-object", &object])?;
        machine.wait_for_change(COUNTING_PC.pulse)?;
        let (bytes, _) = section(&fs::read(machine.migrate_to_file("stream")?)?)?;
        let body = &bytes[1 + 25 + 8..];
        let mut blob = Vec::new();
        let pairs: Vec<_> = states[..count]
            .iter()
            .map(|(id, s)| (id.as_bytes(), *s))
            .collect();
        put_blob(&mut blob, &pairs)?;
        assert_eq!(body[..4], u32::try_from(blob.len())?.to_be_bytes());
        let sorted = |blob: &[u8]| -> Result<_> {
            let mut elements = decode_blob(blob, 2)?;
            elements.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(elements)
        };
        assert_eq!(sorted(&body[4..])?, sorted(&blob)?);
    }
    Ok(())
}

/// Helpers run by one user, the machine by another: under the policy of the documentation, both objects find all helpers, those
/// that wait for the name included.
#[test]
fn helpers_of_another_user() -> Result<()> {
    const NOBODY: u32 = 65534;
    let users = Users {
        helper: NOBODY.to_string(),
        ..Users::own()?
    };
    if users.machine != "0" {
        eprintln!("skipped: only root starts processes of another user");
        return Ok(());
    }
    let Some(program) = find(Generation::V11_1, "x86_64") else {
        return Ok(());
    };
    let Some(bus) = Bus::start_for(&users)? else {
        return Ok(());
    };
    let mut stores = Vec::new();
    for id in ["kv1", "kv2"] {
        let mut store = Store::run_by(&bus, id, NOBODY)?;
        assert_eq!(store.line(&format!("set id {id}"))?, "ok");
        stores.push(store);
    }
    let mut machine = with_object(&program, &bus, "kv1,,kv2", &[])?;
    let theirs = fs::read(machine.migrate_to_file("stream")?)?;
    for stream in [theirs, ours(&bus)?] {
        let (bytes, _) = section(&stream)?;
        let mut elements = decode_blob(&bytes[1 + 25 + 8 + 4..], 2)?;
        elements.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(
            (&elements[0].id[..], &elements[1].id[..]),
            (&b"kv1"[..], &b"kv2"[..])
        );
        assert!(elements[0].state.ends_with(b"kv1"), "{elements:?}");
    }
    // The machine's user may not be a helper.
    let place = Place::bus(&bus.address())?;
    let refused = Served::on_bus(&place, Fixed("intruder", vec![1]));
    assert!(refused.is_err_and(|error| error.to_string().contains("AccessDenied")));
    Ok(())
}
