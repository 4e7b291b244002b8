//! The type registry: names, numbers, inverses. Read from a TOML file (docs/schema.md).

use foldhash::HashMap;
use serde::Deserialize;

use crate::graph::{AssocRef, TypeId};
use crate::hash::StableHash;

/// The built-in example: a small social network.
pub const SOCIAL: &str = include_str!("social.toml");

/// An object type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectType {
    /// In storage.
    pub number: TypeId,
    /// In the API.
    pub name: String,
}

/// An association type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssocType {
    /// In storage.
    pub number: TypeId,
    /// In the API.
    pub name: String,
    /// The type of the edge in the other direction; itself for a symmetric type.
    pub inverse: Option<TypeId>,
    /// Object types that an edge may start at; any when empty.
    pub from: Vec<TypeId>,
    /// Object types that an edge may point to; any when empty.
    pub to: Vec<TypeId>,
}

/// The types of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    objects: HashMap<TypeId, ObjectType>,
    assocs: HashMap<TypeId, AssocType>,
    object_names: HashMap<String, TypeId>,
    assoc_names: HashMap<String, TypeId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    object: Vec<ObjectEntry>,
    #[serde(default)]
    association: Vec<AssocEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectEntry {
    name: String,
    number: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AssocEntry {
    name: String,
    number: u32,
    inverse: Option<String>,
    #[serde(default)]
    from: Vec<String>,
    #[serde(default)]
    to: Vec<String>,
}

impl Schema {
    /// Parses and checks a schema file. The error lists every problem, a line each.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| format!("not a schema file: {e}"))?;
        let mut problems = Vec::new();
        if file.version != 1 {
            problems.push(format!("version: {} is not 1, the only version that is read", file.version));
        }
        let mut schema = Self::default();
        for entry in &file.object {
            check_name("object", &entry.name, entry.number, &mut problems);
            let number = TypeId(entry.number);
            let object = ObjectType { number, name: entry.name.clone() };
            if schema.objects.insert(number, object).is_some() {
                problems
                    .push(format!("object {:?}: number {} is taken by another object type", entry.name, entry.number));
            }
            if schema.object_names.insert(entry.name.clone(), number).is_some() {
                problems.push(format!("object {:?}: the name is taken by another object type", entry.name));
            }
        }
        for entry in &file.association {
            check_name("association", &entry.name, entry.number, &mut problems);
            if schema.assoc_names.insert(entry.name.clone(), TypeId(entry.number)).is_some() {
                problems.push(format!("association {:?}: the name is taken by another association type", entry.name));
            }
        }
        for entry in &file.association {
            let ends = |side: &str, names: &[String], problems: &mut Vec<String>| -> Vec<TypeId> {
                let known = names.iter().filter_map(|n| {
                    let found = schema.object_names.get(n).copied();
                    if found.is_none() {
                        problems.push(format!("association {:?}: {side}: no object type is named {n:?}", entry.name));
                    }
                    found
                });
                known.collect()
            };
            let from = ends("from", &entry.from, &mut problems);
            let to = ends("to", &entry.to, &mut problems);
            let inverse = entry.inverse.as_ref().and_then(|name| {
                let other = file.association.iter().find(|other| other.name == *name);
                match other {
                    None => problems
                        .push(format!("association {:?}: inverse: no association type is named {name:?}", entry.name)),
                    Some(other) if other.inverse.as_ref() != Some(&entry.name) => problems.push(format!(
                        "association {:?}: its inverse {name:?} must name it as inverse in turn",
                        entry.name
                    )),
                    Some(other) if other.from != entry.to || other.to != entry.from => problems.push(format!(
                        "association {:?}: `from` and `to` must be its inverse {name:?}'s `to` and `from`",
                        entry.name
                    )),
                    Some(_) => {}
                }
                other.map(|other| TypeId(other.number))
            });
            let number = TypeId(entry.number);
            let assoc = AssocType { number, name: entry.name.clone(), inverse, from, to };
            if schema.assocs.insert(number, assoc).is_some() {
                problems.push(format!(
                    "association {:?}: number {} is taken by another association type",
                    entry.name, entry.number
                ));
            }
        }
        if problems.is_empty() { Ok(schema) } else { Err(problems.join("\n")) }
    }

    /// The built-in example schema.
    pub fn social() -> Self {
        Self::parse(SOCIAL).expect("the built-in schema is valid: a unit test parses it")
    }

    /// Of the object types, which encoded objects name: what was cached under another must not be shown.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = StableHash::default();
        for object in self.objects() {
            hash.update(&object.number.0.to_be_bytes());
            hash.update(object.name.as_bytes());
            // No name has it.
            hash.update(&[0]);
        }
        hash.get()
    }

    /// An object type by number.
    pub fn object(&self, number: TypeId) -> Option<&ObjectType> {
        self.objects.get(&number)
    }

    /// An association type by number.
    pub fn assoc(&self, number: TypeId) -> Option<&AssocType> {
        self.assocs.get(&number)
    }

    /// An object type by name; the error lists those that exist.
    pub fn object_named(&self, name: &str) -> Result<&ObjectType, String> {
        let number = self.object_names.get(name).ok_or_else(|| unknown("object", name, self.object_names.keys()))?;
        Ok(&self.objects[number])
    }

    /// An association type by name; the error lists those that exist.
    pub fn assoc_named(&self, name: &str) -> Result<&AssocType, String> {
        let number = self.assoc_names.get(name).ok_or_else(|| unknown("association", name, self.assoc_names.keys()))?;
        Ok(&self.assocs[number])
    }

    /// The same edge seen from its other end; none when its type has no inverse, or when it is the edge itself.
    pub fn inverse(&self, edge: AssocRef) -> Option<AssocRef> {
        let atype = self.assoc(edge.atype)?.inverse?;
        let inverse = AssocRef { id1: edge.id2, atype, id2: edge.id1 };
        (inverse != edge).then_some(inverse)
    }

    /// The side of a pair of inverse edges whose log orders all writes of the pair: that of the smaller type number, and between
    /// edges of one type that of the smaller id1. Both sides name the same.
    pub fn canonical(&self, edge: AssocRef) -> AssocRef {
        match self.inverse(edge) {
            Some(inverse) if (inverse.atype, inverse.id1) < (edge.atype, edge.id1) => inverse,
            _ => edge,
        }
    }

    /// All object types, by number.
    pub fn objects(&self) -> Vec<&ObjectType> {
        let mut all: Vec<_> = self.objects.values().collect();
        all.sort_by_key(|t| t.number);
        all
    }

    /// All association types, by number.
    pub fn assocs(&self) -> Vec<&AssocType> {
        let mut all: Vec<_> = self.assocs.values().collect();
        all.sort_by_key(|t| t.number);
        all
    }
}

