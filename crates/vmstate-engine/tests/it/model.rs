//! Source, destination and network, explored whole: every order of messages, failures and cancels.
//!
//! The two tables are the real ones; what stands around them is as unkind as reality. The worker of each side takes its
//! work and comes back at any later time, well or badly. When a connection breaks, a write may fail although all of it
//! arrives, or succeed although nothing does. A cut loses what is under way, from any message on. Processes are killed.

use std::collections::HashMap;
use std::fmt::Write as _;

use vmstate_engine::destination::{Core as There, Input as In, Phase as At};
use vmstate_engine::source::{Core as Here, Input, Phase, Right, Traits};

/// What goes from the source to the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sent {
    /// All sections.
    Sections,
    /// The question whether they have been loaded.
    Ping,
    /// The end-of-stream mark.
    Eof,
    Trailer,
}

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Pong,
    Shut(u32),
}

/// One direction of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wire<T> {
    under_way: Vec<T>,
    /// Nothing more is taken: cut, closed or shut down.
    closed: bool,
}

impl<T: Copy> Wire<T> {
    fn new() -> Self {
        Self {
            under_way: Vec::new(),
            closed: false,
        }
    }

    fn send(&mut self, message: T) {
        if !self.closed {
            self.under_way.push(message);
        }
    }
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    here: Here,
    there: There,
    /// The guest runs at the source; at the destination.
    runs_here: bool,
    runs_there: bool,
    connected: bool,
    forward: Wire<Sent>,
    back: Wire<Answer>,
    /// How much of the present work has left already, while the worker is not back from it.
    early: usize,
    /// The source has been told that the return path has ended.
    told: bool,
    /// Whether the end-of-stream mark has ever been given to the transport.
    committed: bool,
    /// The destination has read the mark, with everything before it loaded.
    arrived: bool,
    killed: bool,
    /// How much bad luck is left.
    cancels: u8,
    misfortunes: u8,
}

/// How the model departs from the real thing, to see that it notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    /// As stock QEMU does: a broken connection after the mark makes the source resume.
    ResumesInDoubt,
    /// The destination starts its guest when the sections are loaded, before the mark.
    StartsBeforeTheMark,
    /// The source takes an end of the connection for the destination's consent, and gives the guest up.
    GivesUpInDoubt,
}

type Step = (String, World);

impl World {
    fn new(traits: Traits, misfortunes: u8) -> Self {
        let mut here = Here::new(traits);
        here.step(Input::Migrate).unwrap();
        let mut there = There::default();
        there.step(In::Incoming).unwrap();
        Self {
            here,
            there,
            runs_here: true,
            runs_there: false,
            connected: false,
            forward: Wire::new(),
            back: Wire::new(),
            early: 0,
            told: false,
            committed: false,
            arrived: false,
            killed: false,
            cancels: 1,
            misfortunes,
        }
    }

    /// The source hears something. What that aborts shuts the channels down.
    fn hears(&self, input: Input) -> Option<Self> {
        let mut next = self.clone();
        next.here.step(input).ok()?;
        if self.here.abort().is_none() && next.here.abort().is_some() {
            next.forward.closed = true;
            next.back.closed = true;
        }
        (next != *self).then_some(next)
    }

    /// Everything that can happen next.
    fn steps(&self, mutation: Mutation) -> Vec<Step> {
        let mut steps = Vec::new();
        self.source_works(&mut steps);
        self.destination_works(mutation, &mut steps);
        self.answers_arrive(&mut steps);
        self.bad_luck(&mut steps);
        if self.here.phase() == Phase::Unknown {
            let decision = match mutation {
                Mutation::ResumesInDoubt => Some(Input::ResumeHere),
                Mutation::GivesUpInDoubt => Some(Input::GiveUp),
                _ => None,
            };
            steps.extend(decision.and_then(|d| Some((format!("source: {d:?}"), self.hears(d)?))));
        }
        steps
    }

    /// What the present work of the source writes.
    fn writes(&self) -> Vec<Sent> {
        match self.here.phase() {
            Phase::Completing if self.here.traits().return_path => vec![Sent::Sections, Sent::Ping],
            Phase::Completing => vec![Sent::Sections],
            Phase::Committing => vec![Sent::Eof],
            Phase::Trailing => vec![Sent::Trailer],
            _ => Vec::new(),
        }
    }

