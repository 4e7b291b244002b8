//! Compares the tables with the end of the log.

use std::collections::{HashMap, HashSet};

use tao_model::{AssocRef, ObjectId, Schema, TypeId};
use tao_proto::v1;

use crate::check::list::edge_hash;
use crate::check::object::{ABSENT, object_hash};
use crate::check::{Kind, Truth, Violation};

/// A row of `objects`.
#[derive(Debug, Clone)]
pub struct ObjectRow {
    /// Its id.
    pub id: ObjectId,
    /// Its type.
    pub otype: TypeId,
    /// Its version.
    pub version: i64,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Milliseconds since 1970.
    pub updated_ms: u64,
    /// Fields `data` of tao.v1.Object, encoded, without the column's version byte.
    pub data: Vec<u8>,
}

/// A row of `assocs`.
#[derive(Debug, Clone)]
pub struct AssocRow {
    /// Which edge.
    pub edge: AssocRef,
    /// Its time.
    pub time: u32,
    /// Fields `data` of tao.v1.Assoc, encoded, without the column's version byte.
    pub data: Vec<u8>,
}

/// A row of `assoc_counts`.
#[derive(Debug, Clone)]
pub struct CountRow {
    /// The list's object.
    pub id1: ObjectId,
    /// The list's type.
    pub atype: TypeId,
    /// Its edges.
    pub count: u64,
    /// The LSN of its last change.
    pub lsn: u64,
}

/// The tables of one database, when all is quiet.
#[derive(Debug, Default)]
pub struct Tables {
    /// `objects`
    pub objects: Vec<ObjectRow>,
    /// `assocs`
    pub assocs: Vec<AssocRow>,
    /// `assoc_counts`
    pub counts: Vec<CountRow>,
    /// `log_head`: the LSN.
    pub head: u64,
    /// Rows of `intents`: none when all is quiet.
    pub intents: u64,
}

fn encode_row(row: &ObjectRow, schema: &Schema) -> Option<v1::Object> {
    let head = v1::Object {
        id: row.id.get(),
        r#type: schema.object(row.otype)?.name.clone(),
        version: row.version,
        created: Some(tao_proto::data::timestamp(row.created_ms)),
        updated: Some(tao_proto::data::timestamp(row.updated_ms)),
        data: std::collections::BTreeMap::new(),
    };
    let mut bytes = prost::Message::encode_to_vec(&head);
    bytes.extend_from_slice(&row.data);
    prost::Message::decode(bytes.as_slice()).ok()
}

fn edge_of_row(row: &AssocRow) -> Option<v1::Assoc> {
    let head = v1::Assoc { id2: row.edge.id2.get(), time: i64::from(row.time), ..Default::default() };
    let mut bytes = prost::Message::encode_to_vec(&head);
    bytes.extend_from_slice(&row.data);
    prost::Message::decode(bytes.as_slice()).ok()
}

impl Truth {
    /// Everything in which a database's tables differ from its log.
    pub fn compare(&self, log: usize, tables: &Tables) -> Vec<Violation> {
        let at = &self.logs[log];
        let mut found = Vec::new();
        let mut bad = |text: String| found.push(Violation::of_log(Kind::TablesDiffer, format!("log {log}: {text}")));
        if tables.head != at.effects.len() as u64 {
            bad(format!("log_head says {}, and the log ends at {}", tables.head, at.effects.len()));
        }
        if tables.intents != 0 {
            bad(format!("{} intents are left", tables.intents));
        }
        let mut objects: HashSet<ObjectId> = HashSet::new();
        for row in &tables.objects {
            objects.insert(row.id);
            let hash = encode_row(row, &self.shape.schema).map_or(ABSENT, |o| object_hash(&o));
            if at.objects.get(&row.id).and_then(|o| o.versions.last()).is_none_or(|last| last.hash != hash) {
                bad(format!("object {} is not what the log says: version {}", row.id, row.version));
            }
        }
        for (id, object) in &at.objects {
            if object.versions.last().is_some_and(|v| v.hash != ABSENT) && !objects.contains(id) {
                bad(format!("object {id} is not in the table"));
            }
        }
        let mut lists: HashMap<(ObjectId, TypeId), usize> = HashMap::new();
        for row in &tables.assocs {
            let AssocRef { id1, atype, id2 } = row.edge;
            *lists.entry((id1, atype)).or_default() += 1;
            let hash = edge_of_row(row).map_or(0, |e| edge_hash(&e));
            let list = at.lists.get(&(id1, atype));
            if !list.is_some_and(|l| l.now.iter().any(|e| (e.id2, e.time, e.hash) == (id2.get(), row.time, hash))) {
                bad(format!("the edge {} is not what the log says", self.shape.name(row.edge)));
            }
        }
        let counts: HashMap<_, _> = tables.counts.iter().map(|c| ((c.id1, c.atype), c)).collect();
        for ((id1, atype), list) in &at.lists {
            let (now, rows) = (list.now.len(), lists.remove(&(*id1, *atype)).unwrap_or(0));
            let name = self.shape.type_name(*atype);
            if now != rows {
                bad(format!("{id1} {name}: {rows} edges are in the table, and {now} by the log"));
            }
            match counts.get(&(*id1, *atype)) {
                Some(count) if count.count == now as u64 && count.lsn == u64::from(list.last()) => {}
                Some(count) => {
                    let (last, CountRow { count, lsn, .. }) = (list.last(), count);
                    bad(format!("{id1} {name}: assoc_counts has {count} at {lsn}, and the log {now} at {last}"));
                }
                None => bad(format!("{id1} {name}: not in assoc_counts")),
            }
        }
        found
    }

    /// Every edge that has no equal inverse when all is quiet, wherever the inverse lives.
    pub fn missing_inverses(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        for log in &self.logs {
            for ((id1, atype), list) in &log.lists {
                for entry in &list.now {
                    let Some(id2) = ObjectId::new(entry.id2) else { continue };
                    let edge = AssocRef { id1: *id1, atype: *atype, id2 };
                    let Some(inverse) = self.shape.inverse(edge) else { continue };
                    let other = self.logs[self.shape.log(id2)].lists.get(&(id2, inverse.atype));
                    let equal =
                        |e: &&crate::check::list::Entry| (e.id2, e.time, e.w) == (id1.get(), entry.time, entry.w);
                    if other.is_none_or(|list| list.now.iter().find(equal).is_none()) {
                        let text = format!("{} has no equal inverse", self.shape.name(edge));
                        found.push(Violation::of_log(Kind::InverseMissing, text));
                    }
                }
            }
        }
        found
    }
}
