//! `vmstate verify`.

use crate::support::{
    Streams, channels, find_payload, json, recorded, run, sidecars, status, stderr, stdout,
};

#[test]
fn recorded_streams_are_accounted_for() {
    for (name, _) in sidecars() {
        let streams = Streams::new();
        let mut arguments = vec!["verify".to_owned()];
        let main = streams.recorded(&format!("{name}.main.bin"));
        arguments.push(main.to_str().unwrap().to_owned());
        for channel in channels(&name) {
            arguments.push(streams.recorded(&channel).to_str().unwrap().to_owned());
        }
        let output = run(&arguments);
        assert_eq!(
            status(&output),
            0,
            "{name}: {}{}",
            stdout(&output),
            stderr(&output)
        );
        assert!(stdout(&output).contains("OK: every byte is accounted for"));
        arguments.push("--format=json".to_owned());
        let answer = json(&run(&arguments));
        assert_eq!(answer["ok"], true);
        let accounts = &answer["accounts"];
        let sum: u64 = ["described", "ram", "opaque", "trailer", "framing"]
            .iter()
            .map(|k| accounts[k].as_u64().unwrap())
            .sum();
        assert_eq!(answer["length"], sum);
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let streams = Streams::new();
    let mut bytes = recorded("pc-11.1-smp4.main.bin");
    // Version of the section, which the trailer has too.
    let at = find_payload(&bytes, "i8254", 0) - 1;
    bytes[at] = 7;
    let path = streams.file("version", &bytes);
    let output = run(["verify", path.to_str().unwrap()]);
    assert_eq!(status(&output), 1);
    let text = stdout(&output);
    assert!(
        text.contains("i8254") && text.contains("version 7"),
        "{text}"
    );
    assert!(text.contains("NOT OK: 1 problem"), "{text}");

    // A bool that is neither 0 nor 1, and a marker that is none, are found where they stand.
    let mut bytes = recorded("spike-11.1.main.bin");
    bytes.truncate(bytes.len() - 10);
    let path = streams.file("cut", &bytes);
    let output = run(["verify", "--format", "json", path.to_str().unwrap()]);
    assert_eq!(status(&output), 1);
    let answer = json(&output);
    assert_eq!(answer["ok"], false);
    assert!(answer["error"].as_str().unwrap().contains("stream ends"));
}