    fn source_works(&self, steps: &mut Vec<Step>) {
        let phase = self.here.phase();
        if !self.here.is_busy() {
            steps.extend(
                self.hears(Input::Taken)
                    .map(|next| (format!("source takes {phase}"), next)),
            );
            // The user answers.
            if phase == Phase::PreSwitchover {
                steps.extend(
                    self.hears(Input::Continue)
                        .map(|next| ("migrate-continue".to_owned(), next)),
                );
            }
            return;
        }
        let nothing: fn(&mut Self) = |_| {};
        let closes: fn(&mut Self) = |world| {
            world.forward.closed = true;
            world.back.closed = true;
        };
        let breaks: fn(&mut Self) = |world| {
            world.misfortunes -= 1;
            world.forward.closed = true;
            world.back.closed = true;
        };
        let unlucky = self.misfortunes > 0;
        // What is written may arrive, and be answered, long before the worker comes back.
        let all = self.writes();
        let early = self.early;
        if let Some(message) = all.get(early).filter(|_| !self.forward.closed) {
            let mut next = self.clone();
            next.forward.send(*message);
            next.committed |= *message == Sent::Eof;
            next.early += 1;
            steps.push((format!("{message:?} is on its way"), next));
        }
        let mut ends = |input: Input, sent: &[Sent], after: fn(&mut Self)| {
            let mut base = self.clone();
            for message in sent.iter().skip(early) {
                base.forward.send(*message);
            }
            base.committed |= phase == Phase::Committing && input != Input::NotSent;
            base.early = 0;
            after(&mut base);
            if let Some(next) = base.hears(input) {
                steps.push((format!("source {phase}: {input:?}, writes {sent:?}"), next));
            }
        };
        // What a write reports, and what arrives of it if the connection breaks.
        let mut writes = || {
            ends(Input::Done, &all, nothing);
            for kept in (early..=all.len()).filter(|_| unlucky) {
                ends(Input::Done, &all[..kept], breaks);
                ends(Input::Failed, &all[..kept], breaks);
            }
        };
        match phase {
            Phase::Connecting => {
                ends(Input::Done, &[], |world| world.connected = true);
                ends(Input::Failed, &[], nothing);
            }
            Phase::Stopping => {
                ends(Input::Done, &[], |world| world.runs_here = false);
                ends(Input::Failed, &[], nothing);
            }
            Phase::Completing => {
                writes();
                // A device refuses, before or after others.
                if early < 2 {
                    ends(Input::Failed, &[], nothing);
                    ends(Input::Failed, &[Sent::Sections], nothing);
                }
            }
            Phase::Committing => {
                writes();
                if early == 0 {
                    ends(Input::NotSent, &[], nothing);
                }
            }
            Phase::Trailing => writes(),
            Phase::Resuming => ends(Input::Done, &[], |world| {
                assert!(!world.runs_here);
                world.runs_here = true;
            }),
            Phase::CleaningUp => ends(Input::Done, &[], closes),
            Phase::Departing => ends(Input::Done, &[], nothing),
            _ => {
                ends(Input::Done, &[], nothing);
                ends(Input::Failed, &[], nothing);
            }
        }
    }

