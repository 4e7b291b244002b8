//! The data of objects and edges: a map from names to values.

use std::collections::BTreeMap;

/// The value of one field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// true or false
    Bool(bool),
    /// A signed integer; the only kind that can be added to.
    Int64(i64),
    /// A double, NaN included.
    Double(f64),
    /// UTF-8 text.
    String(String),
    /// Any bytes.
    Bytes(Vec<u8>),
    /// Seconds since 1970 and nanoseconds within the second.
    Timestamp(i64, i32),
}

/// Fields by name, in name order, so that equal data is encoded equally.
pub type Data = BTreeMap<String, Value>;
