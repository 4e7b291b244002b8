//! Writes single rows as they are given, in bounded commits that hold the log's end.

use std::collections::HashSet;

use bytes::Bytes;
use tao_model::{ChangeKind, Clock as _, EdgeKey, ListDelta, Object, ObjectId, ShardId, SystemClock, TypeId};
use tao_proto::convert;

use super::{DirectDatabase, DirectError, EdgeRow, GraphRow, RowChange, Snapshot};
use crate::backend::{AssocRow, Begun, CountRow, ListKey, LogRow, ObjectRow, Wanted, WriteBack};
use crate::batch::{Lasting, Overlay};
use crate::draft::{MAX_BATCH, MAX_BATCH_BYTES};
use crate::edges::encode;

/// What a row counts for beside its data.
const ROW_BYTES: usize = 64;

impl RowChange {
    /// The id whose shard's database it belongs to.
    pub const fn owner(&self) -> ObjectId {
        match self {
            Self::Put(GraphRow::Object(object)) => object.id,
            Self::Put(GraphRow::Edge(edge)) => edge.at.id1,
            Self::RemoveEdge(at) => at.id1,
            Self::DeleteObject(id) | Self::Recount(id, _) => *id,
        }
    }

    fn bytes(&self) -> usize {
        let data = match self {
            Self::Put(GraphRow::Object(Object { data, .. }) | GraphRow::Edge(EdgeRow { data, .. })) => data.len(),
            Self::RemoveEdge(_) | Self::DeleteObject(_) | Self::Recount(..) => 0,
        };
        data + ROW_BYTES
    }
}

impl DirectDatabase {
    /// Makes these changes, in order, in one commit or several; says how many rows have changed by it. All must be of shards that live
    /// here. Ids that come with them are not made again under any later lease: begin an epoch where storage shards may hold one. What an error leaves undone is a rest of them.
    pub async fn apply(&self, changes: &[RowChange]) -> Result<usize, DirectError> {
        let mut rest = changes;
        let mut changed = 0;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take(MAX_BATCH).take_while(|change| {
                bytes += change.bytes();
                bytes <= MAX_BATCH_BYTES
            });
            let (now, later) = rest.split_at(fitting.count().max(1));
            changed += self.commit(now).await?;
            rest = later;
        }
        Ok(changed)
    }

    async fn commit(&self, changes: &[RowChange]) -> Result<usize, DirectError> {
        // One at a time: the log's end would order them anyway.
        let mut lasting = self.lasting.lock().await;
        let begun = self.hold().await?;
        self.commit_held(begun, &mut lasting, changes).await
    }

    /// The same in a transaction that was begun.
    pub(super) async fn commit_held(
        &self,
        begun: Begun,
        lasting: &mut Lasting,
        changes: &[RowChange],
    ) -> Result<usize, DirectError> {
        let layout = self.info.layout;
        let Begun { base, mut transaction } = begun;
        if let Some(other) = changes.iter().map(|c| layout.shard(c.owner())).find(|s| !self.shards.contains(*s)) {
            transaction.end().await;
            return Err(tao_model::Error::WrongShard { shard: other.0 }.into());
        }
        let wanted = wanted(changes);
        let rows = transaction.load(&wanted).await?;
        let now_ms = SystemClock.now_ms();
        let mut overlay = Overlay { rows, ..Overlay::new(lasting, base.head, now_ms) };
        for change in changes {
            match change {
                RowChange::Put(GraphRow::Object(object)) => overlay.put_row(object)?,
                RowChange::Put(GraphRow::Edge(edge)) => {
                    overlay.put_edge(edge.at, &AssocRow { time: edge.time, data: edge.data.clone() });
                }
                RowChange::RemoveEdge(at) => {
                    overlay.remove_edge(*at);
                }
                RowChange::DeleteObject(id) => {
                    overlay.remove_object(*id);
                }
                RowChange::Recount(id1, atype) => self.recount(&mut overlay, *id1, *atype).await?,
            }
        }
        let Overlay { mut back, changes: made, .. } = overlay;
        if let Some(last) = made.last().map(|change| change.position) {
            let payload = convert::encode_log(&made).into();
            back.log = Some(LogRow { first: made[0].position, last, committed_ms: now_ms, payload });
        }
        let leased = self.lease(changes, &mut back);
        if back.is_empty() {
            transaction.end().await;
            return Ok(0);
        }
        transaction.write(base, &back).await?;
        transaction.commit().await?;
        self.backend.wrote(&back);
        self.ids_until.lock().extend(leased);
        Ok(made.len())
    }

    /// Ids of rows that are put were made somewhere: what this database makes begins above them.
    fn lease(&self, changes: &[RowChange], back: &mut WriteBack) -> Vec<(ShardId, u64)> {
        let until = self.ids_until.lock();
        for change in changes {
            let ids = match change {
                RowChange::Put(GraphRow::Object(object)) => [object.id, object.id],
                RowChange::Put(GraphRow::Edge(edge)) => [edge.at.id1, edge.at.id2],
                RowChange::RemoveEdge(_) | RowChange::DeleteObject(_) | RowChange::Recount(..) => continue,
            };
            for parts in ids.map(|id| self.info.layout.decode(id)) {
                if until.get(&parts.shard).is_some_and(|until| parts.time_ms >= *until) {
                    let lease = back.leases.entry(parts.shard).or_default();
                    *lease = (*lease).max(parts.time_ms + 1);
                }
            }
        }
        back.leases.iter().map(|(shard, until)| (*shard, *until)).collect()
    }

    /// Counts a list while the log's end is held, in a snapshot of that moment. Caches learn of the count with an edge of the list, put
    /// once more; with the removal of one that is not there when the list is empty.
    async fn recount(&self, overlay: &mut Overlay<'_>, id1: ObjectId, atype: TypeId) -> Result<(), DirectError> {
        let mut snapshot = Snapshot::connect(self).await?;
        snapshot.take().await?;
        let (count, some) = snapshot.count_list(id1, atype).await?;
        overlay.set_count((id1, atype), count, some);
        Ok(())
    }
}

