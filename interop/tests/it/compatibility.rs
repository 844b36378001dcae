//! What `check` says of two releases is what happens: a stream of one, a dump of the other, and the stream loaded there.

use std::fs;

use vmstate_interop::{Generation, Machine, Program, Ram, Result, find};
use vmstate_io::SliceInput;
use vmstate_io::inspect::{Options, analyze};
use vmstate_io::schema::{of_report, of_text};
use vmstate_schema::compare::{self, Column, Comparison, Finding, compare};
use vmstate_schema::report::Question;
use vmstate_schema::{Rule, Schema, Severity};

use Generation::{V7_2, V10_0, V11_1};

/// A machine type that all releases in question have, and its devices.
struct Shape {
    machine: &'static str,
    devices: &'static str,
}

const PC: Shape = Shape {
    machine: "pc-i440fx-7.2",
    devices: "-device VGA,romfile= -device e1000,romfile= -device rtl8139,romfile= \
        -device piix3-usb-uhci -device usb-tablet -serial null -device i6300esb \
        -device lsi53c895a -device sdhci-pci -device pvpanic",
};

const Q35: Shape = Shape {
    machine: "pc-q35-7.2",
    devices: "-smp 2 -device e1000e,romfile= -device vmxnet3,romfile= -device virtio-scsi-pci -device ich9-usb-ehci1 \
        -device qemu-xhci,id=x -device usb-tablet,bus=x.0 -device pcie-root-port,id=p,chassis=1 \
        -audiodev none,id=a -device AC97,audiodev=a -device bochs-display -device pci-bridge,chassis_nr=3",
};

/// Its state grew at the end of an embedded structure.
const ESP: Shape = Shape {
    machine: "pc-i440fx-7.2",
    devices: "-device am53c974",
};

/// Five of its fields became unused bytes.
const SB16: Shape = Shape {
    machine: "pc-i440fx-7.2",
    devices: "-audiodev none,id=a -device sb16,audiodev=a",
};

/// QEMU 10.0 saves queues of an idle device with a size that 11.1 does not allow.
const VIRTIO: Shape = Shape {
    machine: "pc-i440fx-7.2",
    devices: "-device virtio-net-pci,romfile=",
};

/// With an RPMB partition, QEMU 11.1 saves a second subsection under the name of the first, and loads it as the first.
const EMMC: Shape = Shape {
    machine: "pc-i440fx-7.2",
    devices: "-blockdev null-co,node-name=d,size=33685504,read-zeroes=on -device sdhci-pci \
        -device emmc,drive=d,rpmb-partition-size=131072",
};

const RAM: Ram<'static> = Ram {
    block: "pc.ram",
    size: 16 << 20,
};

impl Shape {
    fn start(&self, program: &Program, more: &[&str]) -> Result<Machine> {
        let machine = format!("{},memory-backend={}", self.machine, RAM.block);
        let arguments: Vec<String> = ["-machine", &machine, "-S"]
            .into_iter()
            .chain(self.devices.split_whitespace())
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect();
        Machine::start(program, RAM, &[], &arguments)
    }

    fn dump(&self, program: &Program) -> Result<Schema> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("dump");
        let status = program
            .run()
            .args(["-machine", self.machine, "-nodefaults", "-display", "none"])
            .arg("-dump-vmstate")
            .arg(&path)
            .output()?
            .status;
        if !status.success() {
            return Err(format!("-dump-vmstate: {status}").into());
        }
        Ok(of_text(&path, &fs::read(&path)?)?)
    }
}

/// What was foretold, and what happened.
struct Outcome {
    comparison: Comparison,
    loaded: Result<()>,
    stream: Vec<u8>,
    /// What the destination saves afterwards, if it loaded.
    again: Option<Vec<u8>>,
}

fn schema(stream: &[u8]) -> Result<Schema> {
    let analysis = analyze(&mut SliceInput::new(stream), &mut [], &Options::default());
    match analysis.failure {
        Some(failure) => Err(failure.into()),
        None => Ok(of_report(&analysis.report)?),
    }
}

fn outcome(shape: &Shape, from: Generation, to: Generation) -> Result<Option<Outcome>> {
    let (Some(from), Some(to)) = (find(from, "x86_64"), find(to, "x86_64")) else {
        return Ok(None);
    };
    let mut source = shape.start(&from, &[])?;
    let path = source.migrate_to_file("stream")?;
    let stream = fs::read(&path)?;
    let options = compare::Options::default();
    let comparison = compare(&schema(&stream)?, &shape.dump(&to)?, &options);
    let mut destination = shape.start(&to, &["-incoming", "defer"])?;
    let loaded = destination.load(&path);
    let again = match &loaded {
        Ok(()) => Some(fs::read(destination.migrate_to_file("again")?)?),
        Err(_) => None,
    };
    Ok(Some(Outcome {
        comparison,
        loaded,
        stream,
        again,
    }))
}

fn breaks(comparison: &Comparison) -> Vec<&Finding> {
    let column = Column::QemuForward;
    let findings = comparison.findings.iter();
    findings
        .filter(|finding| finding.verdicts.of(column) == Severity::Break)
        .collect()
}

