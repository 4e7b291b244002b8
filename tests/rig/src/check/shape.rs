//! Where things live.

use tao_model::{AssocRef, IdLayout, ObjectId, Schema, ShardId, TypeId};

/// The cluster's logs, and the types' inverses.
#[derive(Debug, Clone)]
pub struct Shape {
    /// How ids are split.
    pub layout: IdLayout,
    /// The types.
    pub schema: Schema,
    /// By logical shard: the log that has it.
    pub log_of: Vec<u8>,
}

impl Shape {
    /// Everything in log 0.
    pub fn one_log(schema: Schema) -> Self {
        let layout = IdLayout::STANDARD;
        Self { layout, schema, log_of: vec![0; layout.shards() as usize] }
    }

    /// How many logs there are.
    pub fn logs(&self) -> usize {
        self.log_of.iter().max().map_or(0, |last| usize::from(*last) + 1)
    }

    /// The logical shard of an id.
    pub fn shard(&self, id: ObjectId) -> ShardId {
        self.layout.shard(id)
    }

    /// The log that has the keys of `owner`.
    pub fn log(&self, owner: ObjectId) -> usize {
        usize::from(self.log_of[self.shard(owner).0 as usize])
    }

    /// The same edge seen from its other end.
    pub fn inverse(&self, edge: AssocRef) -> Option<AssocRef> {
        let atype = self.schema.assoc(edge.atype)?.inverse?;
        let inverse = AssocRef { id1: edge.id2, atype, id2: edge.id1 };
        (inverse != edge).then_some(inverse)
    }

    /// The one of an edge and its inverse that stands for both: the smaller type number; of a type that is its own inverse, the
    /// smaller start.
    pub fn canonical(&self, edge: AssocRef) -> AssocRef {
        self.inverse(edge).map_or(edge, |inverse| if self.is_canonical(edge) { edge } else { inverse })
    }

    /// Whether an edge stands for itself and its inverse.
    pub fn is_canonical(&self, edge: AssocRef) -> bool {
        match self.inverse(edge) {
            Some(inverse) => (edge.atype, edge.id1) < (inverse.atype, inverse.id1),
            None => true,
        }
    }

    /// Whether the two directions of an edge live in different databases: then one comes after the other, by way of an intent.
    pub fn crosses(&self, edge: AssocRef) -> bool {
        self.inverse(edge).is_some() && self.log(edge.id1) != self.log(edge.id2)
    }

    /// An edge as people read it.
    pub fn name(&self, edge: AssocRef) -> String {
        format!("{} -{}-> {}", edge.id1, self.type_name(edge.atype), edge.id2)
    }

    /// An association type as people read it.
    pub fn type_name(&self, atype: TypeId) -> &str {
        self.schema.assoc(atype).map_or("?", |t| t.name.as_str())
    }
}
