//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use vmstate_dbus::{IdList, ObjectOptions, Place};
use vmstate_io::drive::Postcopy;
use vmstate_io::qmp::QmpAddress;

use crate::machine::Shape;

/// Looks into QEMU migration streams, and moves machines.
///
/// Exit status: 0 fine; 1 the answer is no (a difference, a corrupt stream, a guest that did not move); 2 the question could not be
/// asked (usage, a missing file, a monitor that does not answer).
#[derive(Debug, Parser)]
#[command(name = "vmstate", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows what is in a stream: sections, fields, guest RAM
    Inspect(Inspect),
    /// Checks that every byte of a stream is accounted for, and says what is wrong and where
    Verify(Verify),
    /// Compares two streams, field by field and block by block
    Diff(Diff),
    /// Writes a stream in another format, without loss
    Convert(Convert),
    /// Prints the JSON Schema of what is in a stream, a -dump-vmstate file or a schema document
    Schema(Schema),
    /// Tells beforehand whether one side can load what the other writes, and why not
    Check(Check),
    /// Moves a computing guest between two processes, and proves that it arrived unharmed
    Demo(Demo),
    /// Runs the built-in machine: a RISC-V board that exchanges guests with QEMU 11.1's -M spike
    Machine(Machine),
    /// Looks at the helper processes of a machine: who exports org.qemu.VMState1; saves and loads their states, without a machine
    Helpers(Helpers),
    /// Moves the guest of a running machine, QEMU or another with a QMP monitor, and watches it to the end
    Migrate(Migrate),
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) stream: Stream,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Show only sections whose id string matches: * stands for anything, ? for one character
    #[arg(long, value_name = "GLOB")]
    pub(crate) section: Option<String>,
    /// What to tell of each RAM block; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "summary")]
    pub(crate) ram: Vec<RamDetail>,
    /// Show where each field stands in the stream
    #[arg(long)]
    pub(crate) offsets: bool,
    /// Show long arrays and buffers in full (text only, JSON always has them)
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) stream: Stream,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// One stream; - is standard input
    pub(crate) a: PathBuf,
    /// The other stream; - is standard input
    pub(crate) b: PathBuf,
    /// Further channels of the first stream: multifd, postcopy preempt
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) channels_a: Vec<PathBuf>,
    /// Further channels of the second stream
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) channels_b: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
    /// How to compare guest RAM: not at all, by blocks and their lengths, or by their final content too
    #[arg(long, value_enum, default_value = "digest")]
    pub(crate) ram: RamComparison,
    /// Show every differing element of an array (text only, JSON always has them)
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// The stream, in any of the formats; - is standard input
    pub(crate) input: PathBuf,
    /// Where to write; - is standard output
    pub(crate) output: PathBuf,
    /// The format to write: qemu, the migration stream of QEMU; ber, VM state over BER, which any ASN.1 tool reads; json, devices
    /// as values and all else as hex digits
    #[arg(long, value_enum)]
    pub(crate) to: StreamFormat,
    /// Do not look into a QEMU stream, or into one of its channels: carry it as bytes
    #[arg(long)]
    pub(crate) opaque_stream: bool,
    /// Do not say what became of the stream
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// A stream, a -dump-vmstate file, or a schema document; - is a stream on standard input
    pub(crate) file: PathBuf,
    /// What to print
    #[arg(long = "as", value_enum, default_value = "json-schema")]
    pub(crate) form: SchemaForm,
    /// Whose values the JSON Schema is for: what this version writes, or all that it reads
    #[arg(long = "for", value_enum, default_value = "writer")]
    pub(crate) audience: Audience,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, Args)]
#[command(
    after_help = "FROM and TO are each a stream, a -dump-vmstate file (qemu-system-… -machine M -dump-vmstate FILE), or a schema