    fn destination_works(&self, mutation: Mutation, steps: &mut Vec<Step>) {
        if self.killed {
            return;
        }
        let phase = self.there.phase();
        let mut ends = |what: &str, input: Option<In>, change: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            change(&mut next);
            if let Some(input) = input {
                next.there.step(input).unwrap();
            }
            steps.push((format!("destination {phase}: {what}"), next));
        };
        if !self.there.is_busy() {
            let mut taken = self.there;
            if taken.step(In::Taken).is_ok() {
                ends("takes", Some(In::Taken), &|_| {});
            }
            return;
        }
        let pop = |world: &mut Self| {
            world.forward.under_way.remove(0);
        };
        match phase {
            At::Listening => {
                if self.connected {
                    ends("accepts", Some(In::Done), &|_| {});
                }
                ends("fails", Some(In::Failed), &|_| {});
            }
            At::Loading => match self.forward.under_way.first() {
                Some(Sent::Sections) => {
                    ends("loads", None, &|world| {
                        pop(world);
                        world.runs_there |= mutation == Mutation::StartsBeforeTheMark;
                    });
                    ends("a device refuses", Some(In::Failed), &pop);
                }
                Some(Sent::Ping) => ends("answers", None, &|world| {
                    pop(world);
                    world.back.send(Answer::Pong);
                }),
                Some(Sent::Eof) => ends("end of stream", Some(In::Done), &|world| {
                    pop(world);
                    world.arrived = !world.there.has_failed();
                }),
                Some(Sent::Trailer) => panic!("trailer before the mark"),
                None if self.forward.closed => ends("connection ended", Some(In::Failed), &|_| {}),
                None => {}
            },
            At::Trailing => match self.forward.under_way.first() {
                Some(_) => ends("reads", Some(In::Done), &pop),
                None if self.forward.closed => ends("no trailer", Some(In::Failed), &|_| {}),
                None => ends("waits no longer", Some(In::Failed), &|_| {}),
            },
            At::Starting => ends("starts", Some(In::Done), &|world| {
                assert!(!world.runs_there || mutation != Mutation::None);
                world.runs_there = true;
            }),
            At::Answering => {
                let value = u32::from(self.there.has_failed());
                ends("answers", Some(In::Done), &|world| {
                    world.back.send(Answer::Shut(value));
                });
                if self.misfortunes > 0 {
                    ends("cannot answer", Some(In::Failed), &|world| {
                        world.misfortunes -= 1;
                        world.back.closed = true;
                    });
                }
            }
            At::CleaningUp => ends("cleans up", Some(In::Done), &|world| {
                world.forward.closed = true;
                world.back.closed = true;
            }),
            // This source does not switch to postcopy.
            other => assert!(matches!(other, At::Idle | At::Over), "{other}"),
        }
    }

    fn answers_arrive(&self, steps: &mut Vec<Step>) {
        if !self.here.traits().return_path || !self.connected {
            return;
        }
        let mut next = self.clone();
        let (what, input) = if next.back.under_way.is_empty() {
            if !self.back.closed || self.told {
                return;
            }
            next.told = true;
            ("end", Input::ReturnPathEnded)
        } else {
            match next.back.under_way.remove(0) {
                Answer::Pong => ("PONG", Input::Confirm),
                // Nothing behind it is read.
                Answer::Shut(0) => {
                    next.told = true;
                    ("SHUT 0", Input::ShutOk)
                }
                Answer::Shut(_) => {
                    next.told = true;
                    ("SHUT 1", Input::ShutError)
                }
            }
        };
        let heard = next.hears(input).unwrap_or(next);
        steps.push((format!("source reads {what}"), heard));
    }

    fn bad_luck(&self, steps: &mut Vec<Step>) {
        if self.cancels > 0 {
            let mut next = self.clone();
            next.cancels -= 1;
            let mut next = next.hears(Input::Cancel).unwrap_or(next);
            // A cancel shuts the channels down, even one that comes too late.
            next.forward.closed = true;
            next.back.closed = true;
            steps.push(("migrate_cancel".to_owned(), next));
        }
        if self.misfortunes == 0 {
            return;
        }
        let mut base = self.clone();
        base.misfortunes -= 1;
        if let Some(next) = base.hears(Input::Broken) {
            steps.push(("another thread of the source fails".to_owned(), next));
        }
        if !self.killed {
            let mut next = base.clone();
            next.there.step(In::Abandon).unwrap();
            steps.push(("the destination gives up".to_owned(), next));
            let mut next = base.clone();
            next.killed = true;
            next.runs_there = false;
            next.forward.under_way.clear();
            next.forward.closed = true;
            next.back.closed = true;
            steps.push(("the destination is killed".to_owned(), next));
        }
        for kept in 0..=self.forward.under_way.len() {
            for answered in 0..=self.back.under_way.len() {
                let mut next = base.clone();
                next.forward.under_way.truncate(kept);
                next.back.under_way.truncate(answered);
                next.forward.closed = true;
                next.back.closed = true;
                steps.push((format!("cut, {kept} and {answered} messages survive"), next));
            }
        }
    }

    /// What must hold always, and when nothing happens any more.
    fn check(&self, settled: bool) -> Result<(), &'static str> {
        if self.runs_here && self.runs_there {
            return Err("two guests run");
        }
        let over =
            matches!(self.here.phase(), Phase::Idle | Phase::Unknown) && !self.here.is_busy();
        if over && !self.committed && !self.runs_here {
            return Err("a failure before the mark has stopped the guest");
        }
        if self.runs_there && self.here.right() == Right::Machine {
            return Err("the destination runs a guest that the source may run");
        }
        if !settled {
            return Ok(());
        }
        if !over {
            return Err("the source is stuck");
        }
        if !self.killed && !matches!(self.there.phase(), At::Over | At::Listening) {
            return Err("the destination is stuck");
        }
        if self.arrived && !self.killed && !self.runs_there {
            return Err("a guest that has arrived does not start");
        }
        let unknown = self.here.phase() == Phase::Unknown;
        if !self.runs_here
            && !self.runs_there
            && !unknown
            && !self.killed
            && self.here.traits().return_path
        {
            return Err("the guest is nowhere, and nobody says so");
        }
        if unknown && self.runs_here {
            return Err("unknown, and running here");
        }
        Ok(())
    }
}

