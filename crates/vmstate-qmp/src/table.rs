//! The commands of a server.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::schema::{Shape, check_arguments};
use crate::{QmpError, Request, Response};

type Run<C> = dyn Fn(&C, Map<String, Value>) -> Result<Value, QmpError> + Send + Sync;

struct Command<C: ?Sized> {
    arguments: Shape,
    run: Box<Run<C>>,
    /// May be run while another command runs.
    out_of_band: bool,
}

/// The arguments of a command that has none, and the result of one that gives nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Empty {}

/// Commands by name, over a context `C` that they work on. Other crates add theirs.
///
/// `query-commands` is always there.
///
/// ```
/// use serde_json::json;
/// use vmstate_qmp::schema::{Member, Shape, Type};
/// use vmstate_qmp::{CommandTable, QmpError, Request};
///
/// #[derive(serde::Deserialize)]
/// struct Add {
///     a: u64,
///     b: u64,
/// }
///
/// let mut table = CommandTable::<()>::new();
/// const ADD: Shape =
///     Shape::of(&[Member::required("a", Type::U64), Member::required("b", Type::U64)]);
/// table.add("add", ADD, |(), add: Add| {
///     let sum = add.a.checked_add(add.b);
///     sum.ok_or_else(|| QmpError::generic("the sum is too large"))
/// });
///
/// let run = |arguments: serde_json::Value| {
///     let arguments = arguments.as_object().unwrap().clone();
///     let request = Request { execute: "add".to_owned(), arguments, id: None };
///     table.run(&(), request).to_json()
/// };
/// assert_eq!(run(json!({"a": 1, "b": 2})), json!({"return": 3}));
/// assert_eq!(
///     run(json!({"a": "1"})),
///     json!({"error": {"class": "GenericError", "desc": "Parameter 'a' expects uint64"}}),
/// );
/// ```
pub struct CommandTable<C: ?Sized> {
    commands: BTreeMap<&'static str, Command<C>>,
}

impl<C: ?Sized> CommandTable<C> {
    /// No commands but `query-commands`.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            commands: BTreeMap::new(),
        }
    }

    /// Adds a command, in place of one of the same name. Its arguments are checked against `arguments` before they become
    /// an `A`; what `A` refuses then, it refuses with a text of its own.
    pub fn add<A, R>(
        &mut self,
        name: &'static str,
        arguments: Shape,
        run: impl Fn(&C, A) -> Result<R, QmpError> + Send + Sync + 'static,
    ) where
        A: DeserializeOwned,
        R: Serialize,
    {
        let run = move |context: &C, arguments: Map<String, Value>| {
            let arguments =
                serde_json::from_value(Value::Object(arguments)).map_err(QmpError::generic)?;
            let result = run(context, arguments)?;
            serde_json::to_value(result).map_err(QmpError::generic)
        };
        let run = Box::new(run);
        let command = Command {
            arguments,
            run,
            out_of_band: false,
        };
        self.commands.insert(name, command);
    }

    /// Allows a command to be run out of band. It must not wait for anything that another command waits for.
    pub fn allow_out_of_band(&mut self, name: &str) {
        if let Some(command) = self.commands.get_mut(name) {
            command.out_of_band = true;
        }
    }

    /// Whether there is a command that may be run out of band.
    #[must_use]
    pub fn has_out_of_band(&self) -> bool {
        self.commands.values().any(|command| command.out_of_band)
    }

    /// The names of all commands, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.commands.keys().copied()
    }

    /// Runs a command and says what it gave.
    #[must_use]
    pub fn run(&self, context: &C, request: Request) -> Response {
        Response {
            outcome: self.outcome(context, &request.execute, request.arguments),
            id: request.id,
        }
    }

    /// The same for a command that came out of band.
    #[must_use]
    pub fn run_out_of_band(&self, context: &C, request: Request) -> Response {
        let name = request.execute.as_str();
        let fixed = matches!(name, "qmp_capabilities" | "query-commands");
        let allowed = match self.commands.get(name) {
            Some(command) => command.out_of_band,
            // One that there is not is refused for that.
            None => !fixed,
        };
        if !allowed {
            let refusal = format_args!("The command {name} does not support OOB");
            return Response {
                outcome: Err(QmpError::generic(refusal)),
                id: request.id,
            };
        }
        self.run(context, request)
    }

    fn outcome(
        &self,
        context: &C,
        name: &str,
        mut arguments: Map<String, Value>,
    ) -> Result<Value, QmpError> {
        match self.commands.get(name) {
            Some(command) => {
                check_arguments(&command.arguments, &mut arguments)?;
                (command.run)(context, arguments)
            }
            None if name == "query-commands" => {
                check_arguments(&Shape::EMPTY, &mut arguments)?;
                let fixed = ["qmp_capabilities", "query-commands"].into_iter();
                Ok(self
                    .names()
                    .chain(fixed)
                    .map(|name| json!({ "name": name }))
                    .collect())
            }
            None => Err(QmpError::not_found(name)),
        }
    }
}

impl<C: ?Sized> Default for CommandTable<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: ?Sized> fmt::Debug for CommandTable<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
