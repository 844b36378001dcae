//! The probe, as a destination hears it.

use vmstate_engine::probe::{ALLOWED, FENCE, PROBE};
use vmstate_engine::{Bql, Incoming, LoadStep, Outgoing, Settings};
use vmstate_wire::stream::{Command, ReturnMessage, write};

use crate::support::{Bytes, Recorder, Toy, identity};

/// The values of PONGs that a destination sends, and whether it took an upgrade, or why not.
fn heard(allows: bool, commands: &[Command]) -> (Vec<u32>, Result<bool, String>) {
    let toy = Toy::new(None);
    let mut out = Recorder::new(toy.memory.clone());
    let mut source = Outgoing::new(Settings::default(), identity(), false);
    source.begin(&mut out).unwrap();
    let mut bytes = out.bytes;
    for command in commands {
        write::put_command(&mut bytes, command).unwrap();
    }
    let mut input = Bytes::new(toy.memory.clone(), &bytes, 3);
    let mut registry = toy.registry.lock().unwrap();
    let bql = Bql::holding(());
    let mut stream = Incoming::new(Settings::default(), identity());
    if allows {
        stream = stream.with_upgrade();
    }
    stream.begin(&mut input).unwrap();
    stream.setup(&bql, &mut registry).unwrap();
    let mut pongs = Vec::new();
    let end = loop {
        match stream.next(&mut input) {
            Ok(LoadStep::Send(ReturnMessage::Pong(value))) => pongs.push(value),
            Ok(LoadStep::Upgrade) => {
                assert_eq!(input.position, bytes.len(), "not a byte too many");
                break Ok(true);
            }
            Ok(LoadStep::OpenReturnPath) => {}
            Ok(step) => panic!("{step:?}"),
            // The channel ends here, if nothing else is wrong.
            Err(_) if input.position == bytes.len() => break Ok(false),
            Err(error) => break Err(error.to_string()),
        }
    };
    (pongs, end)
}

const ASKED: [Command; 3] = [
    Command::OpenReturnPath,
    Command::Ping(PROBE),
    Command::Ping(FENCE),
];

fn with(more: &[Command]) -> Vec<Command> {
    ASKED.iter().chain(more).cloned().collect()
}

#[test]
fn who_allows_it_says_so_between_the_answers() {
    assert_eq!(
        heard(true, &ASKED),
        (vec![PROBE, ALLOWED, FENCE], Ok(false))
    );
    assert_eq!(heard(false, &ASKED), (vec![PROBE, FENCE], Ok(false)));
    // Once.
    let twice = with(&[Command::Ping(PROBE)]);
    assert_eq!(heard(true, &twice).0, [PROBE, ALLOWED, FENCE, PROBE]);
    // QEMU's own questions, and one that cannot be answered.
    let others = [
        Command::OpenReturnPath,
        Command::Ping(1),
        Command::Ping(0x42),
    ];
    assert_eq!(heard(true, &others), (vec![1, 0x42], Ok(false)));
    let one_way = [Command::Ping(PROBE)];
    assert_eq!(heard(true, &one_way), (vec![PROBE], Ok(false)));
}

#[test]
fn an_upgrade_is_taken_after_permission_only() {
    let upgrade = with(&[Command::Upgrade]);
    assert_eq!(
        heard(true, &upgrade),
        (vec![PROBE, ALLOWED, FENCE], Ok(true))
    );
    let more = with(&[Command::Upgrade, Command::Ping(1)]);
    for (allows, commands) in [
        (false, &more[..]),
        (
            true,
            &[Command::OpenReturnPath, Command::Upgrade, Command::Ping(1)],
        ),
        (true, &[Command::Upgrade, Command::Ping(1)]),
    ] {
        let (_, end) = heard(allows, commands);
        let text = end.unwrap_err();
        assert!(
            text.starts_with("command UPGRADE is not expected here"),
            "{text}"
        );
    }
}
