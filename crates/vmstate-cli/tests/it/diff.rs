//! `vmstate diff`.

use serde_json::json;

use crate::support::{
    Streams, find_header, find_payload, json, recorded, run, status, stderr, stdout,
};

#[test]
fn equal_streams_are_identical() {
    let streams = Streams::new();
    let path = streams.recorded("pc-11.1-smp4.main.bin");
    let path = path.to_str().unwrap();
    for ram in ["none", "summary", "digest"] {
        let output = run(["diff", path, path, "--ram", ram]);
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        assert!(
            stdout(&output).starts_with("identical: 41 sections"),
            "{}",
            stdout(&output)
        );
    }
    let output = run(["diff", path, path, "--format", "json"]);
    let answer = json(&output);
    assert_eq!(answer["identical"], true);
    assert_eq!(answer["differences"], json!([]));
}

#[test]
fn each_differing_field_has_a_line() {
    let streams = Streams::new();
    let bytes = recorded("pc-11.1-smp4.main.bin");
    let a = streams.file("a", &bytes);
    let mut other = bytes.clone();
    let apic = find_payload(&bytes, "apic", 0);
    other[apic + 3] ^= 0xff;
    let cpu = find_payload(&bytes, "cpu", 2);
    other[cpu + 8 * 5 + 7] ^= 1;
    let state = find_payload(&bytes, "globalstate", 0);
    other[state + 4] = b'R';
    let b = streams.file("b", &other);
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let output = run(["diff", a, b]);
    assert_eq!(status(&output), 1);
    let lines: Vec<_> = stdout(&output).lines().collect();
    let id = u32::from_be_bytes(bytes[apic..apic + 4].try_into().unwrap());
    let changed = id ^ 0xff;
    assert_eq!(
        lines[0],
        format!("apic/0: apicbase: {id:#010x} ({id}) -> {changed:#010x} ({changed})")
    );
    assert!(
        lines[1].starts_with("cpu/2: env.regs[5]: 0x"),
        "{}",
        lines[1]
    );
    assert_eq!(
        lines[2],
        "globalstate/0: runstate: 1 of 32 differing, from byte 0x0: \
         72 75 6e 6e 69 6e 67 00 … -> 52 75 6e 6e 69 6e 67 00 …"
    );
    assert!(lines[3].starts_with("3 differences:"), "{}", lines[3]);
    assert_eq!(lines.len(), 4);

    let output = run(["diff", "--format", "json", a, b]);
    assert_eq!(status(&output), 1);
    let answer = json(&output);
    assert_eq!(answer["identical"], false);
    assert_eq!(
        answer["differences"][0],
        json!({
            "kind": "field", "idstr": "apic", "instance_id": 0, "path": "apicbase",
            "a": id, "b": changed,
        })
    );
}

#[test]
fn blocks_are_compared_by_their_content() {
    let streams = Streams::new();
    let bytes = recorded("pc-11.1-smp4.main.bin");
    let a = streams.file("a", &bytes);
    // Inside of a page: the longest run of bytes that are not zero is code or pattern, never a record's header.
    let mut other = bytes.clone();
    let at = bytes.len() / 2;
    other[at] ^= 0x10;
    let b = streams.file("b", &other);
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let output = run(["diff", a, b]);
    assert_eq!(status(&output), 1, "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("RAM block pc.ram: content differs: sha256 "),
        "{text}"
    );
    assert!(text.contains("1 difference:"), "{text}");
    for ram in ["none", "summary"] {
        assert_eq!(status(&run(["diff", a, b, "--ram", ram])), 0);
    }
}

#[test]
fn sections_of_one_stream_only_and_their_order() {
    let streams = Streams::new();
    let one = streams.recorded("spike-11.1.main.bin");
    let four = streams.recorded("spike-11.1-smp4.main.bin");
    let (one, four) = (one.to_str().unwrap(), four.to_str().unwrap());
    let output = run(["diff", one, four, "--ram", "none"]);
    assert_eq!(status(&output), 1);
    let text = stdout(&output);
    assert!(text.contains("section cpu/3: only in B"), "{text}");
    let text = run(["diff", four, one, "--ram", "none"]);
    assert!(stdout(&text).contains("section cpu/3: only in A"));

    // Two neighbours change places.
    let bytes = recorded("pc-11.1-smp4.main.bin");
    let first = find_header(&bytes, "apic", 1);
    let second = find_header(&bytes, "apic", 2);
    let third = find_header(&bytes, "apic", 3);
    let mut swapped = bytes.clone();
    swapped[first..first + third - second].copy_from_slice(&bytes[second..third]);
    swapped[first + third - second..third].copy_from_slice(&bytes[first..second]);
    let a = streams.file("a", &bytes);
    let b = streams.file("b", &swapped);
    let output = run(["diff", a.to_str().unwrap(), b.to_str().unwrap()]);
    assert_eq!(status(&output), 1, "{}", stderr(&output));
    assert!(
        stdout(&output).contains("section order: apic/1 stands before apic/2 in A"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn channels_belong_to_their_stream() {
    let streams = Streams::new();
    let path = |name: &str| streams.recorded(name).to_str().unwrap().to_owned();
    let main = path("pc-11.1-multifd2.main.bin");
    let zero = path("pc-11.1-multifd2.multifd0.bin");
    let one = path("pc-11.1-multifd2.multifd1.bin");
    let output = run([
        "diff",
        &main,
        &main,
        "--channels-a",
        &zero,
        &one,
        "--channels-b",
        &zero,
        &one,
    ]);
    assert_eq!(status(&output), 0, "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("6 RAM blocks with their contents"));
    let output = run(["diff", &main, &main]);
    assert_eq!(status(&output), 0);
    assert!(stderr(&output).contains("channels"), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("without their contents"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_stream_that_cannot_be_read_is_not_identical() {
    let streams = Streams::new();
    let bytes = recorded("spike-11.1.main.bin");
    let cut = streams.file("cut", &bytes[..bytes.len() / 2]);
    let cut = cut.to_str().unwrap();
    let output = run(["diff", cut, cut]);
    assert_eq!(status(&output), 1);
    assert!(!stdout(&output).contains("identical"));
    assert!(stderr(&output).contains("stream ends"));
    let output = run(["diff", "--format", "json", cut, cut]);
    assert_eq!(json(&output)["identical"], false);
    assert!(json(&output)["errors"]["a"].is_string());
}
