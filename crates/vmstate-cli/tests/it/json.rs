//! The JSON of an inspection.

use serde_json::{Value, json};

use crate::support::{
    Streams, channels, find_header, find_payload, inspect, recorded, section, sidecars, status,
    stderr,
};

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Every recorded stream: its sections and RAM are what its sidecar knows.
#[test]
fn recorded_streams_are_what_their_sidecars_say() {
    for (name, sidecar) in sidecars() {
        let streams = Streams::new();
        let file = streams.recorded(&format!("{name}.main.bin"));
        let others: Vec<_> = channels(&name)
            .iter()
            .map(|c| streams.recorded(c).to_str().unwrap().to_owned())
            .collect();
        let mut more: Vec<&str> = others.iter().map(String::as_str).collect();
        more.extend(["--ram", "digest,pages"]);
        let (output, answer) = inspect(&file, &more);
        assert_eq!(status(&output), 0, "{name}: {}", stderr(&output));
        assert_eq!(answer["format"], "vmstate-inspect/1");
        assert_eq!(answer["machine"], sidecar["machine"], "{name}");
        assert_eq!(answer["error"], Value::Null);
        assert_eq!(answer["problems"], json!([]));
        assert_eq!(answer["length"], sidecar["files"]["main"]["length"]);
        assert_eq!(answer["channels"].as_array().unwrap().len(), others.len());
        let sections: Vec<Value> = answer["sections"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| {
                json!([
                    s["section_id"],
                    s["idstr"],
                    s["instance_id"],
                    s["version_id"]
                ])
            })
            .collect();
        assert_eq!(Value::from(sections), sidecar["sections"], "{name}");
        let blocks = answer["ram"]["blocks"].as_array().unwrap();
        let known = sidecar["ram_blocks"].as_array().unwrap();
        assert_eq!(blocks.len(), known.len(), "{name}");
        for known in known {
            let idstr = known.get("name").or(known.get("idstr")).unwrap();
            let block = blocks.iter().find(|b| b["idstr"] == *idstr).unwrap();
            assert_eq!(block["sha256"], known["sha256"], "{name}: {idstr}");
        }
    }
}

#[test]
fn sections_have_all_their_members() {
    let streams = Streams::new();
    let (_, answer) = inspect(&streams.recorded("pc-11.1-smp4.main.bin"), &[]);
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&answer),
        [
            "format",
            "file",
            "protocol",
            "length",
            "machine",
            "page_size",
            "capabilities",
            "uuid",
            "sections",
            "ram",
            "commands",
            "channels",
            "trailer",
            "warnings",
            "problems",
            "error"
        ]
    );
    for section in answer["sections"].as_array().unwrap() {
        assert_eq!(
            keys(section),
            [
                "idstr",
                "instance_id",
                "version_id",
                "section_id",
                "kind",
                "offset",
                "payload_offset",
                "length",
                "parts",
                "inferred",
                "state"
            ]
        );
    }
    let ram = section(&answer, "ram", 0);
    assert_eq!(ram["kind"], "iterative");
    assert_eq!(ram["state"], Value::Null);
    assert!(ram["parts"].as_u64().unwrap() > 1);
    assert_eq!(answer["page_size"], 4096);
    assert_eq!(answer["trailer"]["dialect"], "11.1");
    assert_eq!(answer["commands"][0]["name"], "SWITCHOVER_START");
    assert_eq!(
        keys(&answer["ram"]["blocks"][0]),
        ["idstr", "used_length", "page_size", "ignored"]
    );
}

