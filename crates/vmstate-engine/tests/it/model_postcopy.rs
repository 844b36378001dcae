//! A guest that goes before its memory, explored whole: source, destination and network from the switch on, with connections that
//! break, are made anew and break again, processes that are killed, and users that give up.
//!
//! As in [`model`](super::model), the two tables are the real ones and everything around them is unkind: a write may fail
//! although all of it arrives, a cut loses what is under way from any message on, and each side learns of it late.

use std::collections::HashMap;
use std::fmt::Write as _;

use vmstate_engine::MigrationStatus;
use vmstate_engine::destination::{Core as There, Input as In, Phase as At};
use vmstate_engine::source::{Core as Here, Input, Phase, Right, Traits};

/// What goes from the source to the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sent {
    /// The package, but for its last byte.
    Package,
    /// That byte: the end of `POSTCOPY_RUN`.
    Run,
    Pages,
    Resume,
    /// The end-of-stream mark.
    End,
}

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    /// All devices have been loaded.
    Loaded,
    ResumeAck,
    Shut(u32),
}

/// A connection; each end sees by itself that it is broken.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Wire {
    forward: Vec<Sent>,
    back: Vec<Answer>,
    broken: bool,
    /// The source has been told that the return path has ended.
    told: bool,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    here: Here,
    there: There,
    runs_here: bool,
    runs_there: bool,
    /// The guest has run at the destination: what stands at the source is out of date.
    ran_there: bool,
    wire: Wire,
    /// The source waits to be accepted.
    knocks: bool,
    /// The destination has loaded the package and not executed `POSTCOPY_RUN` yet.
    loaded: bool,
    /// The end-of-stream mark has been read, all memory is at the destination.
    complete: bool,
    killed_here: bool,
    killed_there: bool,
    /// How much bad luck, and how many attempts to go on, are left.
    misfortunes: u8,
    recoveries: u8,
}

/// How the model departs from the real thing, to see that it notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    /// As stock QEMU does: a connection that breaks before the destination has confirmed makes the source resume.
    ResumesInDoubt,
    /// As stock QEMU does: so does one that breaks before SHUT.
    ResumesWithoutShut,
    /// The destination starts its guest before the last byte of the package.
    StartsBeforeRun,
    /// The destination takes a broken connection for the end.
    EndsWhenBroken,
    /// The destination says that all is loaded, and then does not start the guest since the connection has broken.
    ThinksBetterOfIt,
}

type Step = (String, World);

impl World {
    fn new(misfortunes: u8, recoveries: u8) -> Self {
        let mut here = Here::new(Traits {
            return_path: true,
            ..Traits::default()
        });
        here.step(Input::Migrate).unwrap();
        while here.phase() != Phase::Precopy {
            here.step(Input::Taken).unwrap();
            here.step(Input::Done).unwrap();
        }
        let mut there = There::default();
        for input in [In::Incoming, In::Taken, In::Done] {
            there.step(input).unwrap();
        }
        Self {
            here,
            there,
            runs_here: true,
            runs_there: false,
            ran_there: false,
            wire: Wire::default(),
            knocks: false,
            loaded: false,
            complete: false,
            killed_here: false,
            killed_there: false,
            misfortunes,
            recoveries,
        }
    }

    fn hears(&self, input: Input) -> Option<Self> {
        let mut next = self.clone();
        next.here.step(input).ok()?;
        if self.here.abort().is_none() && next.here.abort().is_some() {
            next.wire.broken = true;
        }
        (next != *self).then_some(next)
    }

    fn reads(&self, input: In) -> Option<Self> {
        let mut next = self.clone();
        next.there.step(input).ok()?;
        Some(next)
    }

    /// Whether the destination waits for another connection.
    fn listens(&self) -> bool {
        self.there.phase() == At::Reconnecting && !self.killed_there
    }

