//! Our monitor answers what it refuses as QEMU 11.1 does, word for word.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Map, Value};
use vmstate_interop::{Generation, Machine, Result};
use vmstate_qmp::address::MigrationAddress;
use vmstate_qmp::migration::{CapabilityStatus, MigrationInfo, MigrationStatus, StatusInfo};
use vmstate_qmp::{
    Dialogue, Incoming, QmpError, QmpMachine, Version, VersionTriple, machine_commands,
};

use crate::board::{COUNTING_PC, MONITOR};

type Done = std::result::Result<(), QmpError>;

/// A machine that is never asked to do anything: what is compared is refused before.
struct Nothing;

impl Nothing {
    fn no(what: &str) -> Done {
        Err(QmpError::generic(format_args!("reached: {what}")))
    }
}

impl QmpMachine for Nothing {
    fn version(&self) -> Version {
        Version {
            qemu: VersionTriple {
                major: 11,
                minor: 1,
                micro: 0,
            },
            package: String::new(),
        }
    }

    fn status(&self) -> StatusInfo {
        StatusInfo {
            status: "running".to_owned(),
            running: true,
        }
    }

    fn stop(&self) -> Done {
        Self::no("stop")
    }

    fn cont(&self) -> Done {
        Self::no("cont")
    }

    fn quit(&self) -> Done {
        Self::no("quit")
    }

    fn migrate(&self, _: MigrationAddress, _: bool) -> Done {
        Self::no("migrate")
    }

    fn migrate_incoming(&self, _: MigrationAddress, _: bool) -> Done {
        Self::no("migrate-incoming")
    }

    fn migrate_cancel(&self) -> Done {
        Self::no("migrate_cancel")
    }

    fn migrate_continue(&self, _: MigrationStatus) -> Done {
        Self::no("migrate-continue")
    }

    fn migration_info(&self) -> MigrationInfo {
        MigrationInfo::default()
    }

    fn capabilities(&self) -> Vec<CapabilityStatus> {
        Vec::new()
    }

    fn set_capabilities(&self, _: &[CapabilityStatus]) -> Done {
        Self::no("migrate-set-capabilities")
    }

    fn parameters(&self) -> Map<String, Value> {
        Map::new()
    }

    fn set_parameters(&self, _: &Map<String, Value>) -> Done {
        Self::no("migrate-set-parameters")
    }
}

/// Sent behind each line: the answer to it is the last.
const MARK: &[u8] = b"\n{\"execute\":\"x-mark\",\"id\":\"mark\"}\n";

fn is_mark(answer: &Value) -> bool {
    answer.get("id").is_some_and(|id| id == "mark")
}

/// What ours answers to each line.
fn ours(lines: &[&[u8]]) -> Vec<Vec<Value>> {
    let mut dialogue = Dialogue::new(Nothing.version()).with_out_of_band();
    let table = machine_commands::<Nothing>();
    let mut answers = Vec::new();
    for line in lines {
        let text = [line, MARK].concat();
        let mut bytes = text.as_slice();
        let mut found = Vec::new();
        while let Some(incoming) = dialogue.receive(&mut bytes) {
            let line = match incoming {
                Incoming::Reply(line) => line,
                Incoming::Command(request) => Dialogue::answer(&table.run(&Nothing, request)),
                Incoming::OutOfBand(request) => {
                    Dialogue::answer(&table.run_out_of_band(&Nothing, request))
                }
            };
            found.push(serde_json::from_slice(&line).unwrap_or_default());
        }
        assert!(found.pop().is_some_and(|last| is_mark(&last)));
        answers.push(found);
    }
    answers
}

/// What QEMU answers.
fn theirs(machine: &Machine, lines: &[&[u8]]) -> Result<Vec<Vec<Value>>> {
    let mut socket = UnixStream::connect(machine.dir().join("drive"))?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut next = || -> Result<Value> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err("QEMU has closed its monitor".into());
        }
        Ok(serde_json::from_str(&line)?)
    };
    let greeting = next()?;
    assert!(greeting.get("QMP").is_some(), "{greeting}");
    let mut answers = Vec::new();
    for line in lines {
        socket.write_all(&[line, MARK].concat())?;
        let mut found = Vec::new();
        loop {
            let answer = next()?;
            if is_mark(&answer) {
                break;
            }
            found.push(answer);
        }
        answers.push(found);
    }
    Ok(answers)
}

