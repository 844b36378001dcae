//! Machines that consist of helpers only, and helpers that do what they should not.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vmstate_dbus::{BUS_NAME, DbusVmstate, Helper, HelperError, OBJECT_PATH};
use vmstate_engine::{
    Bql, ChannelEnd, ChannelError, ChannelWriter, Identity, Incoming, LoadError, LoadStep,
    Outgoing, Registry, SaveError, SectionReader, SectionWriter, Settings,
};
use vmstate_ram::BlockId;
use vmstate_wire::stream::{
    Configuration, IdStr, InstanceId, MachineName, SectionHeader, SectionId, SectionKind,
    StreamOffset, VersionId, write,
};
use zbus::Connection;
use zbus::export::futures_core::Stream as _;
use zbus::fdo::{self, RequestNameFlags};

/// A deadline that is long enough for everybody who answers at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A stream in memory.
#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    read: usize,
}

impl SectionWriter for Memory {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn pages(&mut self, _: BlockId, _: u64, _: u64) -> Result<(), ChannelError> {
        Err(ChannelError::new(ChannelEnd::Failed, self.position()))
    }

    fn rate_exceeded(&self) -> bool {
        false
    }

    fn position(&self) -> StreamOffset {
        StreamOffset(self.bytes.len() as u64)
    }
}

impl ChannelWriter for Memory {
    fn flush(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }
}

impl SectionReader for Memory {
    fn fill(&mut self, _at_least: usize) -> Result<&[u8], ChannelError> {
        Ok(&self.bytes[self.read..])
    }

    fn consume(&mut self, count: usize) {
        self.read += count;
    }

    fn offset(&self) -> StreamOffset {
        StreamOffset(self.read as u64)
    }

    fn read_into_guest(&mut self, _: BlockId, _: u64, _: u64) -> Result<(), ChannelError> {
        Err(ChannelError::new(ChannelEnd::Failed, self.offset()))
    }
}

fn registry(objects: &[&DbusVmstate]) -> Registry {
    let mut registry = Registry::new();
    for (index, object) in objects.iter().enumerate() {
        let name = format!("dv{index}");
        let path = (index > 0).then_some(name.as_str());
        registry.register_device(object.device(path)).unwrap();
    }
    registry
}

/// Saves a machine of these objects.
pub(crate) fn save(objects: &[&DbusVmstate]) -> Result<Vec<u8>, SaveError> {
    let mut registry = registry(objects);
    let bql = Bql::holding(());
    let mut out = Memory::default();
    let mut stream = Outgoing::new(Settings::default(), Identity::new("helpers"), false);
    stream.begin(&mut out)?;
    stream.setup(&bql, &mut registry, &mut out)?;
    stream.iterate(&mut registry, &mut out)?;
    stream.complete(&bql, &mut registry, &mut out)?;
    stream.commit(&mut out)?;
    stream.trailer(&mut out)?;
    Ok(out.bytes)
}

/// Loads it.
pub(crate) fn load(objects: &[&DbusVmstate], stream: &[u8]) -> Result<(), LoadError> {
    let mut registry = registry(objects);
    let bql = Bql::holding(());
    let mut input = Memory {
        bytes: stream.to_vec(),
        read: 0,
    };
    let mut stream = Incoming::new(Settings::default(), Identity::new("helpers"));
    stream.begin(&mut input)?;
    stream.setup(&bql, &mut registry)?;
    loop {
        match stream.next(&mut input)? {
            LoadStep::Section => stream.section(Some(&bql), &mut registry, &mut input)?,
            LoadStep::Eof => return stream.trailer(&mut input),
            _ => {}
        }
    }
}

/// A stream that carries this blob.
pub(crate) fn with_blob(data_size: u32, blob: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write::put_header(&mut out);
    let configuration = Configuration::new(MachineName::new("helpers").unwrap());
    write::put_configuration(&mut out, &configuration);
    let header = SectionHeader {
        kind: SectionKind::Full,
        section_id: SectionId(3),
        idstr: IdStr::new("dbus-vmstate/dbus-vmstate").unwrap(),
        instance_id: InstanceId(0),
        version_id: VersionId(0),
    };
    write::put_section_header(&mut out, &header);
    out.extend_from_slice(&data_size.to_be_bytes());
    out.extend_from_slice(blob);
    write::put_footer(&mut out, SectionId(3));
    write::put_eof(&mut out);
    write::put_trailer(&mut out, b"{}").unwrap();
    out
}