fn wanted(changes: &[RowChange]) -> Wanted {
    let (mut objects, mut assocs, mut counts) = (HashSet::new(), HashSet::new(), HashSet::new());
    for change in changes {
        match change {
            RowChange::Put(GraphRow::Object(object)) => drop(objects.insert(object.id)),
            RowChange::DeleteObject(id) => drop(objects.insert(*id)),
            RowChange::Put(GraphRow::Edge(EdgeRow { at, .. })) | RowChange::RemoveEdge(at) => {
                assocs.insert(*at);
                counts.insert((at.id1, at.atype));
            }
            RowChange::Recount(id1, atype) => drop(counts.insert((*id1, *atype))),
        }
    }
    let (mut objects, mut assocs, mut counts) =
        (Vec::from_iter(objects), Vec::from_iter(assocs), Vec::from_iter(counts));
    objects.sort_unstable();
    assocs.sort_unstable();
    counts.sort_unstable();
    Wanted { objects, assocs, counts, ..Wanted::default() }
}

impl Overlay<'_> {
    /// Puts an object with the version and the times that it has.
    fn put_row(&mut self, object: &Object) -> Result<(), DirectError> {
        let row = ObjectRow {
            otype: object.otype,
            version: object.version,
            created_ms: object.created_ms,
            updated_ms: object.updated_ms,
            data: Bytes::clone(&object.data),
        };
        if self.rows.objects.get(&object.id) != Some(&row) {
            self.put_object(object.id, row)?;
        }
        Ok(())
    }

    /// Sets a list's count, if it is another. Caches hear of it with an edge that is there, put once more, or the removal of one that
    /// is not.
    fn set_count(&mut self, list: ListKey, count: u64, some: Option<EdgeRow>) {
        let old = self.rows.counts.get(&list).copied();
        if old.map_or(0, |row| row.count) == count {
            return;
        }
        if old.is_none() {
            self.back.new.counts.insert(list);
        }
        let delta = match some {
            Some(EdgeRow { at, time, data }) => {
                ListDelta::Put(EdgeKey { time, id2: at.id2 }, encode(at, &AssocRow { time, data }))
            }
            None => ListDelta::Remove(list.0),
        };
        let position = self.next_position();
        let row = CountRow { count, last: position };
        self.rows.counts.insert(list, row);
        self.back.counts.insert(list, row);
        let prev = old.unwrap_or_default().last;
        self.push(position, ChangeKind::List { id1: list.0, atype: list.1, prev, count, delta });
    }
}
