//! Postcopy on hosts that give a process less than all of userfaultfd.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::host::{Host, Kind};
use crate::late::{DIRTIER, proven};

/// Becomes `nobody`, where it may, and starts what it is told: `filtered` without the system call `userfaultfd` and the device's way
/// to the same, as containers are by default.
const LAUNCHER: &str = r#"
import ctypes, os, platform, struct, sys
if sys.argv[1] == "filtered":
    call, ioctl = {"x86_64": (323, 16), "aarch64": (282, 29), "riscv64": (282, 29)}[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | 1
    program = [
        (load, 0, 0, 0),        # number of the call
        (equal, 4, 0, call),
        (equal, 0, 2, ioctl),
        (load, 0, 0, 24),       # second argument
        (equal, 1, 0, 0xAA00),  # USERFAULTFD_IOC_NEW
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    assert libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero) == 0
    assert libc.prctl(22, ctypes.c_ulong(2), head, zero, zero) == 0, ctypes.get_errno()
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.execv(sys.argv[2], sys.argv[2:])
"#;

fn python() -> Option<PathBuf> {
    let named = std::env::var_os("VMSTATE_PYTHON");
    let python = named.map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let mut command = Command::new(&python);
    command.args(["-c", ""]).stderr(Stdio::null());
    let found = command.status().is_ok_and(|status| status.success());
    let must = std::env::var_os("VMSTATE_REQUIRE_PYTHON").is_some();
    assert!(found || !must, "python is required");
    found.then_some(python)
}

/// What starts a copy of the command in `dir`, where anybody may do so.
fn launcher(python: &Path, dir: &Path, mode: &str) -> Command {
    let program = dir.join("vmstate");
    fs::copy(env!("CARGO_BIN_EXE_vmstate"), &program).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(python);
    command.args(["-c", LAUNCHER, mode]).arg(program);
    command.stdin(Stdio::null());
    command
}

/// Before a migration begins, and with what to do. A source that insists hears of it before it has sent a page.
#[test]
fn without_userfaultfd_postcopy_is_refused_at_once() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let starter = launcher(&python, dir.path(), "filtered");
    let counter = ["--guest", "counter"];
    let mut destination = Host::start_by(starter, Kind::Ber, Some("defer"), &counter, 2);
    let list = json!([{ "capability": "postcopy-ram", "state": true }]);
    let said = destination.refused("migrate-set-capabilities", json!({ "capabilities": list }));
    for part in [
        "no userfaultfd: Operation not permitted",
        "give this process access to /dev/userfaultfd",
        "vm.unprivileged_userfaultfd",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let mut source = Host::started(Kind::Ber);
    source.enable("postcopy-ram");
    let uri = json!({ "uri": format!("unix:{}", destination.path("there").display()) });
    destination.run("migrate-incoming", uri.clone());
    source.run("migrate", uri);
    source.wait_for("failed");
    let info = source.info().unwrap();
    let error = info["error-desc"].as_str().unwrap();
    for part in ["before any guest page was sent", "N02", "postcopy"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(source.is_running() && !destination.is_running());
    source.goes_on();
}

/// A process that may only serve what it touches itself is served.
#[test]
fn with_the_restricted_kind_postcopy_works() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let starter = launcher(&python, dir.path(), "plain");
    let mut destination = Host::start_by(starter, Kind::Ber, Some("defer"), &DIRTIER, 2);
    let mut source = Host::start_ours(Kind::Ber, None, &DIRTIER);
    while source.check() == 0 {}
    source.set(json!({ "max-bandwidth": 1 << 20, "downtime-limit": 1 }));
    for host in [&mut source, &mut destination] {
        host.enable("postcopy-ram");
    }
    let uri = json!({ "uri": format!("unix:{}", destination.path("there").display()) });
    destination.run("migrate-incoming", uri.clone());
    source.run("migrate", uri);
    source.wait_for("active");
    source.run("migrate-start-postcopy", json!({}));
    for host in [&mut source, &mut destination] {
        host.wait_for("completed");
    }
    proven(source, destination, &["postcopy"]);
}