/// A helper that does what it should, and remembers.
#[derive(Debug, Default)]
pub(crate) struct Good {
    pub(crate) id: String,
    pub(crate) state: Mutex<Vec<u8>>,
    pub(crate) calls: Mutex<Vec<&'static str>>,
}

impl Good {
    pub(crate) fn new(id: &str, state: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            id: id.to_owned(),
            state: Mutex::new(state.to_vec()),
            calls: Mutex::default(),
        })
    }

    pub(crate) fn state(&self) -> Vec<u8> {
        self.state.lock().unwrap().clone()
    }

    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }
}

impl Helper for Good {
    fn id(&self) -> String {
        self.id.clone()
    }

    fn save(&self) -> Result<Vec<u8>, HelperError> {
        self.calls.lock().unwrap().push("save");
        Ok(self.state())
    }

    fn load(&self, state: &[u8]) -> Result<(), HelperError> {
        self.calls.lock().unwrap().push("load");
        if state == b"refuse me" {
            return Err(HelperError::new("the state is of another planet"));
        }
        *self.state.lock().unwrap() = state.to_vec();
        Ok(())
    }
}

/// What a bad helper does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// What it should.
    Answer,
    /// Answers with an error.
    Refuse,
    /// Never answers.
    Hang,
    /// Leaves the bus instead of answering.
    Die,
    /// Answers with this many bytes.
    Bytes(usize),
}

/// A helper that does what it should not.
struct Bad {
    id: &'static str,
    on_id: Act,
    on_save: Act,
    on_load: Act,
}

impl Bad {
    async fn act(act: Act, connection: &Connection) -> fdo::Result<Vec<u8>> {
        match act {
            Act::Answer => Ok(b"state".to_vec()),
            Act::Bytes(count) => Ok(vec![7; count]),
            Act::Refuse => Err(fdo::Error::Failed("out of\ncheese".to_owned())),
            Act::Hang => pending().await,
            Act::Die => {
                let _ = connection.clone().close().await;
                pending().await
            }
        }
    }
}

#[zbus::interface(name = "org.qemu.VMState1")]
impl Bad {
    #[zbus(property(emits_changed_signal = "const"))]
    async fn id(&self, #[zbus(connection)] connection: &Connection) -> fdo::Result<String> {
        match Self::act(self.on_id, connection).await?.len() {
            5 => Ok(self.id.to_owned()),
            length => Ok("x".repeat(length)),
        }
    }

    async fn save(&self, #[zbus(connection)] connection: &Connection) -> fdo::Result<Vec<u8>> {
        Self::act(self.on_save, connection).await
    }

    async fn load(
        &self,
        #[zbus(connection)] connection: &Connection,
        _data: Vec<u8>,
    ) -> fdo::Result<()> {
        Self::act(self.on_load, connection).await.map(drop)
    }
}

/// A helper whose types are wrong.
struct WrongSave;

#[zbus::interface(name = "org.qemu.VMState1")]
impl WrongSave {
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        "wrong".to_owned()
    }

    fn save(&self) -> String {
        "not bytes".to_owned()
    }
}

/// A helper whose id is a number.
struct WrongId;

#[zbus::interface(name = "org.qemu.VMState1")]
impl WrongId {
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> u32 {
        7
    }
}

/// A helper without an id.
struct NoId;

#[zbus::interface(name = "org.qemu.VMState1")]
impl NoId {
    fn save(&self) -> Vec<u8> {
        vec![1]
    }
}

/// A helper that does what it should, without the library.
struct Plain(&'static str);

#[zbus::interface(name = "org.qemu.VMState1")]
impl Plain {
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.0.to_owned()
    }

    fn save(&self) -> Vec<u8> {
        vec![1]
    }

    fn load(&self, _data: Vec<u8>) {}
}

