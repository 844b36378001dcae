//! The commands of a machine that migrates.

mod shapes;

use serde_json::{Map, Value, json};

use crate::address::{ChannelsError, MigrationAddress};
use crate::message::Version;
use crate::migration::{
    CapabilityStatus, Migrate, MigrateContinue, MigrateIncoming, MigrateRecover, MigrationInfo,
    MigrationStatus, SetCapabilities, StatusInfo,
};
use crate::schema::Shape;
use crate::table::Empty;
use crate::{CommandTable, QmpError};

/// What a machine does for QMP. The types of arguments are checked before its methods are called; what they mean is not.
///
/// An error is the command's: nothing has changed then. Methods take `&self` since several clients may speak at a time.
pub trait QmpMachine {
    /// Which release's behaviour is shown, and which program does.
    fn version(&self) -> Version;

    /// What the machine is doing.
    fn status(&self) -> StatusInfo;

    /// Stops the guest. Nothing happens if it stands still.
    ///
    /// # Errors
    /// A machine that cannot.
    fn stop(&self) -> Result<(), QmpError>;

    /// Starts the guest, or goes on. Nothing happens if it runs.
    ///
    /// # Errors
    /// A machine that must not, or cannot.
    fn cont(&self) -> Result<(), QmpError>;

    /// Ends the machine, soon: the answer should still be sent.
    ///
    /// # Errors
    /// A machine that cannot.
    fn quit(&self) -> Result<(), QmpError>;

    /// Names the descriptor that this command's client has passed last.
    ///
    /// # Errors
    /// There is none, or the name is none.
    fn getfd(&self, _name: &str) -> Result<(), QmpError> {
        Err(QmpError::generic(
            "No file descriptor supplied via SCM_RIGHTS",
        ))
    }

    /// Closes a descriptor that has a name.
    ///
    /// # Errors
    /// There is none of this name.
    fn closefd(&self, name: &str) -> Result<(), QmpError> {
        Err(QmpError::generic(format_args!(
            "File descriptor named '{name}' not found"
        )))
    }

    /// Begins to migrate to a place; does not wait for it.
    ///
    /// # Errors
    /// A migration that must not begin.
    fn migrate(&self, to: MigrationAddress, resume: bool) -> Result<(), QmpError>;

    /// Begins to wait for a migration.
    ///
    /// # Errors
    /// A machine that does not wait for one.
    fn migrate_incoming(&self, from: MigrationAddress, exit_on_error: bool)
    -> Result<(), QmpError>;

    /// Cancels what [`QmpMachine::migrate`] began. Nothing happens if there is nothing.
    ///
    /// # Errors
    /// A migration that cannot be cancelled any more.
    fn migrate_cancel(&self) -> Result<(), QmpError>;

    /// Goes on with a migration that waits in this status.
    ///
    /// # Errors
    /// A migration that does not.
    fn migrate_continue(&self, state: MigrationStatus) -> Result<(), QmpError>;

    /// Lets the guest go before its memory, as soon as that is possible.
    ///
    /// # Errors
    /// A migration that has not begun, or was not told before that this may come.
    fn migrate_start_postcopy(&self) -> Result<(), QmpError> {
        Err(QmpError::generic(NO_POSTCOPY))
    }

    /// Gives up the channels of a migration whose guest has gone before its memory. Called out of band, too.
    ///
    /// # Errors
    /// There is no such migration.
    fn migrate_pause(&self) -> Result<(), QmpError> {
        Err(QmpError::generic(NOTHING_TO_PAUSE))
    }

    /// Waits anew for the source of a migration that has lost its channels after the guest had come. Called out of band, too:
    /// waits for nothing that a missing page can hold up.
    ///
    /// # Errors
    /// There is no such migration.
    fn migrate_recover(&self, from: MigrationAddress) -> Result<(), QmpError> {
        let _ = from;
        Err(QmpError::generic(NOTHING_TO_RECOVER))
    }

    /// Runs the guest here again after a migration whose end is unknown: somebody knows that it does not run elsewhere.
    ///
    /// # Errors
    /// There is no such migration.
    fn resume_here(&self) -> Result<(), QmpError> {
        Err(QmpError::generic(NOTHING_UNKNOWN))
    }

    /// Gives the guest up after a migration whose end is unknown: somebody knows that it runs elsewhere.
    ///
    /// # Errors
    /// There is no such migration.
    fn give_up(&self) -> Result<(), QmpError> {
        Err(QmpError::generic(NOTHING_UNKNOWN))
    }

    /// How the migration stands.
    fn migration_info(&self) -> MigrationInfo;

    /// All capabilities, in QEMU's order.
    fn capabilities(&self) -> Vec<CapabilityStatus>;

    /// Changes capabilities: all of these or none.
    ///
    /// # Errors
    /// What does not go together, what there is not, and a migration that is under way.
    fn set_capabilities(&self, changes: &[CapabilityStatus]) -> Result<(), QmpError>;

    /// All parameters.
    fn parameters(&self) -> Map<String, Value>;

    /// Changes parameters: all of these or none. A number is not negative, a null is an empty string.
    ///
    /// # Errors
    /// Values out of range, and parameters that there are not.
    fn set_parameters(&self, changes: &Map<String, Value>) -> Result<(), QmpError>;
}

/// The argument of `getfd` and `closefd`.
#[derive(serde::Deserialize)]
struct FdName {
    fdname: String,
}

