//! `vmstate helpers`, and the objects of `vmstate machine`.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use vmstate_dbus::{Helper, HelperError, Place, Served};
use vmstate_interop::{Bus, unit_command};
use vmstate_io::qmp::{QmpAddress, QmpClient};

use crate::host::{Kind, connect};
use crate::late::{pair_with, proven};
use crate::proxy::recorder;
use crate::support::{json, run, status, stderr, stdout, vmstate};
use crate::tapes::{begin, in_postcopy, inspected, kept};

struct Notes(&'static str, Mutex<Vec<u8>>);

impl Helper for Notes {
    fn id(&self) -> String {
        self.0.to_owned()
    }

    fn save(&self) -> Result<Vec<u8>, HelperError> {
        Ok(self.1.lock().unwrap().clone())
    }

    fn load(&self, state: &[u8]) -> Result<(), HelperError> {
        if state == b"bad" {
            return Err(HelperError::new("nonsense"));
        }
        *self.1.lock().unwrap() = state.to_vec();
        Ok(())
    }
}

/// Helpers without a bus, in `dir`. Returns their addresses.
fn peers(dir: &std::path::Path, helpers: &[&Arc<Notes>]) -> (Vec<Served>, String) {
    let mut addresses = Vec::new();
    let mut served = Vec::new();
    for (number, helper) in helpers.iter().enumerate() {
        let path = dir.join(format!("helper{number}"));
        addresses.push(format!("unix:path={}", path.display()));
        let listener = UnixListener::bind(path).unwrap();
        served.push(Served::on_listener(listener, Arc::clone(helper)).unwrap());
    }
    (served, addresses.join(";"))
}

#[test]
fn states_go_to_files_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let net = Arc::new(Notes("org.example/net", Mutex::new(b"a table".to_vec())));
    let tpm = Arc::new(Notes("tpm0", Mutex::new(vec![7; 1000])));
    let (_served, addresses) = peers(dir.path(), &[&net, &tpm]);
    let files = dir.path().join("states");
    let files = files.to_str().unwrap();

    let output = run(["helpers", "--peers", &addresses]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert_eq!(lines[0], "ID                  BYTES  OWNER");
    assert!(
        lines[1].starts_with("org.example/net         7  unix:path="),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with("tpm0                 1000  unix:path="),
        "{lines:?}"
    );

    let saved = [
        "helpers", "--peers", &addresses, "--save", files, "--format", "json",
    ];
    let output = run(saved);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let first = &json(&output)["helpers"][0];
    assert_eq!(
        (&first["id"], &first["size"]),
        (&json!("org.example/net"), &json!(7))
    );
    assert_eq!(first["error"], json!(null));
    let file = dir.path().join("states/org.example%2fnet.state");
    assert_eq!(std::fs::read(&file).unwrap(), b"a table");
    // What is there is not written over.
    assert_eq!(status(&run(saved)), 2);

    *tpm.1.lock().unwrap() = vec![];
    std::fs::write(&file, b"another").unwrap();
    let output = run(["helpers", "--peers", &addresses, "--load", files]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output), "org.example/net: loaded\ntpm0: loaded\n");
    assert_eq!(*net.1.lock().unwrap(), b"another");
    assert_eq!(*tpm.1.lock().unwrap(), vec![7; 1000]);

    std::fs::write(&file, b"bad").unwrap();
    let output = run(["helpers", "--peers", &addresses, "--load", files]);
    assert_eq!(status(&output), 1);
    let why = "Load: org.freedesktop.DBus.Error.Failed: nonsense";
    assert!(stderr(&output).contains(why), "{}", stderr(&output));
    for wrong in [
        &[
            "helpers",
            "--peers",
            &addresses,
            "--load",
            "/no/such/directory",
        ][..],
        &["helpers", "--peers", "unix:path=/no/such/socket"],
        &["helpers", "--addr", "nowhere"],
        &[
            "helpers",
            "--addr",
            "unix:path=/a",
            "--peers",
            "unix:path=/b",
        ],
        &["machine", "--object", "dbus-vmstate,id=a"],
        &[
            "machine",
            "--object",
            "dbus-vmstate,id=a,addr=unix:path=/no/such/bus",
        ],
        &["machine", "--object", "rng-random,id=a"],
    ] {
        let output = run(wrong);
        assert_eq!(status(&output), 2, "{wrong:?}: {}", stderr(&output));
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{wrong:?}"
        );
    }
}

