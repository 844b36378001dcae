//! Without a bus: each helper at a socket of its own.

use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vmstate_dbus::{DbusVmstate, Place, Served};

use crate::support::{Good, PATIENCE, load, save};

fn serve(dir: &Path, helper: &Arc<Good>) -> Served {
    let listener = UnixListener::bind(dir.join(&helper.id)).unwrap();
    Served::on_listener(listener, helper.clone()).unwrap()
}

fn place(dir: &Path, names: &[&str]) -> Place {
    let address = |name: &&str| format!("unix:path={}", dir.join(name).display());
    let addresses: Vec<_> = names.iter().map(address).collect();
    Place::peers(&addresses.join(";")).unwrap()
}

#[test]
fn states_travel_without_a_bus() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Good::new("a", b"first"), Good::new("b", &vec![9; 1 << 20]));
    let _served = (serve(dir.path(), &a), serve(dir.path(), &b));
    let object = DbusVmstate::with_deadline(place(dir.path(), &["b", "a"]), PATIENCE);
    object.set_id_list(Some("a,b".parse().unwrap()));
    let stream = save(&[&object]).unwrap();
    *a.state.lock().unwrap() = vec![];
    *b.state.lock().unwrap() = vec![];
    load(&[&object], &stream).unwrap();
    assert_eq!(a.state(), b"first");
    assert_eq!(b.state(), vec![9; 1 << 20]);
    let saved = object.saved().unwrap().saved;
    assert_eq!(saved, [("a".to_owned(), 5), ("b".to_owned(), 1 << 20)]);
}

#[test]
fn peers_that_do_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let good = Good::new("good", b"1");
    let _served = serve(dir.path(), &good);
    let short = Duration::from_millis(300);
    let fails = |names: &[&str]| {
        let object = DbusVmstate::with_deadline(place(dir.path(), names), short);
        save(&[&object]).unwrap_err().to_string()
    };
    let error = fails(&["good", "nobody"]);
    let why = format!(
        "helper unix:path={}: connecting: ",
        dir.path().join("nobody").display()
    );
    assert!(error.contains(&why), "{error}");
    // One that listens and says nothing.
    let _silent = UnixListener::bind(dir.path().join("silent")).unwrap();
    let error = fails(&["good", "silent"]);
    assert!(
        error.contains("connecting: no answer within 300 ms"),
        "{error}"
    );
    // One that says something else.
    let babbler = UnixListener::bind(dir.path().join("babbler")).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = babbler.accept().unwrap();
        let _ = stream.write_all(b"220 mail.example.org ready\r\n");
    });
    let error = fails(&["babbler"]);
    assert!(error.contains("/babbler: connecting: "), "{error}");
    thread.join().unwrap();
    // The same helper at two addresses.
    std::fs::hard_link(dir.path().join("good"), dir.path().join("again")).unwrap();
    let error = fails(&["good", "again"]);
    assert!(error.contains("both have the id 'good'"), "{error}");
}

/// Callers that say nothing keep nobody out.
#[test]
fn a_listener_serves_beside_idle_callers() {
    let dir = tempfile::tempdir().unwrap();
    let good = Good::new("good", b"1");
    let served = serve(dir.path(), &good);
    let idle: Vec<_> = (0..5)
        .map(|_| UnixStream::connect(dir.path().join("good")).unwrap())
        .collect();
    let object = DbusVmstate::with_deadline(place(dir.path(), &["good"]), PATIENCE);
    assert_eq!(object.rehearse().unwrap().present, ["good"]);
    drop(idle);
    drop(served);
    assert!(object.rehearse().is_err());
}

#[test]
fn one_caller_on_a_pair_of_sockets() {
    let (here, there) = UnixStream::pair().unwrap();
    let caller = std::thread::spawn(move || {
        zbus::block_on(async {
            let builder = zbus::connection::Builder::unix_stream(here);
            let connection = builder.p2p().build().await.unwrap();
            let reply = connection
                .call_method(
                    None::<&str>,
                    "/org/qemu/VMState1",
                    Some("org.qemu.VMState1"),
                    "Save",
                    &(),
                )
                .await
                .unwrap();
            let body = reply.body();
            assert_eq!(*body.signature(), "ay");
            body.deserialize::<&[u8]>().unwrap().to_vec()
        })
    });
    let served = Served::on_stream(there, Good::new("pair", b"state")).unwrap();
    assert_eq!(caller.join().unwrap(), b"state");
    // The caller has gone.
    served.wait();
}