const NO_POSTCOPY: &str =
    "Enable postcopy with migrate_set_capability before the start of migration";
const NOTHING_TO_PAUSE: &str =
    "migrate-pause is currently only supported during postcopy-active or postcopy-recover state";
const NOTHING_TO_RECOVER: &str = "Migrate recover can only be run when postcopy is paused.";
const NOTHING_UNKNOWN: &str = "There is no migration whose outcome is unknown";

/// The table of the commands that [`QmpMachine`] stands for. `x-migrate-resume-here` and
/// `x-migrate-give-up` are not QEMU's: they decide what nobody knows, where `query-migrate` says `x-unknown`.
#[must_use]
pub fn machine_commands<M: QmpMachine + ?Sized + 'static>() -> CommandTable<M> {
    let mut table = CommandTable::new();
    general(&mut table);
    migration(&mut table);
    settings(&mut table);
    table
}

fn general<M: QmpMachine + ?Sized + 'static>(table: &mut CommandTable<M>) {
    table.add("query-version", Shape::EMPTY, |m: &M, _: Empty| {
        Ok(m.version())
    });
    table.add("query-status", Shape::EMPTY, |m: &M, _: Empty| {
        Ok(m.status())
    });
    table.add("stop", Shape::EMPTY, |m: &M, _: Empty| done(m.stop()));
    table.add("cont", Shape::EMPTY, |m: &M, _: Empty| done(m.cont()));
    table.add("getfd", shapes::FD_NAME, |m: &M, name: FdName| {
        done(m.getfd(&name.fdname))
    });
    table.add("closefd", shapes::FD_NAME, |m: &M, name: FdName| {
        done(m.closefd(&name.fdname))
    });
    table.add("quit", Shape::EMPTY, |m: &M, _: Empty| done(m.quit()));
}

fn migration<M: QmpMachine + ?Sized + 'static>(table: &mut CommandTable<M>) {
    table.add("migrate", shapes::MIGRATE, |m: &M, arguments: Migrate| {
        let to = supported(arguments.address())?;
        done(m.migrate(to, arguments.resume.unwrap_or(false)))
    });
    table.add(
        "migrate-incoming",
        shapes::MIGRATE_INCOMING,
        |m: &M, arguments: MigrateIncoming| {
            let from = supported(arguments.address())?;
            done(m.migrate_incoming(from, arguments.exit_on_error.unwrap_or(true)))
        },
    );
    table.add("migrate_cancel", Shape::EMPTY, |m: &M, _: Empty| {
        done(m.migrate_cancel())
    });
    table.add(
        "migrate-continue",
        shapes::MIGRATE_CONTINUE,
        |m: &M, arguments: MigrateContinue| done(m.migrate_continue(arguments.state)),
    );
    table.add("migrate-start-postcopy", Shape::EMPTY, |m: &M, _: Empty| {
        done(m.migrate_start_postcopy())
    });
    table.add("migrate-pause", Shape::EMPTY, |m: &M, _: Empty| {
        done(m.migrate_pause())
    });
    table.add(
        "migrate-recover",
        shapes::MIGRATE_RECOVER,
        |m: &M, arguments: MigrateRecover| {
            let from = supported(arguments.address())?;
            done(m.migrate_recover(from))
        },
    );
    // As QEMU's: they end a state in which others wait for a page.
    table.allow_out_of_band("migrate-pause");
    table.allow_out_of_band("migrate-recover");
    table.add("x-migrate-resume-here", Shape::EMPTY, |m: &M, _: Empty| {
        done(m.resume_here())
    });
    table.add("x-migrate-give-up", Shape::EMPTY, |m: &M, _: Empty| {
        done(m.give_up())
    });
    table.add("query-migrate", Shape::EMPTY, |m: &M, _: Empty| {
        Ok(m.migration_info())
    });
}

fn settings<M: QmpMachine + ?Sized + 'static>(table: &mut CommandTable<M>) {
    table.add(
        "migrate-set-capabilities",
        shapes::SET_CAPABILITIES,
        |m: &M, arguments: SetCapabilities| done(m.set_capabilities(&arguments.capabilities)),
    );
    table.add(
        "query-migrate-capabilities",
        Shape::EMPTY,
        |m: &M, _: Empty| Ok(m.capabilities()),
    );
    table.add(
        "migrate-set-parameters",
        shapes::SET_PARAMETERS,
        |m: &M, arguments: Map<String, Value>| done(m.set_parameters(&arguments)),
    );
    table.add(
        "query-migrate-parameters",
        Shape::EMPTY,
        |m: &M, _: Empty| Ok(m.parameters()),
    );
}

/// The result of a command that gives nothing.
fn done(result: Result<(), QmpError>) -> Result<Value, QmpError> {
    result.map(|()| json!({}))
}

/// Places that QEMU can go to and a Rust machine cannot are refused by name.
fn supported(
    address: Result<MigrationAddress, ChannelsError>,
) -> Result<MigrationAddress, QmpError> {
    let address = address.map_err(QmpError::generic)?;
    match address.scheme() {
        scheme @ ("rdma" | "vsock") => Err(QmpError::generic(format_args!(
            "migration protocol '{scheme}' is not supported"
        ))),
        _ => Ok(address),
    }
}

#[cfg(test)]
mod tests;
