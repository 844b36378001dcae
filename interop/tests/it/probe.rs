//! The probe against stock QEMU as destination: it answers, and is not disturbed.
//!
//! The source is QEMU, too, with somebody in between who adds the probe to its stream and takes the answers out of the
//! return path. So every machine and every release that is installed can be asked, with channels and TLS as they are.

mod between;
mod tls;

use serde_json::json;
use vmstate_engine::probe::{FENCE, PROBE};
use vmstate_interop::{Generation, Machine, Program, Result};

use self::between::Between;
use self::tls::{Credentials, Tls};
use crate::board::{Board, COUNTING_PC, SPIKE};

/// How a migration is set up.
#[derive(Debug, Clone, Copy, Default)]
struct Setup {
    capabilities: &'static [&'static str],
    /// Channels beside the main one.
    channels: usize,
    tls: Option<Tls>,
    /// Messages besides PONGs that the destination sends before the fence.
    early: &'static [u16],
}

impl Setup {
    fn has(&self, capability: &str) -> bool {
        self.capabilities.contains(&capability)
    }
}

const PLAIN: Setup = Setup {
    capabilities: &[],
    channels: 0,
    tls: None,
    early: &[],
};

const RETURN_PATH: Setup = Setup {
    capabilities: &["return-path"],
    ..PLAIN
};

const POSTCOPY: Setup = Setup {
    capabilities: &["return-path", "postcopy-ram"],
    ..PLAIN
};

const PREEMPT: Setup = Setup {
    capabilities: &["return-path", "postcopy-ram", "postcopy-preempt"],
    ..PLAIN
};

const MULTIFD: Setup = Setup {
    capabilities: &["multifd"],
    channels: 2,
    ..PLAIN
};

const MULTIFD_RETURN_PATH: Setup = Setup {
    capabilities: &["multifd", "return-path"],
    channels: 2,
    ..PLAIN
};

/// `SWITCHOVER_ACK` comes as soon as the return path opens.
const SWITCHOVER_ACK: Setup = Setup {
    capabilities: &["return-path", "switchover-ack"],
    early: &[7],
    ..PLAIN
};

const TLS: Setup = Setup {
    capabilities: &["return-path"],
    tls: Some(Tls::Certificates),
    ..PLAIN
};

/// Each channel has a handshake of its own.
const TLS_MULTIFD: Setup = Setup {
    capabilities: &["return-path", "multifd"],
    channels: 2,
    ..TLS
};

/// A key that both ends know, and no certificates.
const TLS_PSK: Setup = Setup {
    tls: Some(Tls::Psk),
    ..TLS
};

const TLS_PSK_MULTIFD: Setup = Setup {
    tls: Some(Tls::Psk),
    ..TLS_MULTIFD
};

/// What both ends are told.
fn set(machine: &mut Machine, setup: &Setup) -> Result<()> {
    machine.capabilities(setup.capabilities)?;
    if setup.channels > 0 {
        let channels = json!({ "multifd-channels": setup.channels });
        machine.run("migrate-set-parameters", channels)?;
    }
    Ok(())
}

/// Moves a guest from QEMU to QEMU, with the probe in its stream.
fn moves(board: &Board, program: &Program, setup: &Setup) -> Result<()> {
    let mut source = board.start(program)?;
    let mut destination = board.waiting(program)?;
    set(&mut source, setup)?;
    set(&mut destination, setup)?;
    let (here, there) = (source.dir().join("here"), source.dir().join("there"));
    let credentials = match setup.tls {
        Some(kind) => match Credentials::make(kind)? {
            Some(credentials) => Some(credentials),
            None => return Ok(()),
        },
        None => None,
    };
    if let Some(credentials) = &credentials {
        credentials.client(&mut source)?;
        credentials.server(&mut destination)?;
    }
    let uri = format!("unix:{}", there.display());
    destination.run("migrate-incoming", json!({ "uri": uri }))?;
    let between = match &credentials {
        None => Between::plain(&here, &there, setup.has("return-path"))?,
        Some(credentials) => {
            Between::over_tls(&here, &there, credentials, setup.has("return-path"))?
        }
    };
    source.run(
        "migrate",
        json!({ "uri": format!("unix:{}", here.display()) }),
    )?;
    source.wait_for_migration()?;
    destination.wait_for_migration()?;
    let heard = between.heard();
    assert_eq!(heard.pongs, [PROBE, FENCE], "{heard:?}");
    assert_eq!(heard.early, setup.early, "{heard:?}");
    assert!(heard.failures.is_empty(), "{heard:?}");
    // Main channel and, in time, the others.
    assert!(heard.connections > setup.channels, "{heard:?}");
    destination.run("cont", json!({}))?;
    destination.wait_for_change(board.pulse)
}

fn all(generation: Generation, setups: &[Setup]) -> Result<()> {
    let Some(program) = COUNTING_PC.find(generation) else {
        return Ok(());
    };
    for setup in setups {
        moves(&COUNTING_PC, &program, setup).map_err(|error| format!("{setup:?}: {error}"))?;
    }
    Ok(())
}

#[test]
fn plain_and_return_path() -> Result<()> {
    for generation in Generation::ALL {
        all(generation, &[PLAIN, RETURN_PATH])?;
    }
    Ok(())
}

#[test]
fn several_channels() -> Result<()> {
    for generation in Generation::ALL {
        all(generation, &[MULTIFD, MULTIFD_RETURN_PATH])?;
    }
    Ok(())
}

#[test]
fn capable_of_postcopy() -> Result<()> {
    for generation in Generation::ALL {
        all(generation, &[POSTCOPY, PREEMPT])?;
    }
    Ok(())
}

#[test]
fn with_acknowledgement_of_the_switchover() -> Result<()> {
    for generation in [Generation::V10_0, Generation::V11_1] {
        let early = match generation {
            // Machine types of 11.1 acknowledge for each device, of which there is none here.
            Generation::V11_1 => &[][..],
            _ => SWITCHOVER_ACK.early,
        };
        let setup = Setup {
            early,
            ..SWITCHOVER_ACK
        };
        all(generation, &[setup])?;
    }
    Ok(())
}

#[test]
fn over_tls() -> Result<()> {
    for generation in Generation::ALL {
        all(generation, &[TLS, TLS_MULTIFD])?;
    }
    Ok(())
}

#[test]
fn over_tls_with_a_shared_key() -> Result<()> {
    for generation in Generation::ALL {
        all(generation, &[TLS_PSK, TLS_PSK_MULTIFD])?;
    }
    Ok(())
}

#[test]
fn another_board() -> Result<()> {
    let Some(program) = SPIKE.find(Generation::V11_1) else {
        return Ok(());
    };
    for setup in [PLAIN, RETURN_PATH, POSTCOPY] {
        moves(&SPIKE, &program, &setup)?;
    }
    Ok(())
}
