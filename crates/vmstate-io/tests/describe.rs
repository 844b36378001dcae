//! Sections without a trailer, read with a `-dump-vmstate` file: the same values as through the trailer of a like machine.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use vmstate_io::SliceInput;
use vmstate_io::inspect::{Content, Options, Section, analyze};
use vmstate_wire::dump::Dump;

fn vectors() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors")
}

fn sections(stream: &str, describe: Option<Arc<Dump>>) -> Vec<Section> {
    let path = vectors().join("streams").join(stream);
    let bytes = zstd::decode_all(&*fs::read(path).unwrap()).unwrap();
    let options = Options {
        describe,
        ..Options::default()
    };
    let analysis = analyze(&mut SliceInput::new(&bytes), &mut [], &options);
    assert!(analysis.failure.is_none(), "{:?}", analysis.failure);
    analysis.report.sections
}

#[test]
fn a_postcopy_stream_is_read_with_a_dump() {
    let text = fs::read(vectors().join("dumps/11.1-x86_64-pc-i440fx-11.1.json.zst")).unwrap();
    let dump = Dump::parse(&zstd::decode_all(&*text).unwrap()).unwrap();
    let described = sections("pc-11.1-postcopy.main.bin.zst", Some(Arc::new(dump)));
    let plain = sections("pc-11.1-postcopy.main.bin.zst", None);
    let mut read = Vec::new();
    let mut opaque = Vec::new();
    for (described, plain) in described.iter().zip(&plain) {
        assert_eq!(described.idstr, plain.idstr);
        assert_eq!(described.length, plain.length);
        match (&described.content, &plain.content) {
            (Content::Dumped(state), Content::Opaque(bytes)) => {
                assert!(described.inferred);
                let mut again = Vec::new();
                vmstate_wire::codec::encode(&**state, &mut again).unwrap();
                assert_eq!(again, *bytes, "{}", described.idstr);
                read.push(described.idstr.as_str());
            }
            (Content::Opaque(_), Content::Opaque(_)) => opaque.push(described.idstr.as_str()),
            (Content::Ram, Content::Ram) => {}
            other => panic!("{}: {other:?}", described.idstr),
        }
    }
    // What no device class describes stays opaque.
    for name in ["timer", "globalstate", "mc146818rtc", "i8254", "i8259"] {
        assert!(
            read.contains(&name),
            "{name}: read {read:?}, opaque {opaque:?}"
        );
    }
    assert!(read.len() >= 20, "read {read:?}, opaque {opaque:?}");
}
