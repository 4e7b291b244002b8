//! Logical shards as the lane knows them: which are served from this database, and where their ids are.

use tao_model::id::NoId;
use tao_model::{Error, IdGenerator, IdLayout, ObjectId, Result, ShardId, Violations};

use crate::backend::ShardRow;

/// How far ahead of its last id a shard's lease reaches, in milliseconds. Ids after a crash may be as far ahead of the clock.
const LEASE_MS: u64 = 3_000;

/// See the module.
pub(crate) struct Shards {
    layout: IdLayout,
    /// Of `log_head`, when the rows were read; never yet when `None`.
    version: Option<i64>,
    /// By number; `None`: not served here.
    all: Vec<Option<Shard>>,
    served: Vec<ShardId>,
    /// Where the next object that may go anywhere goes: a place in `served`.
    turn: usize,
}

struct Shard {
    generator: IdGenerator,
    /// The lease that is committed: ids of milliseconds below it may be made.
    leased: u64,
}

impl Shards {
    pub fn new(layout: IdLayout, turn: usize) -> Self {
        let all = (0..layout.shards()).map(|_| None).collect();
        Self { layout, version: None, all, served: Vec::new(), turn }
    }

    /// Whether the rows have changed since they were read.
    pub fn is_stale(&self, version: i64) -> bool {
        self.version != Some(version)
    }

    /// Takes over the rows, read while the log's end was held.
    pub fn update(&mut self, version: i64, rows: &[ShardRow]) {
        self.served.clear();
        let mut before = std::mem::take(&mut self.all);
        before.resize_with(self.layout.shards() as usize, || None);
        self.all.resize_with(before.len(), || None);
        for row in rows.iter().filter(|row| row.is_served && row.shard.0 < self.layout.shards()) {
            let n = row.shard.0 as usize;
            // Ids above this process's own lease were made elsewhere.
            let known = before[n].take().filter(|shard| row.ids_until <= shard.leased);
            self.all[n] = Some(known.unwrap_or_else(|| Shard {
                generator: IdGenerator::new(self.layout, row.shard, row.ids_until),
                leased: row.ids_until,
            }));
            self.served.push(row.shard);
        }
        self.served.sort_unstable();
        self.version = Some(version);
    }

    pub fn layout(&self) -> IdLayout {
        self.layout
    }

    pub fn is_served(&self, shard: ShardId) -> bool {
        self.all.get(shard.0 as usize).is_some_and(Option::is_some)
    }

    /// Whether the id's shard is served here. An id of a shard that does not exist is left to whoever looks for it.
    pub fn check_served(&self, id: ObjectId) -> Result<()> {
        let shard = self.layout.shard(id);
        if self.is_served(shard) || shard.0 >= self.layout.shards() {
            return Ok(());
        }
        Err(Error::WrongShard { shard: shard.0 })
    }

    /// Whether the id may exist, as far as that is known here.
    pub fn check_allocated(&self, field: &str, id: ObjectId, violations: &mut Violations) {
        let shard = match self.layout.checked_shard(id) {
            Ok(shard) => &self.all[shard.0 as usize],
            Err(problem) => return violations.add(field, problem),
        };
        if shard.as_ref().is_some_and(|shard| !shard.generator.may_have_made(id)) {
            violations
                .add(field, format!("{id} was never allocated: use the id of an object, or one that AllocateIds gave"));
        }
    }

    /// Makes ids of one shard, and says how far its lease must reach before they may be used, where that is further than it does.
    pub async fn allocate(
        &mut self,
        shard: Option<ShardId>,
        count: usize,
        now_ms: u64,
    ) -> Result<(Vec<ObjectId>, Option<(ShardId, u64)>)> {
        let number = match shard {
            Some(shard) => shard,
            None => self.next_turn()?,
        };
        if number.0 >= self.layout.shards() {
            let last = self.layout.shards() - 1;
            return Err(Error::invalid("shard", format!("{number} does not exist: shards are 0 to {last}")));
        }
        let shard = self.all[number.0 as usize].as_mut().ok_or(Error::WrongShard { shard: number.0 })?;
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            match shard.generator.next(now_ms) {
                Ok(id) => ids.push(id),
                Err(NoId::Wait(time)) => {
                    tokio::time::sleep(time).await;
                    shard.generator.waited();
                }
                Err(end @ NoId::EndOfTime) => return Err(end.into()),
            }
        }
        // The lease covers whole milliseconds below it.
        let reached = shard.generator.millisecond();
        Ok((ids, (reached >= shard.leased).then_some((number, reached + LEASE_MS))))
    }

    fn next_turn(&mut self) -> Result<ShardId> {
        if self.served.is_empty() {
            return Err(Error::unavailable("no shard is served from this database"));
        }
        self.turn = (self.turn + 1) % self.served.len();
        Ok(self.served[self.turn])
    }

    /// A lease is committed.
    pub fn leased(&mut self, shard: ShardId, until: u64) {
        if let Some(shard) = &mut self.all[shard.0 as usize] {
            shard.leased = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(shard: u32, is_served: bool, ids_until: u64) -> ShardRow {
        ShardRow { shard: ShardId(shard), is_served, ids_until }
    }

    const NOW: u64 = 1_900_000_000_000;

    #[tokio::test]
    async fn a_shard_that_comes_back_goes_on_above_what_was_made_elsewhere() {
        let mut shards = Shards::new(IdLayout::STANDARD, 0);
        assert!(shards.is_stale(0));
        shards.update(0, &[row(1, true, 0), row(2, false, 0)]);
        assert!(!shards.is_stale(0) && shards.is_stale(1));
        let (first, lease) = shards.allocate(Some(ShardId(1)), 1, NOW).await.unwrap();
        let (shard, until) = lease.unwrap();
        shards.leased(shard, until);
        assert_eq!(shards.allocate(Some(ShardId(1)), 1, NOW).await.unwrap().1, None, "within the lease");
        assert_eq!(shards.allocate(Some(ShardId(2)), 1, NOW).await, Err(Error::WrongShard { shard: 2 }));
        assert!(matches!(shards.allocate(Some(ShardId(9_999)), 1, NOW).await, Err(Error::InvalidArgument { .. })));
        assert_eq!(shards.check_served(first[0]), Ok(()));

        shards.update(1, &[row(1, false, until)]);
        assert_eq!(shards.check_served(first[0]), Err(Error::WrongShard { shard: 1 }));
        assert!(shards.allocate(None, 1, NOW).await.is_err());
        shards.update(2, &[row(1, true, until + 5_000)]);
        let (later, lease) = shards.allocate(None, 1, NOW).await.unwrap();
        assert!(IdLayout::STANDARD.decode(later[0]).time_ms >= until + 5_000 && lease.is_some());
    }
}
