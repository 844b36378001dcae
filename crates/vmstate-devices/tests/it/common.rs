//! Recorded sections, and what every device has to do with them.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use vmstate_desc::{Error, ErrorKind, Limits, VmState};
use vmstate_wire::codec;
use vmstate_wire::json::Json;
use vmstate_wire::vmdesc::{Vmdesc, VmdescDialect};

/// A section's payload with its entry in the trailer.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) name: String,
    pub(crate) dialect: VmdescDialect,
    pub(crate) idstr: String,
    pub(crate) instance_id: u32,
    pub(crate) version_id: u32,
    pub(crate) payload: Vec<u8>,
    /// The exact text.
    pub(crate) entry: String,
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/devices")
}

impl Capture {
    pub(crate) fn read(name: &str) -> Self {
        let text = fs::read(dir().join(format!("{name}.json"))).unwrap();
        let json = Json::parse(&text).unwrap();
        let string = |key: &str| json.get(key).and_then(Json::as_str).unwrap().to_owned();
        let number = |key: &str| {
            let value = json.get(key).and_then(Json::as_u64).unwrap();
            u32::try_from(value).unwrap()
        };
        let file = string("file");
        let mut payload = fs::read(dir().join(&file)).unwrap();
        if file.ends_with(".zst") {
            payload = zstd::decode_all(&*payload).unwrap();
        }
        let sha: String = Sha256::digest(&payload)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(sha, string("sha256"), "{name}");
        let release = string("qemu_version");
        Self {
            name: name.to_owned(),
            dialect: match release.split('.').next().unwrap() {
                "7" => VmdescDialect::V7_2,
                "10" => VmdescDialect::V10_0,
                _ => VmdescDialect::V11_1,
            },
            idstr: string("idstr"),
            instance_id: number("instance_id"),
            version_id: number("version_id"),
            payload,
            entry: string("trailer_entry"),
        }
    }

    /// Loads the payload into `state`: exactly all of it.
    pub(crate) fn load<T: VmState>(&self, mut state: T) -> T {
        let used = self.try_load(&mut state, &self.payload).unwrap();
        assert_eq!(used, self.payload.len(), "{}", self.name);
        state
    }

    pub(crate) fn try_load<T: VmState>(
        &self,
        state: &mut T,
        payload: &[u8],
    ) -> Result<usize, Error> {
        codec::decode(state, self.version_id, payload, Limits::default())
    }

    /// The same bytes and the same entry in the trailer come out again.
    pub(crate) fn saves<T: VmState>(&self, state: &T) {
        let mut plain = Vec::new();
        codec::encode(state, &mut plain).unwrap();
        assert_eq!(plain, self.payload, "{}", self.name);
        let (described, entry) = self.describe(state);
        assert_eq!(described, self.payload, "{}", self.name);
        assert_eq!(entry, self.entry, "{}", self.name);
    }

    /// Payload and trailer entry of `state`.
    pub(crate) fn describe<T: VmState>(&self, state: &T) -> (Vec<u8>, String) {
        describe(state, self.dialect, &self.idstr, self.instance_id)
    }

    /// Loads, saves again, and refuses every payload that was cut off. Returns what was loaded.
    pub(crate) fn check<T: VmState + Clone>(&self, fresh: &T) -> T {
        let state = self.load(fresh.clone());
        self.saves(&state);
        self.refuses_cuts(fresh);
        state
    }

    /// Every proper beginning is refused with its place, unless it is a complete state: an optional part may be missing.
    fn refuses_cuts<T: VmState + Clone>(&self, fresh: &T) {
        let step = if self.payload.len() > 4096 { 61 } else { 1 };
        for len in (0..self.payload.len()).step_by(step) {
            let cut = &self.payload[..len];
            match self.try_load(&mut fresh.clone(), cut) {
                Ok(used) => assert!(
                    used < self.payload.len() && self.payload[used] == 5,
                    "{}: {len} bytes are enough",
                    self.name
                ),
                Err(e) => {
                    assert!(!e.path().is_empty(), "{}: {e}", self.name);
                    assert!(e.offset().is_some(), "{}: {e}", self.name);
                    assert!(
                        matches!(e.kind(), ErrorKind::UnexpectedEnd { .. }),
                        "{}: {e}",
                        self.name
                    );
                }
            }
        }
    }
}

/// Payload and trailer entry of `state`.
pub(crate) fn describe<T: VmState>(
    state: &T,
    dialect: VmdescDialect,
    idstr: &str,
    instance_id: u32,
) -> (Vec<u8>, String) {
    let mut payload = Vec::new();
    let mut vmdesc = Vmdesc::new(dialect, 4096);
    vmdesc
        .device(idstr, instance_id, state, &mut payload)
        .unwrap();
    let text = vmdesc.finish();
    let (_, entry) = text.split_once("\"devices\": [").unwrap();
    (payload, entry.strip_suffix("]}").unwrap().to_owned())
}
