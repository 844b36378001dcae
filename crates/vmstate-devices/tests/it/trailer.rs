//! The text of a plain description is kept after its first walk: it must stay the same, in each generation's form.

use vmstate_derive::VmState;
use vmstate_wire::vmdesc::{Vmdesc, VmdescDialect};

#[derive(Debug, Default, VmState)]
#[vmstate(name = "channel", version = 1)]
struct Channel {
    count: u16,
    mode: u8,
}

#[derive(Debug, Default, VmState)]
#[vmstate(name = "timer", version = 1)]
struct Timer {
    channels: [Channel; 3],
    lines: [u8; 4],
    last: Channel,
}

#[test]
fn it_is_the_same_each_time() {
    for dialect in VmdescDialect::ALL {
        let mut texts = Vec::new();
        for mode in 0..3 {
            let timer = Timer {
                last: Channel { count: 1, mode },
                ..Timer::default()
            };
            let (mut vmdesc, mut bytes) = (Vmdesc::new(dialect, 4096), Vec::new());
            vmdesc.device("timer", 0, &timer, &mut bytes).unwrap();
            assert_eq!(bytes.last(), Some(&mode));
            texts.push(vmdesc.finish());
        }
        let channel = r#""struct": {"vmsd_name": "channel", "version": 1, "fields": [{"name": "count", "type": "uint16", "size": 2}, {"name": "mode", "type": "uint8", "size": 1}]}, "size": 3}"#;
        let expected = format!(
            r#"{{"page_size": 4096, "devices": [{{"name": "timer", "instance_id": 0, "vmsd_name": "timer", "version": 1, "fields": [{{"name": "channels", "array_len": 3, "type": "struct", {channel}, {{"name": "lines", "array_len": 4, "type": "uint8", "size": 1}}, {{"name": "last", "type": "struct", {channel}]}}]}}"#
        );
        for text in texts {
            assert_eq!(text, expected);
        }
    }
}
