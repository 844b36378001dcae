//! Whole streams: every section of a known device loads into its type and comes out as it was, trailer included.
//!
//! `VMSTATE_STREAMS` names another directory than `vectors/streams`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vmstate_desc::{Limits, VmState};
use vmstate_devices::nvme::Nvme;
use vmstate_devices::pci::PciDevice;
use vmstate_devices::pic::Pic;
use vmstate_devices::pit::Pit;
use vmstate_devices::pl011::Pl011;
use vmstate_devices::rtc::Rtc;
use vmstate_devices::serial::{IsaSerial, MemorySerial};
use vmstate_devices::virtio::{VirtioMmio, VirtioPci, VirtioRng};
use vmstate_wire::codec::decode;
use vmstate_wire::vmdesc::{Trailer, VmdescDialect};

use crate::common::describe;

fn streams() -> Vec<PathBuf> {
    let dir = std::env::var_os("VMSTATE_STREAMS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams"),
        PathBuf::from,
    );
    let mut paths = Vec::new();
    collect(&dir, &mut paths);
    paths.sort();
    paths
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(&path, paths);
        } else if name.ends_with(".main.bin.zst") || name.ends_with(".main.bin") {
            paths.push(path);
        }
    }
}

fn read(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    if path.extension().is_some_and(|e| e == "zst") {
        zstd::decode_all(&*bytes).unwrap()
    } else {
        bytes
    }
}

/// The text behind `06` and its length, which reaches to the end.
fn trailer_text(stream: &[u8]) -> Option<&[u8]> {
    let from = stream.len().saturating_sub(4 << 20);
    let last_control = from + stream[from..].iter().rposition(|b| *b < 0x20)?;
    (last_control.saturating_sub(4)..=last_control)
        .rev()
        .find_map(|at| {
            let head = stream.get(at..at + 5)?;
            let len = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
            (head[0] == 6 && at + 5 + len == stream.len()).then(|| &stream[at + 5..])
        })
}

struct Section<'a> {
    idstr: &'a str,
    instance_id: u32,
    version_id: u32,
    /// From the payload on.
    bytes: &'a [u8],
    id: [u8; 4],
    entry: String,
    dialect: VmdescDialect,
}

impl Section<'_> {
    /// Loads into `state` up to the section's end, and saves again.
    fn round_trip<T: VmState>(&self, mut state: T) -> Result<(), String> {
        let used = decode(&mut state, self.version_id, self.bytes, Limits::default())
            .map_err(|e| e.to_string())?;
        // Behind it comes the footer; in streams without footers the next section, or the end.
        let footer = [0x7e, self.id[0], self.id[1], self.id[2], self.id[3]];
        let rest = &self.bytes[used..];
        if !rest.starts_with(&footer) && !matches!(rest, [4, 0, 0, ..] | [0, 6, ..]) {
            return Err(format!("no section ends behind {used} bytes"));
        }
        let (payload, entry) = describe(&state, self.dialect, self.idstr, self.instance_id);
        if payload != self.bytes[..used] {
            return Err("other bytes".into());
        }
        if entry != self.entry {
            return Err(format!("another entry: {entry}, not {}", self.entry));
        }
        Ok(())
    }

    fn virtio_rng(&self) -> Result<(), String> {
        if self.idstr.starts_with("virtio-mmio") {
            return self.round_trip(VirtioRng::<VirtioMmio>::default());
        }
        // The configuration stands behind the version, and says itself what is in it.
        let mut pci = PciDevice::conventional();
        pci.config
            .bytes_mut()
            .copy_from_slice(&self.bytes[4..][..256]);
        let vectors = pci.config.msix_vectors();
        let over = |pci| VirtioRng::over(VirtioPci::new(pci, vectors));
        self.round_trip(over(PciDevice::conventional()))
            .or_else(|_| self.round_trip(over(PciDevice::express())))
    }

    /// Not running as in all of these streams: the counter stands.
    fn hpet(&self) -> Result<(), String> {
        // The number's field has another name since 10.0.
        let entry = self.entry.replace("\"num_timers\"", "\"num_timers_save\"");
        let section = Section { entry, ..*self };
        section.round_trip(crate::hpet::hpet(3).0.state())
    }

    fn nvme(&self) -> Result<(), String> {
        let slots = self
            .entry
            .matches("\"sq\", \"type\": \"ptr-marker\"")
            .count();
        let slots = u32::try_from(slots).unwrap();
        let at = self.entry.find("\"msix state\", \"size\": ").unwrap() + 22;
        let size = self.entry[at..].split('}').next().unwrap();
        let size: u16 = size.parse().unwrap();
        // 16 bytes and a bit per vector.
        self.round_trip(Nvme::new(slots - 1, size * 8 / 129))
    }

    fn check(&self, name: &str) -> Option<Result<(), String>> {
        Some(match name {
            "serial" if self.entry.contains("\"name\": \"state\"") => {
                self.round_trip(IsaSerial::default())
            }
            "serial" => self.round_trip(MemorySerial::default()),
            "mc146818rtc" => self.round_trip(Rtc::default()),
            "i8254" => self.round_trip(Pit::default()),
            "i8259" => self.round_trip(Pic::default()),
            "hpet" => self.hpet(),
            "pl011" => self.round_trip(Pl011 {
                has_read_buffer: self.entry.contains("\"readbuff\""),
                ..Pl011::default()
            }),
            // Channel I/O is not among the transports.
            "virtio-rng" if !self.idstr.starts_with("/fe.") => self.virtio_rng(),
            "nvme" => self.nvme(),
            _ => return None,
        })
    }
}