fn check_name(kind: &str, name: &str, number: u32, problems: &mut Vec<String>) {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty()
        || name.len() > 64
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.chars().all(plain)
    {
        problems.push(format!("{kind} {name:?}: a name is 1 to 64 of a-z, 0-9 and _, and begins with a letter"));
    }
    if !(1..=65_535).contains(&number) {
        problems.push(format!("{kind} {name:?}: number {number} is not within 1 to 65535"));
    }
}

fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let mut known: Vec<_> = known.map(String::as_str).collect();
    known.sort_unstable();
    let shown: String = name.chars().take(64).collect();
    if name.is_empty() {
        return format!("required: one of the {kind} types {}", known.join(", "));
    }
    format!("{shown:?} is no {kind} type: the schema has {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_of_names_and_numbers_of_object_types() {
        let of = |objects: &[(&str, u32)]| {
            let object = |(name, number): &(&str, u32)| format!("[[object]]\nname = \"{name}\"\nnumber = {number}\n");
            Schema::parse(&format!("version = 1\n{}", objects.iter().map(object).collect::<String>()))
                .unwrap()
                .fingerprint()
        };
        let same = of(&[("user", 1), ("post", 2)]);
        assert_eq!(same, of(&[("post", 2), ("user", 1)]));
        for other in
            [&[("user", 1)][..], &[("user", 1), ("page", 2)], &[("user", 2), ("post", 1)], &[("user", 1), ("post", 3)]]
        {
            assert_ne!(same, of(other), "{other:?}");
        }
    }

    #[test]
    fn social_schema_parses_and_its_inverses_are_mutual() {
        let schema = Schema::social();
        for assoc in schema.assocs() {
            let inverse = assoc.inverse.expect("every social association has an inverse");
            assert_eq!(schema.assoc(inverse).and_then(|i| i.inverse), Some(assoc.number));
        }
        assert_eq!(schema.assoc_named("friend").unwrap().inverse, Some(schema.assoc_named("friend").unwrap().number));
    }

    #[test]
    fn both_sides_of_a_pair_name_the_same_canonical_side() {
        let schema = Schema::social();
        let edge = |id1, name: &str, id2| {
            let id = |n| crate::ObjectId::new(n).unwrap();
            AssocRef { id1: id(id1), atype: schema.assoc_named(name).unwrap().number, id2: id(id2) }
        };
        for (one, other) in [
            (edge(9, "follows", 4), edge(4, "followed_by", 9)),
            (edge(4, "follows", 9), edge(9, "followed_by", 4)),
            (edge(4, "friend", 9), edge(9, "friend", 4)),
        ] {
            assert_eq!((schema.canonical(one), schema.canonical(other)), (one, one));
            assert_eq!((schema.inverse(one), schema.inverse(other)), (Some(other), Some(one)));
        }
        let itself = edge(4, "friend", 4);
        assert_eq!((schema.canonical(itself), schema.inverse(itself)), (itself, None));
        let unknown = AssocRef { atype: TypeId(999), ..itself };
        assert_eq!((schema.canonical(unknown), schema.inverse(unknown)), (unknown, None));
    }

    #[test]
    fn every_problem_is_reported() {
        let text = r#"
            version = 2
            [[object]]
            name = "User"
            number = 0
            [[association]]
            name = "a"
            number = 1
            inverse = "b"
            [[association]]
            name = "b"
            number = 1
            from = ["ghost"]
        "#;
        let error = Schema::parse(text).unwrap_err();
        for part in
            ["version: 2", "\"User\": a name", "number 0", "must name it as inverse", "\"ghost\"", "number 1 is taken"]
        {
            assert!(error.contains(part), "{part:?} not in:\n{error}");
        }
        assert!(Schema::parse("version = 1\nfoo = 2").unwrap_err().contains("foo"));
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        let error = Schema::social().object_named("usr").unwrap_err();
        assert!(error.contains("comment, page, post, user"), "{error}");
    }
}