/// Explores everything that can happen; the states seen, or how it went wrong.
fn explore(start: World, mutation: Mutation) -> Result<Vec<World>, String> {
    let mut states = vec![(start.clone(), usize::MAX, String::new())];
    let mut seen = HashMap::from([(start, 0)]);
    let mut at = 0;
    while at < states.len() {
        let world = states[at].0.clone();
        let steps = world.steps(mutation);
        // Bad luck is optional: a state that only it would leave is an end.
        let still = |world: &World| World {
            cancels: 0,
            misfortunes: 0,
            ..world.clone()
        };
        let settled = still(&world).steps(mutation).is_empty();
        if let Err(wrong) = world.check(settled) {
            let mut trace = vec![format!("{wrong}\n{world:#?}")];
            let mut back = at;
            while back != usize::MAX {
                let (_, from, how) = &states[back];
                trace.push(how.clone());
                back = *from;
            }
            let mut text = String::new();
            for line in trace.iter().rev() {
                writeln!(text, "{line}").unwrap();
            }
            return Err(text);
        }
        for (how, next) in steps {
            if !seen.contains_key(&next) {
                seen.insert(next.clone(), states.len());
                states.push((next, at, how));
            }
        }
        at += 1;
    }
    Ok(states.into_iter().map(|(world, ..)| world).collect())
}

/// Nothing breaks, nobody gives up: devices and the machine may refuse all the same.
fn kind(traits: Traits) -> World {
    World {
        cancels: 0,
        ..World::new(traits, 0)
    }
}

fn traits(return_path: bool, pause: bool, refusal_is_proof: bool) -> Traits {
    Traits {
        return_path,
        pause,
        refusal_is_proof,
    }
}

#[test]
fn never_two_running_guests() {
    for bits in 0..8 {
        let traits = traits(bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        match explore(World::new(traits, 2), Mutation::None) {
            Ok(states) => assert!(states.len() > 1000, "{traits:?}: {}", states.len()),
            Err(trace) => panic!("{traits:?}\n{trace}"),
        }
    }
}

#[test]
fn as_long_as_the_connection_holds_everybody_knows() {
    let states = explore(kind(traits(true, false, false)), Mutation::None).unwrap();
    let ends = |here: bool, there: bool| {
        let end = |world: &&World| {
            world.here.phase() == Phase::Idle
                && (world.runs_here, world.runs_there) == (here, there)
        };
        states.iter().filter(end).count()
    };
    assert!(
        states
            .iter()
            .all(|world| world.here.phase() != Phase::Unknown)
    );
    assert!(ends(true, false) > 0 && ends(false, true) > 0);
    assert_eq!((ends(true, true), ends(false, false)), (0, 0));
}

#[test]
fn the_model_notices_what_is_wrong() {
    for (mutation, expected) in [
        (Mutation::ResumesInDoubt, "two guests run"),
        (Mutation::StartsBeforeTheMark, "two guests run"),
        (
            Mutation::GivesUpInDoubt,
            "the guest is nowhere, and nobody says so",
        ),
    ] {
        let trace = explore(World::new(traits(true, false, false), 2), mutation).unwrap_err();
        assert!(trace.contains(expected), "{mutation:?}: {trace}");
    }
}