/// The verdict is what happens, and both are this.
fn check(shape: &Shape, from: Generation, to: Generation, loads: bool) -> Result<()> {
    let Some(outcome) = outcome(shape, from, to)? else {
        return Ok(());
    };
    let foretold = Question::new("", "").is_compatible(&outcome.comparison);
    let found = breaks(&outcome.comparison);
    assert_eq!(outcome.loaded.is_ok(), loads, "{:?}", outcome.loaded);
    assert_eq!(foretold, loads, "{found:#?}");
    assert!(outcome.comparison.compared >= 8);
    Ok(())
}

macro_rules! pairs {
    ($($name:ident: $shape:ident $from:ident -> $to:ident $outcome:ident;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            check(&$shape, $from, $to, stringify!($outcome) == "loads")
        }
    )*};
}

pairs! {
    pc_7_2_to_10_0: PC V7_2 -> V10_0 loads;
    pc_7_2_to_11_1: PC V7_2 -> V11_1 loads;
    pc_10_0_to_11_1: PC V10_0 -> V11_1 loads;
    pc_11_1_to_7_2: PC V11_1 -> V7_2 loads;
    q35_7_2_to_11_1: Q35 V7_2 -> V11_1 loads;
    q35_10_0_to_7_2: Q35 V10_0 -> V7_2 loads;
    q35_11_1_to_7_2: Q35 V11_1 -> V7_2 loads;
    esp_7_2_to_10_0: ESP V7_2 -> V10_0 fails;
    esp_7_2_to_11_1: ESP V7_2 -> V11_1 fails;
    esp_10_0_to_11_1: ESP V10_0 -> V11_1 loads;
    esp_11_1_to_7_2: ESP V11_1 -> V7_2 fails;
    esp_11_1_to_10_0: ESP V11_1 -> V10_0 fails;
    sb16_7_2_to_11_1: SB16 V7_2 -> V11_1 loads;
    sb16_11_1_to_7_2: SB16 V11_1 -> V7_2 loads;
}

/// QEMU loads this one, since by chance the lengths agree, and takes one field for another. That is no success.
#[test]
fn esp_10_0_to_7_2_is_misread() -> Result<()> {
    let Some(outcome) = outcome(&ESP, V10_0, V7_2)? else {
        return Ok(());
    };
    let found: Vec<_> = breaks(&outcome.comparison)
        .into_iter()
        .map(|finding| (finding.rule, finding.path.as_str()))
        .collect();
    assert_eq!(
        found,
        [(Rule::C04, "esp/data_ready"), (Rule::C04, "esp/drq_state")]
    );
    outcome.loaded?;
    // What was the last byte of the structure has become the one before another.
    let names = |stream: &[u8]| -> Result<Vec<String>> {
        let schema = schema(stream)?;
        let esp = schema.types().iter().find(|ty| ty.name == "esp");
        let fields = esp.map(|ty| ty.fields.iter().map(|f| f.name.clone()));
        Ok(fields.into_iter().flatten().collect())
    };
    let sent = names(&outcome.stream)?;
    let again = outcome.again.ok_or("loaded, but not saved again")?;
    let known = names(&again)?;
    assert_eq!(sent.len(), known.len());
    assert_eq!(sent.last().map(String::as_str), Some("drq_state"));
    assert!(!known.contains(&"drq_state".to_owned()), "{known:?}");
    Ok(())
}

/// What no file says: a hook that refuses a value, in state that a device saves by code of its own.
#[test]
fn virtio_10_0_to_11_1_is_refused_for_a_value() -> Result<()> {
    let Some(outcome) = outcome(&VIRTIO, V10_0, V11_1)? else {
        return Ok(());
    };
    assert!(breaks(&outcome.comparison).is_empty());
    let refusal = outcome.loaded.err().ok_or("loaded")?.to_string();
    assert!(refusal.contains("vring.num"), "{refusal}");
    Ok(())
}

/// Every release loads what it saves itself: no finding breaks.
#[test]
fn releases_agree_with_themselves() -> Result<()> {
    for generation in Generation::ALL {
        for shape in [&PC, &Q35, &ESP, &SB16] {
            let Some(program) = find(generation, "x86_64") else {
                continue;
            };
            let mut machine = shape.start(&program, &[])?;
            let stream = fs::read(machine.migrate_to_file("stream")?)?;
            let dump = shape.dump(&program)?;
            let options = compare::Options::default();
            let comparison = compare(&schema(&stream)?, &dump, &options);
            assert!(breaks(&comparison).is_empty(), "{:#?}", breaks(&comparison));
        }
    }
    Ok(())
}

/// QEMU 11.1 does not load what it has saved itself, and the dump alone tells so.
#[test]
fn emmc_11_1_has_two_subsections_of_one_name() -> Result<()> {
    let Some(outcome) = outcome(&EMMC, V11_1, V11_1)? else {
        return Ok(());
    };
    assert!(outcome.loaded.is_err());
    let found: Vec<_> = breaks(&outcome.comparison)
        .into_iter()
        .map(|finding| (finding.rule, finding.path.as_str()))
        .collect();
    assert_eq!(found, [(Rule::C37, "{sd-card/ext_csd_modes-state}[1]")]);
    Ok(())
}
