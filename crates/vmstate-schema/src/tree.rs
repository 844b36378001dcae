//! Reading JSON with bounds: a key that comes twice is an error, and memory is counted.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How deep arrays and objects may be nested.
pub const MAX_DEPTH: usize = 120;

/// Why a text is refused.
#[derive(Debug, thiserror::Error)]
#[error("not readable as JSON: {0}")]
pub struct JsonError(#[from] serde_json::Error);

/// Parses a text into a tree of at most `memory` bytes.
///
/// # Errors
/// Text that is not JSON, an object with a key twice, nesting above [`MAX_DEPTH`], and a tree that is too large; each with line
/// and column.
pub fn parse_json(text: &[u8], memory: usize) -> Result<Value, JsonError> {
    let left = Cell::new(memory);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Tree {
        left: &left,
        depth: 0,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// What an object's member takes beside its value and the bytes of its key.
const MEMBER: usize = size_of::<String>() + 4 * size_of::<usize>();

#[derive(Clone, Copy)]
struct Tree<'m> {
    left: &'m Cell<usize>,
    depth: usize,
}

impl Tree<'_> {
    fn spend<E: serde::de::Error>(self, bytes: usize) -> Result<(), E> {
        // Containers double when they grow.
        let left = self.left.get().checked_sub(bytes.saturating_mul(2));
        self.left
            .set(left.ok_or_else(|| E::custom("more memory would be needed than allowed"))?);
        Ok(())
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.spend(size_of::<Value>())?;
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.spend(size_of::<Value>())?;
        Ok(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.spend(size_of::<Value>())?;
        Ok(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.spend(size_of::<Value>())?;
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.spend(size_of::<Value>())?;
        Ok(value.into())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.spend(size_of::<Value>() + text.len())?;
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.spend(size_of::<Value>())?;
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        self.spend(size_of::<Value>())?;
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            self.spend(MEMBER + key.len())?;
            let value = members.next_value_seed(inner)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} comes twice")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, memory: usize) -> String {
        parse_json(text.as_bytes(), memory).unwrap_err().to_string()
    }

    #[test]
    fn what_json_is() {
        let text = r#"{"a":[1,-2,null,true,"x",18446744073709551615],"b":{}}"#;
        let value = parse_json(text.as_bytes(), 1 << 16).unwrap();
        assert_eq!(value.to_string(), text);
        for wrong in ["", "{", "[1,]", "1 2", "{\"a\":1}x", "nul"] {
            assert!(parse_json(wrong.as_bytes(), 1 << 16).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_that_come_twice() {
        assert!(refusal(r#"{"a":1,"b":2,"a":3}"#, 1 << 16).contains("\"a\" comes twice"));
    }

    #[test]
    fn bounds() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(parse_json(deep(MAX_DEPTH).as_bytes(), 1 << 20).is_ok());
        assert!(parse_json(deep(MAX_DEPTH + 1).as_bytes(), 1 << 20).is_err());
        let wide = format!("[{}0]", "0,".repeat(1000));
        assert!(parse_json(wide.as_bytes(), 1 << 20).is_ok());
        assert!(refusal(&wide, 1 << 14).contains("memory"));
        let long = format!("\"{}\"", "x".repeat(10_000));
        assert!(refusal(&long, 10_000).contains("memory"));
    }
}