document. The surest question is a stream of the source against a dump of the destination. Exit status: 0 compatible; 1 not,
or a stream that is corrupt; 2 the question could not be asked."
)]
pub(crate) struct Check {
    /// What the guest comes from
    pub(crate) from: PathBuf,
    /// What it goes to
    pub(crate) to: PathBuf,
    /// The machine type that both must be for
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Option<String>,
    /// Findings that are known and accepted
    #[arg(long, value_name = "FILE")]
    pub(crate) exceptions: Option<PathBuf>,
    /// Compare only sections and device classes whose name matches: * stands for anything, ? for one character
    #[arg(long, value_name = "GLOB")]
    pub(crate) section: Vec<String>,
    /// Of two dumps, compare only classes of which this stream has a section
    #[arg(long, value_name = "STREAM")]
    pub(crate) used_by: Option<PathBuf>,
    /// The format of the stream that is asked about
    #[arg(long, value_enum, default_value = "qemu")]
    pub(crate) protocol: Protocol,
    /// Ask for the way back too
    #[arg(long)]
    pub(crate) both: bool,
    /// Settle what depends on values by the values in FROM, which must be a stream
    #[arg(long)]
    pub(crate) values: bool,
    /// Count as a no what depends on values, and what these files do not tell
    #[arg(long)]
    pub(crate) strict: bool,
    /// Show harmless differences too, and all places of each
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamFormat {
    /// QEMU's migration stream
    Qemu,
    /// VM state over BER
    Ber,
    /// JSON, for people and scripts
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaForm {
    /// JSON Schema 2020-12 of the values
    JsonSchema,
    /// The schema document, to be kept and compared
    Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Audience {
    /// What this version writes
    Writer,
    /// What it reads
    Reader,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// QEMU's stream
    Qemu,
    /// VM state over BER
    Ber,
}

#[derive(Debug, Args)]
pub(crate) struct Helpers {
    /// Address of the message bus, such as unix:path=/run/vm/bus [default: the bus of this session]
    #[arg(long, value_name = "ADDRESS", value_parser = Place::bus)]
    pub(crate) addr: Option<Place>,
    /// Addresses of helpers without a bus, with semicolons in between
    #[arg(long, value_name = "ADDRESSES", value_parser = Place::peers, conflicts_with = "addr")]
    pub(crate) peers: Option<Place>,
    /// Ids that must be there, with commas in between; others are shown as skipped, and are not saved or loaded
    #[arg(long, value_name = "IDS")]
    pub(crate) id_list: Option<IdList>,
    /// Write each helper's state into a file of this directory, ID.state
    #[arg(long, value_name = "DIR")]
    pub(crate) save: Option<PathBuf>,
    /// Load the files of this directory into the helpers that they are named after
    #[arg(long, value_name = "DIR", conflicts_with = "save")]
    pub(crate) load: Option<PathBuf>,
    /// Milliseconds that all helpers together have
    #[arg(long, value_name = "MS", default_value = "5000")]
    pub(crate) deadline: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    #[arg(
        help = "Where to: tcp:HOST:PORT, unix:PATH, file:PATH[,offset=N], exec:COMMAND, fd:NAME"
    )]
    pub(crate) uri: String,
    /// QMP monitor of the machine that the guest is on: a path, unix:PATH or tcp:HOST:PORT
    #[arg(long, value_name = "MONITOR")]
    pub(crate) qmp: QmpAddress,
    /// QMP monitor of the machine that it goes to, started with -incoming defer: is set up the same way, told to wait, and must run
    /// the guest in the end
    #[arg(long, value_name = "MONITOR")]
    pub(crate) incoming_qmp: Option<QmpAddress>,
    /// Where the destination listens, if that is written differently there
    #[arg(long, value_name = "URI", requires = "incoming_qmp")]
    pub(crate) incoming_uri: Option<String>,
    /// Switch a migration capability on or off
    #[arg(long, value_name = "NAME[=on|off]", value_parser = capability)]
    pub(crate) capability: Vec<(String, bool)>,
    /// Set a migration parameter: numbers with K, M, G, T for powers of 1024; on, off
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    pub(crate) parameter: Vec<(String, String)>,
    /// What is at the other end, and so the format of the stream: vmstate: one of ours, VM state over BER; qemu: its stream; auto: what
    /// the machine is set to
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) peer: Peer,
    /// Let the guest go before its memory: auto: when it does not converge; after=N: after N rounds over memory; never. A
    /// connection that breaks then is replaced, if the destination's monitor is named
    #[arg(long, value_name = "auto|after=N|never", default_value = "never")]
    pub(crate) postcopy: Postcopy,
    /// Go on only if both machines speak VM state over BER
    #[arg(long, value_enum, value_name = "ber")]
    pub(crate) require: Option<Requirement>,
    /// Do not show how it stands, only what somebody should act upon
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Requirement {
    /// VM state over BER
    Ber,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Guest RAM, whole MiB, at most 64G
    #[arg(long, value_name = "SIZE", value_parser = demo_ram, default_value = "512M")]
    pub(crate) ram: u64,
    /// Number of harts, 1 to 8
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) harts: u32,
    /// Memory that the guest writes to, round and round
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "32M")]
    pub(crate) working_set: u64,
    /// Memory that the guest dirties per second, counted in whole pages
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "32M")]
    pub(crate) dirty_rate: u64,
    /// Memory beside the working set that is not zero
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256M")]
    pub(crate) fill: u64,
    /// What connects the two
    #[arg(long, value_enum, default_value = "unix")]
    pub(crate) transport: Transport,
    /// The format of the stream: vmstate: VM state over BER; qemu: QEMU's; auto: what both ends know best
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) peer: Peer,
    /// Bytes per second that the migration may use while the guest runs; 0: all that there is
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "128M")]
    pub(crate) max_bandwidth: u64,
    /// Milliseconds that the guest may stand still, as far as that can be told beforehand
    #[arg(long, value_name = "MS", default_value = "300")]
    pub(crate) downtime_limit: u64,
    /// Let the guest go before its memory: auto: when it does not converge; after=N: after N rounds over memory; never
    #[arg(long, value_name = "auto|after=N|never", default_value = "never")]
    pub(crate) postcopy: Postcopy,
    /// Give both machines a sensor, the destination one of another shape: see what they say to each other
    #[arg(long, value_enum, value_name = "SHAPE")]
    pub(crate) variant: Option<Shape>,
    /// Give the destination another number of harts, 1 to 8: see what they say to each other
    #[arg(long, value_name = "N")]
    pub(crate) destination_harts: Option<u32>,
    /// Do not show how it stands
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// A Unix socket
    Unix,
    /// TCP over loopback
    Tcp,
}

