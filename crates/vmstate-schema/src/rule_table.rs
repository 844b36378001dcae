//! How a table of rules is written, once for all that have rules.

/// Makes the enum of a table of rules: for each an id, what was found in a few words, and what somebody can do about it.
///
/// The crates that compare something have rules of their own; this is the form that they share, so that findings of all of them are
/// told alike.
///
/// ```
/// vmstate_schema::rule_table! {
///     /// What can be wrong with a clock.
///     pub enum Clock;
///
///     /// Too late.
///     K01: "the clock is slow", "wind it up";
///     /// No hands.
///     K02: "the clock does not tell", "look at another one";
/// }
/// assert_eq!(Clock::by_id("K01"), Some(Clock::K01));
/// assert_eq!(Clock::K02.to_string(), "K02");
/// assert_eq!((Clock::K01.title(), Clock::K01.advice()), ("the clock is slow", "wind it up"));
/// assert_eq!(Clock::ALL, [Clock::K01, Clock::K02]);
/// ```
#[macro_export]
macro_rules! rule_table {
    (
        $(#[$outer:meta])* $vis:vis enum $name:ident;
        $($(#[$doc:meta])* $id:ident: $title:literal, $advice:literal;)*
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        $vis enum $name {
            $($(#[$doc])* $id,)*
        }

        impl $name {
            /// All of them.
            $vis const ALL: &'static [Self] = &[$(Self::$id),*];

            /// The id.
            #[must_use]
            $vis const fn id(self) -> &'static str {
                match self {
                    $(Self::$id => stringify!($id),)*
                }
            }

            /// What was found, in a few words.
            #[must_use]
            $vis const fn title(self) -> &'static str {
                match self {
                    $(Self::$id => $title,)*
                }
            }

            /// What somebody can do about it.
            #[must_use]
            $vis const fn advice(self) -> &'static str {
                match self {
                    $(Self::$id => $advice,)*
                }
            }

            /// The rule with this id.
            #[must_use]
            $vis fn by_id(id: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|rule| rule.id() == id)
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(self.id())
            }
        }
    };
}
