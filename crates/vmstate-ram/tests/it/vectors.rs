//! Finding recorded streams and their sidecars.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use vmstate_ram::{PageStore, RamImage};

/// A recorded stream.
pub(crate) struct Vector {
    folder: PathBuf,
    pub(crate) name: String,
    pub(crate) sidecar: Value,
}

impl Vector {
    /// A small one that comes with this crate.
    pub(crate) fn own(name: &str) -> Self {
        Self::load(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data"),
            name,
        )
    }

    /// One of the workspace's.
    pub(crate) fn shared(name: &str) -> Self {
        Self::load(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams"),
            name,
        )
    }

    /// All of the workspace's that are not `except`ed.
    pub(crate) fn all_shared(except: &[&str]) -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams");
        let mut names: Vec<String> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .filter_map(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_str()?
                    .strip_suffix(".main.bin.zst")
                    .map(str::to_owned)
            })
            .filter(|name| !except.contains(&name.as_str()))
            .collect();
        names.sort();
        names.iter().map(|name| Self::load(&folder, name)).collect()
    }

    fn load(folder: &Path, name: &str) -> Self {
        let path = folder.join(format!("{name}.json"));
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            sidecar: serde_json::from_slice(&text).unwrap(),
        }
    }

    /// The bytes of one channel, checked against the sidecar.
    pub(crate) fn channel(&self, channel: &str) -> Vec<u8> {
        let file = &self.sidecar["files"][channel];
        let path = self.folder.join(file["file"].as_str().unwrap());
        let packed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let bytes = zstd::decode_all(&packed[..]).unwrap();
        assert_eq!(
            hex(&Sha256::digest(&bytes)),
            file["sha256"],
            "{}",
            path.display()
        );
        bytes
    }

    /// Compares the memory with that of the machine that sent the stream.
    pub(crate) fn check_memory<S: PageStore<Error = vmstate_ram::RamError>>(
        &self,
        image: &mut RamImage<S>,
    ) {
        let expected = self.sidecar["ram_blocks"].as_array().unwrap();
        assert!(!expected.is_empty());
        let blocks = image.blocks().clone();
        assert_eq!(blocks.len(), expected.len(), "{}", self.name);
        for block in expected {
            let name = block["name"].as_str().unwrap();
            let id = blocks
                .find(name.as_bytes())
                .unwrap_or_else(|| panic!("{}: no block {name}", self.name));
            assert_eq!(
                blocks.get(id).unwrap().used_length,
                block["used_length"].as_u64().unwrap()
            );
            assert_eq!(
                hex(&image.digest(id).unwrap()),
                block["sha256"],
                "{}: {name}",
                self.name
            );
            assert_eq!(
                Some(image.nonzero_pages(id).unwrap()),
                block["nonzero_4k_pages"].as_u64()
            );
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