/// Answers calls by this script, on a thread that ends with the connection.
fn recite(connection: &Connection, script: Script) {
    let mut messages = zbus::MessageStream::from(connection);
    let connection = connection.clone();
    std::thread::spawn(move || {
        zbus::block_on(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|cx| std::pin::Pin::new(&mut messages).poll_next(cx)).await
            {
                let call = message.header();
                let (Some(path), Some(method)) = (call.path(), call.member()) else {
                    continue;
                };
                // Whoever has asked may have gone.
                let _ = match script(path.as_str(), method.as_str()) {
                    Said::Id(id) => {
                        let all = HashMap::from([("Id", zbus::Variant::from(id))]);
                        connection.reply(&call, &all).await
                    }
                    Said::Text(text) => connection.reply(&call, &text).await,
                    Said::State(state) => connection.reply(&call, &state).await,
                    Said::Done => connection.reply(&call, &()).await,
                    Said::Refusal => {
                        let name = "org.freedesktop.DBus.Error.UnknownMethod";
                        connection.reply_error(&call, name, &"not here").await
                    }
                    Said::Nothing => Ok(()),
                };
            }
        });
    });
}

/// Which bad helper.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Villain {
    Acts {
        id: &'static str,
        on_id: Act,
        on_save: Act,
        on_load: Act,
    },
    WrongSave,
    WrongId,
    NoId,
    /// Has the name, and no object.
    NoObject,
    /// Has one object too many.
    TwoObjects,
    /// Says what this function gives for a path and a method.
    Scripted(Script),
}

/// What a helper says to a call of this method at this path.
pub(crate) type Script = fn(&str, &str) -> Said;

/// What a scripted helper says to a call.
#[derive(Debug)]
pub(crate) enum Said {
    /// All properties: this is its id.
    Id(&'static str),
    Text(String),
    State(Vec<u8>),
    Done,
    Refusal,
    Nothing,
}

/// One that answers wrongly when it is saved.
pub(crate) const fn on_save(act: Act) -> Villain {
    Villain::Acts {
        id: "bad",
        on_id: Act::Answer,
        on_save: act,
        on_load: Act::Answer,
    }
}

/// A villain on a bus, until it is dropped.
pub(crate) struct Villainy {
    connection: Connection,
}

impl Villainy {
    pub(crate) fn new(address: &str, villain: Villain) -> Self {
        let connection = zbus::block_on(async {
            let builder = zbus::connection::Builder::address(address);
            let builder = match villain {
                Villain::Acts {
                    id,
                    on_id,
                    on_save,
                    on_load,
                } => builder.serve_at(
                    OBJECT_PATH,
                    Bad {
                        id,
                        on_id,
                        on_save,
                        on_load,
                    },
                ),
                Villain::WrongSave => builder.serve_at(OBJECT_PATH, WrongSave),
                Villain::WrongId => builder.serve_at(OBJECT_PATH, WrongId),
                Villain::NoId => builder.serve_at(OBJECT_PATH, NoId),
                Villain::NoObject => builder.serve_at("/org/qemu/VMState2", NoId),
                Villain::TwoObjects => builder
                    .serve_at(OBJECT_PATH, Plain("one"))
                    .serve_at("/org/qemu/second/VMState1", Plain("two")),
                Villain::Scripted(_) => builder,
            };
            let connection = builder.build().await?;
            if let Villain::Scripted(script) = villain {
                recite(&connection, script);
            }
            connection
                .request_name_with_flags(BUS_NAME, RequestNameFlags::empty())
                .await?;
            Ok::<_, zbus::Error>(connection)
        })
        .unwrap();
        Self { connection }
    }

    /// Its unique name.
    pub(crate) fn name(&self) -> String {
        self.connection.unique_name().unwrap().to_string()
    }
}

impl Drop for Villainy {
    fn drop(&mut self) {
        let _ = zbus::block_on(self.connection.clone().close());
    }
}