/// What is at the other end of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// Either
    Auto,
    /// One of ours
    Vmstate,
    /// QEMU
    Qemu,
}

impl Peer {
    /// The value of the parameter `x-peer`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Vmstate => "vmstate",
            Self::Qemu => "qemu",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Machine {
    /// Built-in guest (counter, dirtier, console), or a bare-metal RISC-V program as for QEMU's -bios: an ELF file, or flat code
    #[arg(long, value_name = "NAME|FILE", default_value = "counter")]
    pub(crate) guest: String,
    /// Wait for a guest that migrates to here; defer: until migrate-incoming says where
    #[arg(long, value_name = "URI|defer")]
    pub(crate) incoming: Option<String>,
    /// What is at the other end of migrations: vmstate: one of ours, streams are VM state over BER; qemu: its streams; auto: the other end
    /// is asked. The parameter x-peer
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) peer: Peer,
    /// Set a property of migrations, as QEMU's option of this name; may be given several times. migration.x-preempt-pre-7-2: the channel of
    /// requested pages is there from the beginning, as machine types of 7.2 and older want it
    #[arg(long, value_name = "migration.NAME=on|off", value_parser = global)]
    pub(crate) global: Vec<(Property, bool)>,
    /// Answer QMP here; may be given several times
    #[arg(long, value_name = "MONITOR")]
    pub(crate) qmp: Vec<QmpAddress>,
    /// Let the states of helper processes travel with the guest: dbus-vmstate,id=ID,addr=ADDRESS[,id-list=ID,,ID]; may be given several
    /// times
    #[arg(long, value_name = "TYPE,id=ID,...")]
    pub(crate) object: Vec<ObjectOptions>,
    /// Add a sensor that QEMU's board does not have, whose state has this shape
    #[arg(long, value_enum, value_name = "SHAPE")]
    pub(crate) sensor: Option<Shape>,
    /// Guest RAM, whole MiB
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "16M")]
    pub(crate) ram: u64,
    /// Number of harts, 1 to 8
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) harts: u32,
    /// Take all guest RAM from the host at the start
    #[arg(long)]
    pub(crate) prealloc: bool,
    /// Do not start the guest, nor one that arrives: wait for cont
    #[arg(long, short = 'S')]
    pub(crate) paused: bool,
    /// Do not print what the guest prints
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Seconds until a connection must be made
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub(crate) connect_timeout: u64,
    /// Seconds after which a destination that takes nothing counts as gone
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub(crate) silence_timeout: u64,
    /// The demo that this machine is a part of: ends when standard input does, and takes the demo's directory along
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) demo_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) load: Load,
}

/// A property of QEMU's `migration` object that a machine type may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Property {
    /// `x-preempt-pre-7-2`.
    PreemptPre7_2,
}