/// The column of an error is taken out of its text: QEMU counts a byte that ends a number or a word twice.
fn without_columns(answers: &mut [Value]) {
    for answer in answers {
        let Some(Value::String(desc)) = answer.pointer_mut("/error/desc") else {
            continue;
        };
        if let Some((place, text)) = desc.split_once(": JSON") {
            let line = place.split(':').next().unwrap_or_default();
            *desc = format!("{line}: JSON{text}");
        }
    }
}

const LINES: &[&[u8]] = &[
    br#"{"execute":"query-status"}"#,
    br#"{"execute":"qmp_capabilities","arguments":{"enable":"foo"}}"#,
    br#"{"execute":"qmp_capabilities","arguments":{"enabl":[]}}"#,
    br#"{"execute":"qmp_capabilities","id":{"a":[1]}}"#,
    br#"{"execute":"qmp_capabilities","id":7}"#,
    br#"{'execute':'query-status'}"#,
    br#"{"execute":"query-status","id":null}{"execute":"query-status","id":2}"#,
    br#"{"execute":"query-status","id":"\ud83d\ude00 \/ \b\f\n\r\t\\\" 'x'"}"#,
    br#"{"execute":"query-status","id":[-1,1.5,true,{"a":{}},18446744073709551615,-0]}"#,
    br#"{"execute":"query-status","arguments":{"a":1}}"#,
    br#"{"execute":"query-status","arguments":[]}"#,
    br#"{"execute":"query-status","arguments":null}"#,
    br#"{"execute":1}"#,
    br#"{"exec-oob":"query-status","id":3}"#,
    br#"{"execute":"a","control":1}"#,
    br#"{"execute":"nope","id":"x"}"#,
    br#"{"execute":""}"#,
    br#"{"id":4}"#,
    b"{}",
    b"[]",
    b"1",
    b"\"abc\"",
    b"null",
    b"tru",
    b"tru fals",
    br#"{"execute":"query-status",}"#,
    br#"{"execute" "query-status"}"#,
    b"{1:2}",
    b"{,}",
    br#"{"a"}"#,
    br#"{"a":}"#,
    br#"{"a":1,"a":[1,{"b":2}]}"#,
    br#"{"a":{"b":1,"b":2}}"#,
    b"[1 2]",
    b"[1,]",
    br#"{"a":1 "b":2}"#,
    b"]",
    b":",
    br#"{"a":1]"#,
    br#"{"a":[1,2}]}"#,
    br#"{"a":"\ud800"}"#,
    br#"{"a":"\ufffe"}"#,
    br#"{"a":"\u12"}"#,
    br#"{"a":"\q"}"#,
    b"\"\xc3\"",
    b"\"\xed\xa0\x80\"",
    b"\xff",
    b"\xff{\"execute\":\"query-status\",\"id\":5}",
    b"\x01",
    b"\"abc",
    b"{\"a\":01}",
    b"{\"a\":-}",
    b"{\"a\":+1}",
    b"{\"a\":%d}",
    b"{\"a\":\"b\tc\"}",
    b"\xff,,:",
    br#"{"execute":"migrate"}"#,
    br#"{"execute":"migrate","arguments":{"uri":1}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"tcp"}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"tcp:"}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"tcp:a:"}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"tcp:[::1:1"}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"tcp:a:1,foo=1"}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"tcp:a:1,to=x"}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"tcp:a:1,ipv4=x"}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"unix:"}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"fd:"}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"vsock:1"}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"file:/x,offset=12q"}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"unix:/x","resume":1}}"#,
    br#"{"execute":"migrate","arguments":{"uri":"unix:/x","detach":true}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main"}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"foo","addr":{}}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main","addr":{}}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main","addr":1}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main","addr":{"transport":"bar"}}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main","addr":{"transport":"socket"}}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main","addr":{"transport":"socket","type":"unix"}}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main","addr":{"transport":"socket","type":"unix","path":"/a","x":1}}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main","addr":{"transport":"file","filename":"/a"}}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main","addr":{"transport":"file","filename":"/a","offset":"1"}}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main","addr":{"transport":"exec","args":["/bin/sh","-c",1]}}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main","addr":{"transport":"socket","type":"inet","host":"a","port":"1","to":65536}}]}}"#,
    br#"{"execute":"migrate","arguments":{"channels":[{"channel-type":"main","addr":{"transport":"socket","type":"inet","host":"a","port":1}}]}}"#,
    br#"{"execute":"migrate-incoming","arguments":{"uri":1}}"#,
    br#"{"execute":"migrate-incoming","arguments":{"uri":"unix:/x","exit-on-error":1}}"#,
    br#"{"execute":"migrate-continue"}"#,
    br#"{"execute":"migrate-continue","arguments":{"state":"foo"}}"#,
    br#"{"execute":"migrate-set-capabilities","arguments":{"capabilities":{}}}"#,
    br#"{"execute":"migrate-set-capabilities","arguments":{"capabilities":[1]}}"#,
    br#"{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"foo","state":true}]}}"#,
    br#"{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"xbzrle"}]}}"#,
    br#"{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"xbzrle","state":1}]}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"foo":1}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":"1"}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":1.5}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":18446744073709551616}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"cpu-throttle-initial":256}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"cpu-throttle-initial":"1"}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"x-checkpoint-delay":4294967296}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"tls-creds":1}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"direct-io":1}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"mode":"foo"}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"multifd-compression":"foo"}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"zero-page-detection":1}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"block-bitmap-mapping":[{"node-name":"a"}]}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"block-bitmap-mapping":[{"node-name":"a","alias":"b","bitmaps":[{"name":"c","alias":"d","transform":{"x":1}}]}]}}"#,
    br#"{"execute":"migrate-set-parameters","arguments":{"cpr-exec-command":[1]}}"#,
];