/// Values against bytes that were found by looking for the section's name, without any parser.
#[test]
fn fields_have_the_values_of_their_bytes() {
    let bytes = recorded("pc-11.1-smp4.main.bin");
    let streams = Streams::new();
    let (_, answer) = inspect(&streams.file("s", &bytes), &[]);

    let at = find_payload(&bytes, "timer", 0);
    let timer = section(&answer, "timer", 0);
    assert_eq!(timer["offset"], find_header(&bytes, "timer", 0));
    assert_eq!(timer["payload_offset"], at);
    assert_eq!(timer["length"], 24);
    assert_eq!(timer["kind"], "full");
    assert_eq!(
        timer["state"],
        json!({
            "cpu_ticks_offset": be64(&bytes, at).cast_signed(),
            "unused": "0000000000000000",
            "cpu_clock_offset": be64(&bytes, at + 16).cast_signed(),
        })
    );

    for instance in 0..4 {
        let at = find_payload(&bytes, "cpu", instance);
        let state = &section(&answer, "cpu", instance.into())["state"];
        let registers: Vec<u64> = (0..16).map(|i| be64(&bytes, at + 8 * i)).collect();
        assert_eq!(state["env.regs"], json!(registers));
        assert_eq!(state["env.eip"], be64(&bytes, at + 128));
        assert_eq!(state["env.eflags"], be64(&bytes, at + 136));
        assert_eq!(state["env.hflags"], be32(&bytes, at + 144));
        let fpu = be32(&bytes, at + 148) >> 16;
        assert_eq!(state["env.fpuc"], fpu);
        // A subsection is a key with its full name.
        assert!(state["cpu/msr_ia32_misc_enable"].is_object());
    }

    let at = find_payload(&bytes, "i8254", 0);
    let state = &section(&answer, "i8254", 0)["state"];
    assert_eq!(state["channels[0].irq_disabled"], be32(&bytes, at));
    assert_eq!(state["channels"].as_array().unwrap().len(), 3);
    assert_eq!(
        state["channels"][0]["count"],
        be32(&bytes, at + 4).cast_signed()
    );
    assert_eq!(
        state["channels"][2]["next_transition_time"],
        be64(&bytes, at + 4 + 3 * 32 - 8).cast_signed()
    );

    let at = find_payload(&bytes, "globalstate", 0);
    let state = &section(&answer, "globalstate", 0)["state"];
    assert_eq!(state["size"], 8);
    assert_eq!(&bytes[at + 4..at + 11], b"running");
    let runstate = state["runstate"].as_str().unwrap();
    assert!(runstate.starts_with("72756e6e696e6700") && runstate.len() == 64);

    let at = find_payload(&bytes, "hpet", 0);
    let timer = &section(&answer, "hpet", 0)["state"]["timer"][0];
    assert_eq!(
        timer["qemu_timer"],
        be64(&bytes, at + 25 + 34).cast_signed()
    );
}

#[test]
fn offsets_lead_to_the_bytes() {
    let bytes = recorded("q35-7.2-virtio.main.bin");
    let streams = Streams::new();
    let (_, answer) = inspect(&streams.file("s", &bytes), &["--offsets"]);
    let mut checked = 0;
    for section in answer["sections"].as_array().unwrap() {
        let Some(fields) = section["fields"].as_array() else {
            continue;
        };
        for field in fields {
            let path = field["path"].as_str().unwrap();
            let (offset, size) = (
                usize::try_from(field["offset"].as_u64().unwrap()).unwrap(),
                usize::try_from(field["size"].as_u64().unwrap()).unwrap(),
            );
            // Only plain members: the paths of others need a parser.
            let value = path
                .split('/')
                .try_fold(&section["state"], |state, step| state.get(step));
            if let (Some(value), 1..=8) = (value.and_then(Value::as_u64), size) {
                let mut wide = [0; 8];
                wide[8 - size..].copy_from_slice(&bytes[offset..offset + size]);
                assert_eq!(
                    value,
                    u64::from_be_bytes(wide),
                    "{} {path}",
                    section["idstr"]
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 200, "{checked}");
}

#[test]
fn without_a_trailer_contents_are_bytes() {
    let bytes = recorded("pc-11.1-postcopy.main.bin");
    let streams = Streams::new();
    let (output, answer) = inspect(&streams.file("s", &bytes), &[]);
    assert_eq!(status(&output), 0);
    assert_eq!(answer["trailer"], Value::Null);
    let cpu = section(&answer, "cpu", 0);
    assert_eq!(cpu["inferred"], true);
    let at = find_payload(&bytes, "cpu", 0);
    let length = usize::try_from(cpu["length"].as_u64().unwrap()).unwrap();
    let hex: String = bytes[at..at + length]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(cpu["state"], hex);
    assert_eq!(bytes[at + length], 0x7e, "the footer follows");
    let names: Vec<_> = answer["commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    for name in [
        "OPEN_RETURN_PATH",
        "PING",
        "POSTCOPY_ADVISE",
        "PACKAGED",
        "POSTCOPY_RUN",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    let discard = answer["commands"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["name"] == "POSTCOPY_RAM_DISCARD")
        .unwrap();
    assert_eq!(discard["block"], "pc.ram");
    assert!(discard["ranges"][0]["length"].as_u64().unwrap() > 0);
}