#[test]
fn twins_on_a_bus_are_seen() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let output = run(["helpers", "--addr", &bus.address()]);
    let nobody = "nobody exports org.qemu.VMState1 here\n";
    assert_eq!((status(&output), stdout(&output)), (0, nobody));
    let place = Place::bus(&bus.address()).unwrap();
    let notes = || Notes("kv0", Mutex::new(b"1".to_vec()));
    let _one = Served::on_bus(&place, notes()).unwrap();
    let _other = Served::on_bus(&place, notes()).unwrap();
    let output = run(["helpers", "--addr", &bus.address(), "--format", "json"]);
    assert_eq!(status(&output), 1);
    let answer = json(&output);
    for helper in answer["helpers"].as_array().unwrap() {
        assert_eq!(helper["error"], "another helper has the same id");
        assert!(helper["owner"].as_str().unwrap().starts_with(":1."));
    }
}

/// The machine of the documentation, started by the command of its unit.
#[test]
fn a_machine_with_an_object() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let place = Place::bus(&bus.address()).unwrap();
    let notes = Notes("kv0", Mutex::new(b"1".to_vec()));
    let _served = Served::on_bus(&place, notes).unwrap();
    let dir = bus.dir().display().to_string();
    let words = unit_command("vm-machine@.service", &[("/run/vm/%i", &dir)]).unwrap();
    assert_eq!(words[0], "/usr/bin/vmstate");
    let mut command = vmstate();
    command.args(&words[1..]).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut monitor = connect(&QmpAddress::Unix(bus.dir().join("qmp")));
    let end = Instant::now() + Duration::from_secs(60);
    let list = json!({"path": "/objects/dv0", "property": "id-list"});
    assert_eq!(monitor.run("qom-get", list).unwrap(), "kv0");
    let file = bus.dir().join("stream");
    let uri = format!("file:{}", file.display());
    monitor.run("migrate", json!({ "uri": uri })).unwrap();
    let info = loop {
        let info = monitor.run("query-migrate", json!({})).unwrap();
        if info["status"] == "completed" {
            break info;
        }
        assert!(info["status"] != "failed" && Instant::now() < end, "{info}");
        std::thread::sleep(Duration::from_millis(5));
    };
    let helpers = &info["x-dbus-vmstate"][0]["helpers"];
    assert_eq!(*helpers, json!([{"id": "kv0", "size": 1}]));
    // Its answer may come too late.
    let _ = monitor.run("quit", json!({}));
    assert!(child.wait().unwrap().success());
    let output = run(["verify", file.to_str().unwrap()]);
    assert_eq!(status(&output), 0, "{}", stdout(&output));
}