#[test]
fn every_section_of_a_known_device() {
    let mut seen = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut read_streams = 0;
    for path in streams() {
        let stream = read(&path);
        let Some(text) = trailer_text(&stream) else {
            continue;
        };
        read_streams += 1;
        let trailer = Trailer::parse(text).unwrap();
        let mut end = stream.len() - text.len();
        for device in trailer.devices().iter().rev() {
            let (Some(name), Some(version_id)) = (
                device
                    .entry()
                    .get("vmsd_name")
                    .and_then(vmstate_wire::json::Json::as_str),
                device
                    .entry()
                    .get("version")
                    .and_then(vmstate_wire::json::Json::as_u64),
            ) else {
                continue;
            };
            let idstr = device.idstr();
            let version_id = u32::try_from(version_id).unwrap();
            if !idstr.ends_with(name) {
                continue;
            }
            let known = [
                "serial",
                "mc146818rtc",
                "i8254",
                "i8259",
                "hpet",
                "pl011",
                "virtio-rng",
                "nvme",
            ];
            if !known.contains(&name) {
                continue;
            }
            let mut header = vec![u8::try_from(idstr.len()).unwrap()];
            header.extend(idstr.as_bytes());
            header.extend(device.instance_id().to_be_bytes());
            header.extend(version_id.to_be_bytes());
            let from = end.saturating_sub(64 << 20);
            let Some(at) = stream[from..end]
                .windows(header.len())
                .rposition(|window| window == header)
            else {
                wrong.push(format!("{}: no section {idstr}", path.display()));
                continue;
            };
            let at = from + at;
            end = at;
            let section = Section {
                idstr,
                instance_id: device.instance_id(),
                version_id,
                bytes: &stream[at + header.len()..],
                id: stream[at - 4..at].try_into().unwrap(),
                entry: device.entry().to_text(),
                dialect: trailer.dialect(),
            };
            match section.check(name) {
                Some(Ok(())) => *seen.entry(name.to_owned()).or_insert(0) += 1,
                Some(Err(e)) => wrong.push(format!("{}: {idstr}: {e}", path.display())),
                None => {}
            }
        }
    }
    println!("{read_streams} streams: {seen:?}");
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
    for name in [
        "serial",
        "mc146818rtc",
        "i8254",
        "i8259",
        "hpet",
        "pl011",
        "virtio-rng",
    ] {
        assert!(seen.contains_key(name), "{name}");
    }
}
