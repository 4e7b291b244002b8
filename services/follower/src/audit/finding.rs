//! What operators are shown of a cached value that the database does not have.

use prost::Message as _;
use serde::Serialize;
use tao_cache::{Entry, Inconsistency};
use tao_model::Key;
use tao_proto::v1;

/// Characters that are shown of a value.
const SHOWN: usize = 512;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The key, such as `object 7` or `list 7 of type 2`.
    pub key: String,
    /// The cached value's freshness.
    pub cached_at: String,
    /// The database's position.
    pub stored_at: String,
    /// The cached value, cut.
    pub cached: String,
    /// The database's, cut.
    pub stored: String,
}

impl From<&Inconsistency> for Finding {
    fn from(found: &Inconsistency) -> Self {
        Self {
            key: match found.key {
                Key::Object(id) => format!("object {id}"),
                Key::List(id1, atype) => format!("list {id1} of type {atype}"),
            },
            cached_at: found.at.to_string(),
            stored_at: found.stored.as_of.to_string(),
            cached: shown(&found.cached),
            stored: shown(&found.stored.value),
        }
    }
}

fn shown(entry: &Entry) -> String {
    let text = match entry {
        Entry::Object(None) => "no object".to_owned(),
        Entry::Object(Some(object)) => match v1::Object::decode(&object[..]) {
            Ok(object) => format!("{object:?}"),
            Err(_) => format!("{object:?}"),
        },
        Entry::List(list) => {
            let edges = list.keys().map(|key| format!("{}@{}", key.id2, key.time));
            format!("{} edges: {}", list.count(), edges.collect::<Vec<_>>().join(" "))
        }
    };
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tao_cache::{CachedList, Fresh};
    use tao_model::{Edge, ObjectId, Position, TypeId};
    use tao_proto::edges::encode_list;

    fn finding(key: Key, cached: Entry, stored: Entry) -> Finding {
        let stored = Fresh { as_of: Position::new(1, 12), value: stored };
        Finding::from(&Inconsistency { key, at: Position::new(1, 11), cached, stored })
    }

    fn list(count: u64, times: &[u32]) -> Entry {
        let edge = |n: &u32| Edge { id2: ObjectId::new(i64::from(*n)).unwrap(), time: *n + 100, data: Bytes::new() };
        let (encoded, _) = encode_list(&times.iter().map(edge).collect::<Vec<_>>(), usize::MAX);
        Entry::List(CachedList::from_encoded(count, encoded).unwrap().into())
    }

    #[test]
    fn both_values_are_shown() {
        let id = ObjectId::new(7).unwrap();
        let object = v1::Object { id: 7, version: 3, ..Default::default() }.encode_to_vec().into();
        let found = finding(Key::Object(id), Entry::Object(Some(object)), Entry::Object(None));
        assert_eq!(
            (found.key.as_str(), found.cached_at.as_str(), found.stored_at.as_str()),
            ("object 7", "1:11", "1:12")
        );
        assert!(found.cached.contains("version: 3"), "{}", found.cached);
        assert_eq!(found.stored, "no object");
        let found = finding(Key::List(id, TypeId(2)), list(9, &[8, 7]), list(0, &[]));
        assert_eq!(found.key, "list 7 of type 2");
        assert_eq!((found.cached.as_str(), found.stored.as_str()), ("9 edges: 8@108 7@107", "0 edges: "));
        let times: Vec<u32> = (0..1_000).rev().map(|n| n + 1).collect();
        assert_eq!(finding(Key::List(id, TypeId(2)), list(1_000, &times), list(0, &[])).cached.len(), SHOWN);
    }
}
