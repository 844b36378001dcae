//! The engine moves a guest that works meanwhile: what it wrote in any round arrives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstate::wire::stream::StreamOffset;
use vmstate_engine::{
    Bql, ChannelError, ChannelWriter, GuestMemory, Identity, Machine as _, Outgoing, RunState,
    SectionWriter, Settings,
};
use vmstate_ram::BlockId;
use vmstate_spike::guests::{self, Counter, Dirtier, Parameters};
use vmstate_spike::{Config, Machine, Memory, Program, RecorderConfig, stream};

/// A stream in memory.
struct Stream {
    memory: Arc<Memory>,
    bytes: Vec<u8>,
}

impl SectionWriter for Stream {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn pages(&mut self, block: BlockId, offset: u64, length: u64) -> Result<(), ChannelError> {
        let start = self.bytes.len();
        self.bytes
            .resize(start + usize::try_from(length).unwrap(), 0);
        self.memory
            .copy_out(block, offset, &mut self.bytes[start..])
            .unwrap();
        Ok(())
    }

    fn rate_exceeded(&self) -> bool {
        false
    }

    fn position(&self) -> StreamOffset {
        StreamOffset(self.bytes.len() as u64)
    }
}

impl ChannelWriter for Stream {
    fn flush(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }
}

fn config(guest: &'static [u8], harts: u32, incoming: bool) -> Config<'static> {
    Config {
        harts,
        program: Some(Program::parse(guest).unwrap()),
        incoming,
        recorder: Some(RecorderConfig {
            bytes: 1 << 20,
            ..RecorderConfig::default()
        }),
        ..Config::default()
    }
}

fn moves(guest: &'static [u8], harts: u32, done: impl Fn(&Machine) -> u64) {
    let mut source = Machine::new(config(guest, harts, false)).unwrap();
    if guest == guests::DIRTIER {
        let mut parameters = Parameters::read(&source).unwrap();
        parameters.period = 1000;
        parameters.write(&source).unwrap();
    }
    source.resume().unwrap();
    let mut last = 0;
    for hop in 0..6 {
        let deadline = Instant::now() + Duration::from_secs(60);
        while done(&source) <= last {
            assert!(Instant::now() < deadline, "the guest has stopped working");
            std::thread::sleep(Duration::from_millis(1));
        }
        let bql = Bql::holding(());
        let mut registry = source.registry().unwrap();
        let mut out = Stream {
            memory: Arc::clone(source.memory()),
            bytes: Vec::new(),
        };
        let mut stream = Outgoing::new(Settings::default(), Identity::new("spike"), false);
        stream.begin(&mut out).unwrap();
        stream.setup(&bql, &mut registry, &mut out).unwrap();
        let mut rounds = 0;
        for round in 0.. {
            if (round >= 20 && rounds > 0) || Instant::now() > deadline {
                break;
            }
            _ = stream.iterate(&mut registry, &mut out).unwrap();
            // Room for the guest, on a host that has much to do.
            std::thread::sleep(Duration::from_millis(2));
            rounds += u32::from(stream.exact(&mut registry).unwrap().total() > 0);
        }
        assert!(rounds > 0, "the guest did nothing meanwhile");
        let stopped = source.stop(&bql, RunState::FinishMigrate).unwrap();
        assert_eq!(stopped.was, RunState::Running);
        stream.complete(&bql, &mut registry, &mut out).unwrap();
        stream.commit(&mut out).unwrap();
        stream.trailer(&mut out).unwrap();
        registry.save_cleanup(&bql);
        source.migrated(&bql);
        assert_eq!(source.run_state(), RunState::PostMigrate);
        assert!(source.resume().is_err());

        let destination = Machine::new(config(guest, harts, true)).unwrap();
        let was = stream::load(&destination, &*out.bytes).unwrap();
        assert_eq!(was, Some(RunState::Running));
        for (ours, theirs) in source
            .memory()
            .blocks()
            .into_iter()
            .zip(destination.memory().blocks())
        {
            for page in 0..ours.ram.len() / 4096 {
                let mut pages = [[0; 4096]; 2];
                ours.ram.read(page * 4096, &mut pages[0]).unwrap();
                theirs.ram.read(page * 4096, &mut pages[1]).unwrap();
                assert!(
                    pages[0] == pages[1],
                    "hop {hop}: {} page {page}",
                    ours.idstr
                );
            }
        }
        let recorder = destination.recorder().unwrap();
        recorder.check(destination.virtual_time()).unwrap();
        assert_eq!(recorder.entries(), source.recorder().unwrap().entries());
        last = done(&destination);
        destination.start(&bql, stopped.token, RunState::Running);
        source = destination;
    }
}

#[test]
fn a_counter_moves_live() {
    for harts in [1, 3] {
        moves(guests::COUNTER, harts, |machine| {
            let counter = Counter::read(machine).unwrap();
            if machine.run_state() != RunState::Running {
                counter.check(machine).unwrap();
            }
            counter.passes()
        });
    }
}

#[test]
fn a_dirtier_moves_live() {
    moves(guests::DIRTIER, 2, |machine| {
        let dirtier = Dirtier::read(machine).unwrap();
        if machine.run_state() != RunState::Running {
            dirtier.check(machine).unwrap();
        }
        dirtier.pages()
    });
}