/// The same, with a client that lets commands overtake others.
const LINES_OUT_OF_BAND: &[&[u8]] = &[
    br#"{"exec-oob":"qmp_capabilities"}"#,
    br#"{"exec-oob":"migrate-pause"}"#,
    br#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#,
    br#"{"exec-oob":"migrate-pause"}"#,
    br#"{"exec-oob":"migrate-pause","id":[1]}"#,
    br#"{"execute":"migrate-pause","id":2}"#,
    br#"{"exec-oob":"migrate-recover"}"#,
    br#"{"exec-oob":"migrate-recover","arguments":{"uri":1}}"#,
    br#"{"exec-oob":"migrate-recover","arguments":{"uri":"unix:/nowhere/x"}}"#,
    br#"{"exec-oob":"query-status"}"#,
    br#"{"exec-oob":"query-commands"}"#,
    br#"{"exec-oob":"qmp_capabilities"}"#,
    br#"{"exec-oob":"nope"}"#,
    br#"{"exec-oob":1}"#,
    br#"{"exec-oob":null,"id":1}"#,
    br#"{"execute":"query-status","exec-oob":"query-status"}"#,
    br#"{"exec-oob":"query-status","execute":"query-status"}"#,
];

#[test]
fn refusals_are_qemus_11_1() -> Result<()> {
    same(LINES)
}

#[test]
fn refusals_out_of_band_are_qemus_11_1() -> Result<()> {
    same(LINES_OUT_OF_BAND)
}

fn same(lines: &[&[u8]]) -> Result<()> {
    let Some(program) = COUNTING_PC.find(Generation::V11_1) else {
        return Ok(());
    };
    let machine = COUNTING_PC.launch(&program, MONITOR)?;
    let theirs = theirs(&machine, lines)?;
    let ours = ours(lines);
    let mut different = Vec::new();
    for ((line, mut theirs), mut ours) in lines.iter().zip(theirs).zip(ours) {
        without_columns(&mut theirs);
        without_columns(&mut ours);
        if theirs != ours {
            let line = String::from_utf8_lossy(line);
            different.push(format!("{line}\n  QEMU {theirs:?}\n  ours {ours:?}"));
        }
    }
    assert!(different.is_empty(), "\n{}", different.join("\n"));
    Ok(())
}