/// What the guest `dirtier` does.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Dirtier: memory that it writes to, round and round, of all harts together
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "4M")]
    pub(crate) working_set: u64,
    /// Dirtier: memory dirtied per second, counted in whole pages, of all harts together
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "16M")]
    pub(crate) dirty_rate: u64,
    /// Dirtier: memory beside the working set that is filled at the start
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "0")]
    pub(crate) fill: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Stream {
    /// The stream; - is standard input
    pub(crate) file: PathBuf,
    /// Further channels of the same migration: multifd, postcopy preempt
    #[arg(value_name = "CHANNEL")]
    pub(crate) channels: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Form of the answer
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// Most memory for device state [default: 64M], and for RAM that digests need and that does not stand in a file as it is [default:
    /// no bound]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// Size of the target's pages, if the stream does not say it [default: the trailer's, or 4096]
    #[arg(long, value_name = "N", value_parser = page_size)]
    pub(crate) page_size: Option<u64>,
    /// Bytes before the stream: the offset of a file: URI, or the header of a save image
    #[arg(long, value_name = "N", value_parser = size, default_value = "0", hide_default_value = true)]
    pub(crate) start: u64,
    /// Read sections that no trailer describes with what -dump-vmstate of the same QEMU and machine wrote
    #[arg(long, value_name = "DUMP")]
    pub(crate) describe: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs, documented and stable
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RamDetail {
    /// Name and length
    Summary,
    /// Also the SHA-256 of the final content
    Digest,
    /// Also page records by kind
    Pages,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RamComparison {
    /// Not at all
    None,
    /// Names and lengths
    Summary,
    /// Final content too
    Digest,
}

/// A number of bytes, with K, M, G or T for powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number of bytes, as 4096, 64K, 512M or 2G".to_owned();
    let plain = text
        .strip_suffix("iB")
        .or(text.strip_suffix('B'))
        .unwrap_or(text);
    let (digits, shift) = match plain.chars().next_back().map(|c| c.to_ascii_uppercase()) {
        Some('K') => (plain.get(..plain.len() - 1), 10),
        Some('M') => (plain.get(..plain.len() - 1), 20),
        Some('G') => (plain.get(..plain.len() - 1), 30),
        Some('T') => (plain.get(..plain.len() - 1), 40),
        _ => (Some(plain), 0),
    };
    let number: u64 = digits.and_then(|d| d.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// RAM of two machines on one host, all of which is read twice.
fn demo_ram(text: &str) -> Result<u64, String> {
    match size(text)? {
        size if size <= 64 << 30 => Ok(size),
        _ => Err("a demo has at most 64G".to_owned()),
    }
}

fn capability(text: &str) -> Result<(String, bool), String> {
    let (name, state) = match text.split_once('=') {
        None => (text, true),
        Some((name, "on")) => (name, true),
        Some((name, "off")) => (name, false),
        Some(_) => return Err("expected NAME, NAME=on or NAME=off".to_owned()),
    };
    if name.is_empty() {
        return Err("expected the name of a capability".to_owned());
    }
    Ok((name.to_owned(), state))
}

fn global(text: &str) -> Result<(Property, bool), String> {
    match text.split_once('=') {
        Some(("migration.x-preempt-pre-7-2", "on")) => Ok((Property::PreemptPre7_2, true)),
        Some(("migration.x-preempt-pre-7-2", "off")) => Ok((Property::PreemptPre7_2, false)),
        _ => Err("expected migration.x-preempt-pre-7-2=on or =off".to_owned()),
    }
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn page_size(text: &str) -> Result<u64, String> {
    let size = size(text)?;
    if size.is_power_of_two() && (256..=65536).contains(&size) {
        Ok(size)
    } else {
        Err("expected a power of two from 256 to 65536".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64k"), Ok(64 << 10));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("2T"), Ok(2 << 40));
        for wrong in ["", "K", "-1", "1.5G", "99999999999T", "x", "é"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(page_size("4K").is_ok() && page_size("5000").is_err());
    }

    #[test]
    fn settings() {
        let xbzrle = |state| Ok(("xbzrle".to_owned(), state));
        assert_eq!(capability("xbzrle"), xbzrle(true));
        assert_eq!(capability("xbzrle=on"), xbzrle(true));
        assert_eq!(capability("xbzrle=off"), xbzrle(false));
        assert!(capability("xbzrle=1").is_err() && capability("=on").is_err());
        let set = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(parameter("a=b=c"), set("a", "b=c"));
        assert_eq!(parameter("tls-creds="), set("tls-creds", ""));
        assert!(parameter("a").is_err() && parameter("=1").is_err());
        let early = "migration.x-preempt-pre-7-2";
        let property = |state| global(&format!("{early}={state}"));
        assert_eq!(property("on"), Ok((Property::PreemptPre7_2, true)));
        assert_eq!(property("off"), Ok((Property::PreemptPre7_2, false)));
        assert!(property("1").is_err() && global(early).is_err());
        assert!(global("migration.other=on").is_err());
    }
}
