//! What can be wrong with a database, and how often it was found to be.

use std::fmt;

use serde_json::{Value as Json, json};
use tao_model::{AssocRef, ObjectId, Position, Schema, TypeId};

/// Examples of each kind that are shown.
const EXAMPLES: usize = 10;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A list's count is not the number of its edges.
    Count {
        /// The list's object.
        id1: ObjectId,
        /// The list's type.
        atype: TypeId,
        /// As it is stored; 0 when it is not.
        stored: u64,
        /// The number of its edges.
        counted: u64,
    },
    /// An edge without the inverse that its type declares.
    InverseMissing(AssocRef),
    /// An edge whose inverse has another time or other data.
    InverseDiffers(AssocRef),
    /// An object of a type that the schema has not.
    ObjectType(ObjectId, TypeId),
    /// An edge of a type that the schema has not.
    EdgeType(AssocRef),
    /// A row of a shard that does not live in its database.
    Misplaced(ObjectId),
    /// Data that can't be read.
    Unreadable(ObjectId),
    /// The log has a hole, or a row that does not hold what it says.
    Log(Position, String),
}

/// The kinds of findings, as their reports name them.
const KINDS: [&str; 8] = [
    "count",
    "inverse_missing",
    "inverse_differs",
    "unknown_object_type",
    "unknown_edge_type",
    "misplaced",
    "unreadable",
    "log",
];

impl Finding {
    const fn kind(&self) -> usize {
        match self {
            Self::Count { .. } => 0,
            Self::InverseMissing(_) => 1,
            Self::InverseDiffers(_) => 2,
            Self::ObjectType(..) => 3,
            Self::EdgeType(_) => 4,
            Self::Misplaced(_) => 5,
            Self::Unreadable(_) => 6,
            Self::Log(..) => 7,
        }
    }

    fn told(&self, schema: &Schema) -> String {
        let name = |atype: TypeId| schema.assoc(atype).map_or_else(|| format!("type {atype}"), |t| t.name.clone());
        let edge = |at: &AssocRef| format!("{} {} {}", at.id1, name(at.atype), at.id2);
        match self {
            Self::Count { id1, atype, stored, counted } => {
                format!("{id1} {}: the count is {stored}, and there are {counted} edges", name(*atype))
            }
            Self::InverseMissing(at) => format!("{} has no inverse", edge(at)),
            Self::InverseDiffers(at) => format!("{} has an inverse of another time or other data", edge(at)),
            Self::ObjectType(id, otype) => format!("object {id} is of type {otype}, which the schema has not"),
            Self::EdgeType(at) => format!("{} is of a type that the schema has not", edge(at)),
            Self::Misplaced(id) => format!("{id} is of a shard that does not live in its database"),
            Self::Unreadable(id) => format!("data of {id} can't be read"),
            Self::Log(at, what) => format!("the log at {at} {what}"),
        }
    }
}

/// All findings: how many, and the first of each kind.
#[derive(Debug, Default)]
pub struct Findings {
    of: [(u64, Vec<String>); 8],
}

impl Findings {
    /// Takes one in.
    pub fn add(&mut self, finding: &Finding, schema: &Schema) {
        let (count, examples) = &mut self.of[finding.kind()];
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(finding.told(schema));
        }
    }

    /// Takes others in.
    pub fn merge(&mut self, others: Self) {
        for ((count, examples), (more, others)) in self.of.iter_mut().zip(others.of) {
            *count += more;
            examples.extend(others);
            examples.truncate(EXAMPLES);
        }
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.of.iter().map(|(count, _)| count).sum()
    }

    /// For programs.
    pub fn json(&self) -> Json {
        let kinds = KINDS.iter().zip(&self.of);
        kinds
            .map(|(kind, (count, examples))| ((*kind).to_owned(), json!({"count": count, "examples": examples})))
            .collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, (count, examples)) in KINDS.iter().zip(&self.of) {
            if *count > 0 {
                writeln!(f, "{kind}: {count}")?;
                examples.iter().try_for_each(|example| writeln!(f, "  {example}"))?;
            }
        }
        Ok(())
    }
}