    fn steps(&self, mutation: Mutation) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.killed_here {
            self.source_works(mutation, &mut steps);
            self.stock_source(mutation, &mut steps);
            self.answers_arrive(&mut steps);
            self.source_decides(&mut steps);
        }
        if !self.killed_there {
            self.destination_works(mutation, &mut steps);
            self.destination_decides(&mut steps);
        }
        self.bad_luck(&mut steps);
        steps
    }

    /// What the present work of the source writes.
    fn writes(&self) -> &'static [Sent] {
        match self.here.phase() {
            Phase::Packaging => &[Sent::Package],
            Phase::HandingOver => &[Sent::Run],
            Phase::Postcopy => &[Sent::Pages],
            Phase::PostcopyCompleting => &[Sent::End],
            Phase::Recovering => &[Sent::Resume],
            _ => &[],
        }
    }

    fn source_works(&self, mutation: Mutation, steps: &mut Vec<Step>) {
        let phase = self.here.phase();
        if !self.here.is_busy() {
            let what = if self.here.is_lost() {
                "closing"
            } else {
                "work"
            };
            let taken = self.hears(Input::Taken);
            steps.extend(taken.map(|next| (format!("source takes {what} of {phase}"), next)));
            return;
        }
        let mut ends = |how: &str, input: Input, change: &dyn Fn(&mut Self)| {
            let mut base = self.clone();
            change(&mut base);
            if let Some(next) = base.hears(input) {
                steps.push((format!("source {phase}: {input:?} {how}"), next));
            }
        };
        if self.here.is_closing() {
            ends("has closed its channels", Input::Done, &|world| {
                world.wire.broken = true;
                world.knocks = false;
            });
            return;
        }
        let all = self.writes();
        let send = |world: &mut Self| {
            // What would be more of the same tells the destination nothing.
            if !world.wire.broken && world.wire.forward.last() != all.last() {
                world.wire.forward.extend(all);
            }
        };
        match phase {
            Phase::Stopping => ends("", Input::Done, &|world| world.runs_here = false),
            Phase::Precopy => {
                ends("", Input::Switch, &|_| {});
                ends("", Input::Failed, &|_| {});
            }
            Phase::Resuming => ends("", Input::Done, &|world| {
                assert!(!world.runs_here || mutation != Mutation::None);
                world.runs_here = true;
            }),
            Phase::CleaningUp => ends("", Input::Done, &|world| world.wire.broken = true),
            Phase::Departing => ends("", Input::Done, &|_| {}),
            Phase::Reconnecting => {
                if self.listens() && self.there.is_busy() {
                    ends("is connected", Input::Done, &|world| {
                        world.wire = Wire::default();
                        world.knocks = true;
                    });
                }
                ends("", Input::Failed, &|_| {});
            }
            _ => {
                ends("", Input::Done, &send);
                // The write may fail, or so it seems.
                if self.wire.broken || self.misfortunes > 0 {
                    let cost = u8::from(!self.wire.broken);
                    for arrives in [true, false] {
                        ends("", Input::Failed, &|world| {
                            world.misfortunes -= cost;
                            if arrives {
                                send(world);
                            }
                            world.wire.broken = true;
                        });
                    }
                    ends("", Input::NotSent, &|world| {
                        world.misfortunes -= cost;
                        world.wire.broken = true;
                    });
                } else if phase == Phase::Packaging {
                    // A device refuses.
                    ends("", Input::Failed, &|_| {});
                }
            }
        }
    }

    /// What a source like stock QEMU's does.
    fn stock_source(&self, mutation: Mutation, steps: &mut Vec<Step>) {
        let resumes = match mutation {
            Mutation::ResumesInDoubt => self.here.right() == Right::InDoubt,
            Mutation::ResumesWithoutShut => self.here.phase() == Phase::AwaitingShut,
            _ => false,
        };
        if resumes && self.wire.broken && !self.runs_here {
            let mut next = self.clone();
            next.runs_here = true;
            steps.push(("stock source resumes".to_owned(), next));
        }
    }

    fn answers_arrive(&self, steps: &mut Vec<Step>) {
        let mut next = self.clone();
        let (what, input) = if next.wire.back.is_empty() {
            if !self.wire.broken || self.wire.told {
                return;
            }
            next.wire.told = true;
            ("the end of the return path", Input::ReturnPathEnded)
        } else {
            match next.wire.back.remove(0) {
                Answer::Loaded => ("that all is loaded", Input::Loaded),
                Answer::ResumeAck => ("RESUME_ACK", Input::Resumed),
                Answer::Shut(0) => ("SHUT 0", Input::ShutOk),
                Answer::Shut(_) => ("SHUT 1", Input::ShutError),
            }
        };
        let heard = next.hears(input).unwrap_or(next);
        steps.push((format!("source reads {what}"), heard));
    }

    /// The source's user. Whoever decides looks at the destination first.
    fn source_decides(&self, steps: &mut Vec<Step>) {
        if self.here.phase() != Phase::Paused || self.here.is_busy() {
            return;
        }
        let failed = self.there.has_failed() && self.there.phase() == At::Over;
        let decision = if failed {
            Some(Input::ResumeHere)
        } else if self.there.status() == MigrationStatus::Completed {
            Some(Input::GiveUp)
        } else {
            None
        };
        let decided = decision.and_then(|d| Some((format!("source: {d:?}"), self.hears(d)?)));
        steps.extend(decided);
        // Nothing else is worth another attempt.
        if self.recoveries > 0 && self.listens() {
            steps.extend(
                self.hears(Input::Recover)
                    .map(|next| ("migrate resume".to_owned(), next)),
            );
        }
    }

    fn destination_works(&self, mutation: Mutation, steps: &mut Vec<Step>) {
        let phase = self.there.phase();
        if !self.there.is_busy() {
            let taken = self.reads(In::Taken);
            steps.extend(taken.map(|next| (format!("destination takes {phase}"), next)));
            return;
        }
        let mut ends = |what: &str, input: Option<In>, change: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            change(&mut next);
            if let Some(input) = input {
                next.there.step(input).unwrap();
            }
            steps.push((format!("destination {phase}: {what}"), next));
        };
        let pop = |world: &mut Self| {
            world.wire.forward.remove(0);
        };
        let answer = |world: &mut Self, answer: Answer| {
            if !world.wire.broken {
                world.wire.back.push(answer);
            }
        };
        let first = self.wire.forward.first();
        let over = first.is_none() && self.wire.broken;
        match phase {
            // Whoever has said that all is loaded runs the guest, even if that has not been heard.
            At::Loading
                if self.loaded && self.wire.broken && mutation == Mutation::ThinksBetterOfIt =>
            {
                ends("does not run", Some(In::Failed), &|_| {});
            }
            At::Loading if self.loaded => ends("RUN", Some(In::Run), &|_| {}),
            At::Loading => match first {
                Some(Sent::Package) => ends("reads", None, &|world| {
                    pop(world);
                    if mutation == Mutation::StartsBeforeRun {
                        world.runs_there = true;
                        world.ran_there = true;
                    }
                }),
                Some(Sent::Run) => {
                    ends("loads", Some(In::Listen), &|world| {
                        pop(world);
                        world.loaded = true;
                        answer(world, Answer::Loaded);
                    });
                    // Or the connection is seen to be broken.
                    ends("a device refuses", Some(In::Failed), &pop);
                }
                Some(other) => panic!("{other:?} before the package"),
                None if over => ends("connection ended", Some(In::Failed), &|_| {}),
                None => {}
            },
            At::Launching => ends("starts", Some(In::Done), &|world| {
                world.runs_there = true;
                world.ran_there = true;
            }),
            At::Receiving => match first {
                Some(Sent::End) => ends("end of stream", Some(In::Done), &|world| {
                    pop(world);
                    world.complete = true;
                }),
                Some(_) => ends("reads", None, &pop),
                None if over && mutation == Mutation::EndsWhenBroken => {
                    ends("takes it for the end", Some(In::Done), &|_| {});
                }
                None if over => ends("connection ended", Some(In::Failed), &|_| {}),
                None => {}
            },
            At::Reconnecting => {
                if self.knocks {
                    ends("accepts", Some(In::Done), &|world| world.knocks = false);
                }
                // The user, or the listener, ends it.
                if self.misfortunes > 0 {
                    ends("nobody comes", Some(In::Failed), &|world| {
                        world.misfortunes -= 1;
                        world.wire.broken = true;
                        world.knocks = false;
                    });
                }
            }
            At::Recovering => match first {
                // Too late for a guest that has been given up.
                Some(Sent::Resume) if self.there.is_lost() => {
                    ends("goes no further", Some(In::Failed), &pop);
                }
                Some(Sent::Resume) => ends("resumes", Some(In::Resume), &|world| {
                    pop(world);
                    answer(world, Answer::ResumeAck);
                }),
                Some(_) => ends("reads", None, &pop),
                None if over => ends("connection ended", Some(In::Failed), &|_| {}),
                None => {}
            },
            At::GivingUp => ends("stops the guest", Some(In::Done), &|world| {
                world.runs_there = false;
            }),
            At::Answering => {
                let value = u32::from(self.there.has_failed());
                ends("answers", Some(In::Done), &|world| {
                    answer(world, Answer::Shut(value));
                });
                if self.misfortunes > 0 {
                    ends("cannot answer", Some(In::Failed), &|world| {
                        world.misfortunes -= 1;
                        world.wire.broken = true;
                    });
                }
            }
            At::CleaningUp => ends("cleans up", Some(In::Done), &|world| {
                world.wire.broken = true;
            }),
            other => panic!("{other}"),
        }
    }

    /// The destination's user.
    fn destination_decides(&self, steps: &mut Vec<Step>) {
        if self.there.phase() != At::Paused {
            return;
        }
        if self.recoveries > 0 {
            let mut next = self.clone();
            next.recoveries -= 1;
            next.there.step(In::Recover).unwrap();
            steps.push(("migrate-recover".to_owned(), next));
        }
    }

    fn bad_luck(&self, steps: &mut Vec<Step>) {
        if self.misfortunes == 0 {
            return;
        }
        let mut base = self.clone();
        base.misfortunes -= 1;
        if !self.killed_here {
            for input in [Input::Pause, Input::Broken, Input::Cancel] {
                let heard = base.hears(input);
                steps.extend(heard.map(|next| (format!("source: {input:?}"), next)));
            }
            let mut next = base.clone();
            next.killed_here = true;
            next.runs_here = false;
            next.wire.broken = true;
            next.knocks = false;
            steps.push(("the source is killed".to_owned(), next));
        }
        if !self.killed_there {
            let given_up = base.reads(In::GiveUp);
            let given_up = given_up.map(|mut next| {
                next.wire.broken = true;
                ("the destination's user gives up".to_owned(), next)
            });
            steps.extend(given_up);
            let mut next = base.reads(In::Abandon).unwrap();
            next.wire.broken |= next.there.has_failed();
            steps.push(("the destination is told to end".to_owned(), next));
            let mut next = base.clone();
            next.killed_there = true;
            next.runs_there = false;
            next.wire.forward.clear();
            next.wire.broken = true;
            next.knocks = false;
            steps.push(("the destination is killed".to_owned(), next));
        }
        for kept in 0..=self.wire.forward.len() {
            for answered in 0..=self.wire.back.len() {
                let mut next = base.clone();
                next.wire.forward.truncate(kept);
                next.wire.back.truncate(answered);
                next.wire.broken = true;
                steps.push((format!("cut, {kept} and {answered} messages survive"), next));
            }
        }
    }

    /// What must hold always, and when nothing happens any more.
    fn check(&self, settled: bool) -> Result<(), &'static str> {
        if self.runs_here && self.runs_there {
            return Err("two guests run");
        }
        if self.runs_here && self.ran_there {
            return Err("a guest that has run at the destination runs here again");
        }
        if self.ran_there && self.here.right() == Right::Machine {
            return Err("the source may run a guest that has run at the destination");
        }
        if self.there.status() == MigrationStatus::Completed && !self.complete {
            return Err("a guest without all of its memory counts as complete");
        }
        if !settled {
            return Ok(());
        }
        let stuck = !self.killed_here
            && !matches!(
                self.here.phase(),
                Phase::Idle | Phase::Paused | Phase::Unknown
            );
        if stuck || (!self.killed_here && self.here.is_busy()) {
            return Err("the source is stuck");
        }
        let stuck = !matches!(
            self.there.phase(),
            At::Over | At::Paused | At::Reconnecting | At::Loading
        );
        if !self.killed_there && stuck {
            return Err("the destination is stuck");
        }
        // Killed or given up, it is gone. Otherwise it runs, or somebody says that it waits.
        let waits = self.here.phase() == Phase::Paused || self.there.phase() == At::Paused;
        let lost = self.killed_here || self.killed_there || self.there.is_lost();
        if !self.runs_here && !self.runs_there && !waits && !lost {
            return Err("the guest is nowhere, and nobody says so");
        }
        let failed = self.there.has_failed() && !self.killed_here && !self.killed_there;
        if failed && self.here.phase() == Phase::Paused && !self.here.can_resume_here() {
            return Err("nobody may run the guest any more");
        }
        if self.there.phase() == At::Paused && !self.runs_there && !self.killed_there {
            return Err("a paused destination without its guest");
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
        let mut calm = world.clone();
        // Bad luck and further attempts are optional: a state that only they would leave is an end.
        (calm.misfortunes, calm.recoveries) = (0, 0);
        let settled = calm.steps(mutation).is_empty();
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

/// Two breaks, of which the second may come while the first is being recovered from.
#[test]
fn one_guest_always_whatever_breaks_in_postcopy() {
    let states =
        explore(World::new(2, 2), Mutation::None).unwrap_or_else(|trace| panic!("{trace}"));
    assert!(states.len() > 1000, "{}", states.len());
    let reached = |is: &dyn Fn(&World) -> bool| states.iter().any(is);
    // The guest arrives after two breaks, and after one during the recovery from another.
    assert!(reached(&|world| world.complete && world.recoveries == 0));
    for phase in [At::Paused, At::Reconnecting, At::Recovering, At::GivingUp] {
        assert!(reached(&|world| world.there.phase() == phase), "{phase}");
    }
    for phase in [Phase::Paused, Phase::Reconnecting, Phase::AwaitingResume] {
        assert!(reached(&|world| world.here.phase() == phase), "{phase}");
    }
}

#[test]
fn as_long_as_the_connection_holds_a_guest_in_postcopy_arrives_or_stays() {
    let states =
        explore(World::new(0, 0), Mutation::None).unwrap_or_else(|trace| panic!("{trace}"));
    let ends = states
        .iter()
        .filter(|world| world.steps(Mutation::None).is_empty());
    let ends: Vec<_> = ends
        .map(|world| (world.runs_here, world.runs_there, world.complete))
        .collect();
    assert!(ends.contains(&(false, true, true)), "{ends:?}");
    assert!(ends.contains(&(true, false, false)), "{ends:?}");
    assert!(
        ends.iter().all(|(here, there, _)| here != there),
        "{ends:?}"
    );
}

#[test]
fn the_model_of_postcopy_notices_what_is_wrong() {
    for (mutation, expected) in [
        (Mutation::ResumesInDoubt, "two guests run"),
        (
            Mutation::ResumesWithoutShut,
            "a guest that has run at the destination runs here again",
        ),
        (
            Mutation::StartsBeforeRun,
            "a guest that has run at the destination runs here again",
        ),
        (
            Mutation::ThinksBetterOfIt,
            "nobody may run the guest any more",
        ),
        (
            Mutation::EndsWhenBroken,
            "a guest without all of its memory counts as complete",
        ),
    ] {
        let Err(trace) = explore(World::new(2, 1), mutation) else {
            panic!("{mutation:?} goes unnoticed");
        };
        let wrong = ["two guests run", expected];
        assert!(
            wrong.iter().any(|wrong| trace.contains(wrong)),
            "{mutation:?}: {trace}"
        );
    }
}
