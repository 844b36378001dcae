//! Device sections of recorded streams: decoded through the trailer, encoded again, trailer included.

use std::fs;
use std::path::{Path, PathBuf};

use vmstate_desc::Limits;
use vmstate_wire::vmdesc::{Trailer, Vmdesc};

fn streams() -> Vec<PathBuf> {
    let dir = std::env::var_os("VMSTATE_STREAMS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams"),
        PathBuf::from,
    );
    let mut paths = Vec::new();
    collect(&dir, &mut paths);
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
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

fn header(idstr: &str, instance: u32, version: u32) -> Vec<u8> {
    let mut out = vec![u8::try_from(idstr.len()).unwrap()];
    out.extend(idstr.as_bytes());
    out.extend(instance.to_be_bytes());
    out.extend(version.to_be_bytes());
    out
}

#[test]
fn every_device_decodes_and_encodes_to_the_same_bytes_and_trailer() {
    let mut devices = 0;
    let mut failed = Vec::new();
    for path in streams() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let stream = read(&path);
        let Some(text) = trailer_text(&stream) else {
            continue;
        };
        let trailer = Trailer::parse(text).unwrap();
        let mut vmdesc = Vmdesc::new(
            trailer.dialect(),
            u32::try_from(trailer.page_size().unwrap()).unwrap(),
        );
        let mut from = stream.len() - text.len();
        // Section headers are searched from the end, where the devices are.
        for device in trailer.devices().iter().rev() {
            let version = device.entry().get("version").and_then(|v| v.as_u64());
            let Some(version) = version else { continue };
            let wanted = header(
                device.idstr(),
                device.instance_id(),
                u32::try_from(version).unwrap(),
            );
            let Some(at) = stream[..from]
                .windows(wanted.len())
                .rposition(|w| w == wanted)
            else {
                failed.push(format!("{name}: {} not found", device.idstr()));
                continue;
            };
            from = at;
            let id: [u8; 4] = stream[at - 4..at].try_into().unwrap();
            let payload = at + wanted.len();
            let body = &stream[payload..];
            let ends_here =
                |rest: &[u8]| rest.first() == Some(&0x7e) && rest.get(1..5) == Some(&id);
            match device.decode(body, payload as u64, false, Limits::default(), &ends_here) {
                Err(e) => failed.push(format!("{name}: {e}")),
                Ok(decoded) => {
                    devices += 1;
                    let mut again = Vec::new();
                    let mut one = Vmdesc::new(trailer.dialect(), 4096);
                    one.device(
                        device.idstr(),
                        device.instance_id(),
                        &decoded.state,
                        &mut again,
                    )
                    .unwrap();
                    if again != body[..decoded.used] {
                        failed.push(format!("{name}: {}: bytes differ", device.idstr()));
                    }
                    let text = one.finish();
                    let entry = device.entry().to_text();
                    if !text.contains(&entry) {
                        let expected = format!("{{\"page_size\": 4096, \"devices\": [{entry}]}}");
                        let i = text
                            .bytes()
                            .zip(expected.bytes())
                            .position(|(a, b)| a != b)
                            .unwrap_or(0);
                        let cut =
                            |s: &str| s[i.saturating_sub(80)..(i + 80).min(s.len())].to_owned();
                        failed.push(format!(
                            "{name}: {}: trailer differs\n  ours {}\n  QEMU {}",
                            device.idstr(),
                            cut(&text),
                            cut(&expected)
                        ));
                    }
                }
            }
        }
        let _ = &mut vmdesc;
    }
    assert!(
        failed.is_empty(),
        "{} devices fine\n{}",
        devices,
        failed.join("\n")
    );
    assert!(devices > 100, "{devices} devices only");
}