/// Helpers without a bus, for the machine that saves and for those that load: over BER each has an entry of its own. QEMU's
/// stream, made of that, has the blob.
#[test]
fn over_ber_each_helper_has_an_entry() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let net = Arc::new(Notes("net", Mutex::new(b"a table".to_vec())));
    let tpm = Arc::new(Notes("tpm", Mutex::new(vec![7; 300])));
    let (_served, addresses) = peers(dir.path(), &[&net, &tpm]);
    let object = format!("dbus-vmstate,id=dv0,x-peers={addresses}");
    let start = |name: &str, incoming: Option<&str>| {
        let monitor = path(name);
        let mut command = vmstate();
        command.args(["machine", "--quiet", "--ram", "16M", "--object", &object]);
        command.args(["--peer", "auto", "--qmp", &monitor]);
        command.args(incoming.iter().flat_map(|uri| ["--incoming", *uri]));
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        (child, connect(&QmpAddress::Unix(monitor.into())))
    };
    let wait = |monitor: &mut QmpClient| {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let info = monitor.run("query-migrate", json!({})).unwrap();
            if info["status"] == "completed" {
                return;
            }
            assert!(info["status"] != "failed" && Instant::now() < end, "{info}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let (ber, qemu) = (path("ber"), path("qemu"));
    let (mut source, mut monitor) = start("source", None);
    let peer = json!({ "x-peer": "vmstate" });
    monitor.run("migrate-set-parameters", peer).unwrap();
    let uri = format!("file:{ber}");
    monitor.run("migrate", json!({ "uri": uri })).unwrap();
    wait(&mut monitor);
    source.kill().unwrap();
    source.wait().unwrap();
    let bytes = std::fs::read(&ber).unwrap();
    let has = |text: &[u8]| bytes.windows(text.len()).any(|piece| piece == text);
    assert!(has(b"dbus-vmstate/helpers") && has(b"a table"));
    let output = run(["convert", &ber, &qemu, "--to", "qemu", "--quiet"]);
    assert_eq!((status(&output), stderr(&output)), (0, ""));
    assert_eq!(status(&run(["verify", &qemu])), 0);
    for (number, file) in [&ber, &qemu].into_iter().enumerate() {
        *net.1.lock().unwrap() = Vec::new();
        *tpm.1.lock().unwrap() = Vec::new();
        let uri = format!("file:{file}");
        let (mut child, mut monitor) = start(&format!("there{number}"), Some(&uri));
        wait(&mut monitor);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(*net.1.lock().unwrap(), b"a table");
        assert_eq!(*tpm.1.lock().unwrap(), vec![7; 300]);
    }
}

/// Live, in postcopy: the helpers' states stand in the package, and are where the guest goes on when it does.
#[test]
fn over_ber_helpers_go_along_in_postcopy() {
    let [here, there] = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let ids = ["net", "tpm"];
    let notes = |id, state: &[u8]| Arc::new(Notes(id, Mutex::new(state.to_vec())));
    let saved = [notes(ids[0], b"a table"), notes(ids[1], &[7; 300])];
    let loaded = ids.map(|id| notes(id, b""));
    let (_saved, from) = peers(here.path(), &saved.each_ref());
    let (_loaded, to) = peers(there.path(), &loaded.each_ref());
    let [from, to] = [from, to].map(|peers| format!("dbus-vmstate,id=dv0,x-peers={peers}"));
    let more: [&[&str]; 2] = [&["--object", &from], &["--object", &to]];
    let (mut source, mut destination) = pair_with(Kind::Ber, 0, more);
    let at = in_postcopy(&mut source, &mut destination, &["postcopy-ram"]);
    let (tapes, _) = recorder(&at, &destination.path("there"), 1);
    begin(&mut source, &at);
    for host in [&mut source, &mut destination] {
        host.wait_for("completed");
    }
    assert_eq!(*loaded[0].1.lock().unwrap(), b"a table");
    assert_eq!(*loaded[1].1.lock().unwrap(), [7; 300]);
    let tape = tapes[0].there();
    let main = inspected(&kept(&source, "main", &tape));
    let commands = main["commands"].as_array().unwrap();
    let place =
        |name: &str| commands.iter().find(|one| one["name"] == name).unwrap()["offset"].clone();
    let helpers = main["sections"].as_array().unwrap().iter();
    let mut helpers = helpers.filter(|one| one["idstr"].as_str().unwrap().contains("dbus-vmstate"));
    let offset = helpers.next().unwrap()["offset"].as_u64();
    assert!(helpers.next().is_none());
    assert!(offset > place("PACKAGED").as_u64() && offset < place("POSTCOPY_RUN").as_u64());
    let has = |text: &[u8]| tape.windows(text.len()).any(|piece| piece == text);
    assert!(has(b"dbus-vmstate/helpers") && has(b"a table"));
    proven(source, destination, &["postcopy"]);
}

#[test]
fn states_in_files_are_private_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let net = Arc::new(Notes("net0", Mutex::new(b"a table".to_vec())));
    let (_served, addresses) = peers(dir.path(), &[&net]);
    let files = dir.path().join("states");
    let directory = files.to_str().unwrap();
    let output = run(["helpers", "--peers", &addresses, "--save", directory]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let saved = files.join("net0.state");
    let mode = std::fs::metadata(&saved).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // What has no end, and what nobody writes to.
    std::fs::remove_file(&saved).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &saved).unwrap();
    let is_refused = |why: &str| {
        let output = run(["helpers", "--peers", &addresses, "--load", directory]);
        assert_eq!(status(&output), 2);
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
    };
    is_refused("no regular file");
    std::fs::remove_file(&saved).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&saved).status();
    assert!(made.unwrap().success());
    is_refused("no regular file");
    std::fs::remove_file(&saved).unwrap();
    std::fs::write(&saved, vec![0; (1 << 20) + 1]).unwrap();
    is_refused("more than 1048576 bytes");
}

#[test]
fn a_bus_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("net0.state"), b"x").unwrap();
    let nowhere = "unix:path=/no/such/bus";
    let directory = dir.path().to_str().unwrap();
    for more in [&[][..], &["--load", directory]] {
        let output = run([&["helpers", "--addr", nowhere], more].concat());
        assert_eq!(status(&output), 2, "{}", stderr(&output));
        let mut command = vmstate();
        command.arg("helpers").args(more);
        command.env("DBUS_SESSION_BUS_ADDRESS", nowhere);
        let output = command.output().unwrap();
        assert_eq!(status(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains("--addr"), "{}", stderr(&output));
    }
}
