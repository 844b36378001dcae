//! The recorded streams, for tests.

use std::path::{Path, PathBuf};

use crate::json::Json;

/// A recorded main channel with its sidecar.
pub(crate) struct Recorded {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) sidecar: Json<'static>,
}

impl Recorded {
    /// The text of the trailer, found by its first keys and checked by its length.
    pub(crate) fn trailer(&self) -> Option<&[u8]> {
        [&b"{\"configuration\": "[..], b"{\"page_size\": "]
            .into_iter()
            .find_map(|first| {
                let at = memchr::memmem::rfind(&self.bytes, first)?;
                let text = &self.bytes[at..];
                let length = u32::try_from(text.len()).ok()?.to_be_bytes();
                (self.bytes[at - 4..at] == length && self.bytes[at - 5] == 6).then_some(text)
            })
    }

    pub(crate) fn has_capability(&self, name: &str) -> bool {
        let capabilities = self.sidecar.get("capabilities").and_then(Json::as_array);
        capabilities
            .unwrap()
            .iter()
            .any(|one| one.as_str() == Some(name))
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams")
}

/// One decompressed file of the recordings.
pub(crate) fn file(name: &str) -> Vec<u8> {
    let packed = std::fs::read(directory().join(name)).unwrap();
    zstd::decode_all(packed.as_slice()).unwrap()
}

/// The main channels of all recordings.
pub(crate) fn mains() -> impl Iterator<Item = Recorded> {
    let mut names: Vec<String> = std::fs::read_dir(directory())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            Some(name.strip_suffix(".main.bin.zst")?.to_owned())
        })
        .collect();
    names.sort();
    assert!(names.len() >= 16);
    names.into_iter().map(|name| main(&name))
}

/// One main channel.
pub(crate) fn main(name: &str) -> Recorded {
    let sidecar = std::fs::read(directory().join(format!("{name}.json"))).unwrap();
    Recorded {
        bytes: file(&format!("{name}.main.bin.zst")),
        sidecar: Json::parse(without_fractions(&sidecar).leak()).unwrap(),
        name: name.to_owned(),
    }
}

/// Drops the fractions of numbers, which sidecars have where nobody looks.
fn without_fractions(text: &[u8]) -> Vec<u8> {
    let mut quoted = false;
    let mut fraction = false;
    let mut out = text.to_vec();
    out.retain(|byte| {
        quoted ^= *byte == b'"';
        fraction = !quoted && (*byte == b'.' || fraction && byte.is_ascii_digit());
        !fraction
    });
    out
}
