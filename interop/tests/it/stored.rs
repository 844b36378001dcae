//! A guest that waits in a file between the built-in machine and stock QEMU: `file:` and `exec:`, as the source writes them while the
//! guest runs.

use serde_json::json;
use vmstate_interop::{Generation, Result, find};
use vmstate_spike::guests;

use crate::host::{Host, Shape};

const SHAPE: Shape = Shape {
    guest: guests::COUNTER,
    harts: 4,
    ram: 16 << 20,
};

/// How a file is written and read.
#[derive(Debug, Clone, Copy)]
struct Way {
    save: &'static str,
    load: &'static str,
}

/// FILE stands for the file's name.
const WAYS: [Way; 4] = [
    Way {
        save: "file:FILE",
        load: "file:FILE",
    },
    Way {
        save: "exec:cat > FILE",
        load: "exec:cat FILE",
    },
    Way {
        save: "file:FILE,offset=0x1000",
        load: "file:FILE,offset=0x1000",
    },
    Way {
        save: "exec:cat > FILE",
        load: "file:FILE",
    },
];

/// Every way there and back again.
#[test]
fn there_and_back() -> Result<()> {
    let Some(program) = find(Generation::V11_1, "riscv64") else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("stream").display().to_string();
    let mut here = Host::started(&SHAPE, Some(&program))?;
    let mut last = 0;
    for way in WAYS.into_iter().flat_map(|way| [way, way]) {
        here.goes_on()?;
        here.run("migrate", json!({ "uri": way.save.replace("FILE", &file) }))?;
        let sent = here.outcome()?;
        assert_eq!(sent["status"], "completed", "{way:?}: {sent}");
        assert_eq!(here.status()?, "postmigrate");
        let qemu = here.is_ours().then_some(&program);
        let mut there = Host::waiting(&SHAPE, qemu, true)?;
        there.listen(&way.load.replace("FILE", &file))?;
        let received = there.outcome()?;
        assert_eq!(received["status"], "completed", "{way:?}: {received}");
        assert_eq!(there.status()?, "running");
        there.goes_on()?;
        let reached = there.check()?;
        assert!(reached > last, "{reached} after {last}");
        last = reached;
        there.run("cont", json!({}))?;
        here = there;
        std::fs::remove_file(&file)?;
    }
    Ok(())
}
