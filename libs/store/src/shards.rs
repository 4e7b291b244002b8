//! Logical shards as the lane knows them: which are served from this database, and which of their ids this process may make.
//!
//! A process makes ids of those milliseconds only that it has leased itself: it read where all earlier leases end, and moved that end,
//! in the transaction that first used the lease. So several processes on one database never make an id twice (ADR 0006).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tao_model::id::NoId;
use tao_model::{Error, IdGenerator, IdLayout, ObjectId, Result, ShardId, ShardSet, Violations};

use crate::backend::ShardRow;

/// How far ahead of its first id a lease reaches, in milliseconds. Ids after a crash may be as far ahead of the clock.
const LEASE_MS: u64 = 3_000;

/// See the module.
pub(crate) struct Shards {
    layout: IdLayout,
    /// Of `log_head`, when the rows were read; never yet when `None`.
    version: Option<i64>,
    /// By number; `None`: not served here.
    all: Vec<Option<Shard>>,
    served: Vec<ShardId>,
    shown: Served,
    /// Where the next object that may go anywhere goes: a place in `served`.
    turn: usize,
}

/// Which shards are served, for those who read.
pub(crate) type Served = Arc<Mutex<Arc<ShardSet>>>;

struct Shard {
    generator: IdGenerator,
    /// This process's own lease: ids of milliseconds from the first up to the second may be made.
    lease: (u64, u64),
    /// Where the leases of all processes end, as far as is known.
    until: u64,
}

impl Shard {
    /// Whether `count` ids more surely lie within the lease.
    fn has_room(&self, count: usize, now_ms: u64, layout: IdLayout) -> bool {
        let from = self.generator.millisecond().max(now_ms);
        from + spread(count, layout) < self.lease.1
    }
}

/// Milliseconds that so many ids take, the one that is under way included.
fn spread(count: usize, layout: IdLayout) -> u64 {
    count as u64 / layout.sequences() + 2
}

/// How many ids of which shards a batch may make.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    of: HashMap<ShardId, usize>,
    anywhere: usize,
    /// Ids for which any shard will do, in all.
    anywhere_ids: usize,
}

impl Demand {
    pub fn add(&mut self, shard: Option<ShardId>, count: usize) {
        match shard {
            Some(shard) => *self.of.entry(shard).or_default() += count,
            None => {
                self.anywhere += 1;
                self.anywhere_ids += count;
            }
        }
    }
}

impl Shards {
    pub fn new(layout: IdLayout, turn: usize) -> Self {
        let all = (0..layout.shards()).map(|_| None).collect();
        let shown = Served::default();
        Self { layout, version: None, all, served: Vec::new(), shown, turn }
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
            let generator = || IdGenerator::new(self.layout, row.shard, 0);
            let known = before[n].take().unwrap_or_else(|| Shard { generator: generator(), lease: (0, 0), until: 0 });
            self.all[n] = Some(Shard { until: row.ids_until, ..known });
            self.served.push(row.shard);
        }
        self.served.sort_unstable();
        self.version = Some(version);
        *self.shown.lock() = Arc::new(self.served.iter().copied().collect());
    }

    /// Which shards are served, kept up to date.
    pub fn shown(&self) -> Served {
        self.shown.clone()
    }

    /// History was undone, and with it what this process had leased.
    pub fn forget_leases(&mut self) {
        for shard in self.all.iter_mut().flatten() {
            shard.lease = (0, 0);
        }
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

    /// The shard whose row has to be read before it can be said whether the id may exist: another process may have made it.
    pub fn unknown(&self, id: ObjectId) -> Option<ShardId> {
        let parts = self.layout.decode(id);
        let shard = self.all.get(parts.shard.0 as usize)?.as_ref()?;
        (parts.time_ms >= shard.until).then_some(parts.shard)
    }

    /// Whether the id may exist, as far as that is known here.
    pub fn check_allocated(&self, field: &str, id: ObjectId, violations: &mut Violations) {
        let shard = match self.layout.checked_shard(id) {
            Ok(shard) => &self.all[shard.0 as usize],
            Err(problem) => return violations.add(field, problem),
        };
        let Some(shard) = shard else { return };
        let time_ms = self.layout.decode(id).time_ms;
        let is_own = (shard.lease.0..shard.lease.1).contains(&time_ms);
        if time_ms >= shard.until || (is_own && !shard.generator.may_have_made(id)) {
            violations
                .add(field, format!("{id} was never allocated: use the id of an object, or one that AllocateIds gave"));
        }
    }

    /// The shards whose leases have no room for what a batch may make.
    pub fn to_renew(&self, mut demand: Demand, now_ms: u64) -> Vec<(ShardId, usize)> {
        // Which shards those are depends on which of the writes succeed: each gets room for all.
        for n in 1..=demand.anywhere.min(self.served.len()) {
            let shard = self.served[(self.turn + n) % self.served.len()];
            *demand.of.entry(shard).or_default() += demand.anywhere_ids;
        }
        let mut short = demand.of;
        short.retain(|shard, count| {
            let shard = self.all.get(shard.0 as usize).and_then(Option::as_ref);
            shard.is_some_and(|shard| !shard.has_room(*count, now_ms, self.layout))
        });
        short.into_iter().collect()
    }

    /// Where all leases end, read while the log's end is held.
    pub fn learn(&mut self, ends: &HashMap<ShardId, u64>) {
        for (shard, until) in ends {
            if let Some(shard) = &mut self.all[shard.0 as usize] {
                shard.until = *until;
            }
        }
    }

    /// Takes new leases, after [`Self::learn`] of the same shards; they are to be committed before an id of theirs is handed out, or
    /// else [`Self::abandon`]ed.
    pub fn renew(&mut self, short: &[(ShardId, usize)], now_ms: u64) -> Vec<(ShardId, u64)> {
        let mut renewed = Vec::with_capacity(short.len());
        for (number, count) in short {
            let Some(shard) = &mut self.all[number.0 as usize] else { continue };
            if shard.until != shard.lease.1 {
                // Somebody else has leased since, or a process before this one.
                let from = shard.until.max(now_ms);
                shard.generator = IdGenerator::new(self.layout, *number, from);
                shard.lease.0 = from;
            }
            let from = shard.generator.millisecond().max(now_ms);
            shard.lease.1 = from + spread(*count, self.layout) + LEASE_MS;
            shard.until = shard.lease.1;
            renewed.push((*number, shard.until));
        }
        renewed
    }

    /// Leases that are not committed, or may not be: no id of theirs was handed out, and none will be.
    pub fn abandon(&mut self, shards: impl IntoIterator<Item = ShardId>) {
        for number in shards {
            if let Some(shard) = &mut self.all[number.0 as usize] {
                shard.lease = (0, 0);
            }
        }
    }

    /// Makes ids of one shard within its lease.
    pub async fn allocate(&mut self, shard: Option<ShardId>, count: usize, now_ms: u64) -> Result<Vec<ObjectId>> {
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
            if shard.generator.millisecond().max(now_ms) >= shard.lease.1 {
                return Err(Error::Internal { what: "ids were asked for that were not leased".to_owned() });
            }
            match shard.generator.next(now_ms) {
                Ok(id) => ids.push(id),
                Err(NoId::Wait(time)) => {
                    tokio::time::sleep(time).await;
                    shard.generator.waited();
                }
                Err(end @ NoId::EndOfTime) => return Err(end.into()),
            }
        }
        Ok(ids)
    }

    fn next_turn(&mut self) -> Result<ShardId> {
        if self.served.is_empty() {
            return Err(Error::unavailable("no shard is served from this database"));
        }
        self.turn = (self.turn + 1) % self.served.len();
        Ok(self.served[self.turn])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOW: u64 = 1_900_000_000_000;
    const SHARD: ShardId = ShardId(1);

    fn row(shard: u32, is_served: bool, ids_until: u64) -> ShardRow {
        ShardRow { shard: ShardId(shard), is_served, ids_until }
    }

    fn shards() -> Shards {
        let mut shards = Shards::new(IdLayout::STANDARD, 0);
        shards.update(0, &[row(1, true, 0), row(2, false, 0)]);
        shards
    }

    /// As a batch does, with the row's value in `until`.
    async fn make(shards: &mut Shards, until: &mut u64, count: usize, now_ms: u64) -> Vec<ObjectId> {
        let mut demand = Demand::default();
        demand.add(None, count);
        let short = shards.to_renew(demand, now_ms);
        shards.learn(&short.iter().map(|(shard, _)| (*shard, *until)).collect());
        for (_, to) in shards.renew(&short, now_ms) {
            assert!(to > *until);
            *until = to;
        }
        shards.allocate(None, count, now_ms).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn processes_that_take_turns_never_make_an_id_twice() {
        let (mut all, mut until) = (HashSet::new(), 0);
        let mut processes = [shards(), shards(), shards()];
        for n in 0..300u64 {
            // Clocks that are apart, and step back.
            let now_ms = NOW + n * 97 - [0, 5_000, 60_000][n as usize % 3] - n % 7 * 300;
            let process = &mut processes[(n * n) as usize % 3];
            for id in make(process, &mut until, 1 + (n as usize * 331) % 9_000, now_ms).await {
                assert!(all.insert(id), "{id} was made twice");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_lasts_and_is_prolonged_while_nobody_else_comes() {
        let (mut one, mut until) = (shards(), 0);
        let first = make(&mut one, &mut until, 1, NOW).await;
        let before = until;
        let second = make(&mut one, &mut until, 1, NOW + 1).await;
        assert_eq!(until, before, "within the lease nothing is written");
        let third = make(&mut one, &mut until, 1, NOW + 10_000).await;
        assert!(first < second && second < third && until > before);
        assert_eq!(IdLayout::STANDARD.decode(third[0]).time_ms, NOW + 10_000, "ids keep to the clock");
        one.forget_leases();
        let mut restored = NOW + 70_000;
        let later = make(&mut one, &mut restored, 1, NOW + 10_000).await;
        assert_eq!(IdLayout::STANDARD.decode(later[0]).time_ms, NOW + 70_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_committed_is_made_anew() {
        let mut one = shards();
        let mut demand = Demand::default();
        demand.add(Some(SHARD), 1);
        let short = one.to_renew(demand, NOW);
        one.learn(&HashMap::from([(SHARD, 0)]));
        one.renew(&short, NOW);
        let lost = one.allocate(Some(SHARD), 1, NOW).await.unwrap();
        one.abandon([SHARD]);
        assert!(one.allocate(Some(SHARD), 1, NOW).await.is_err(), "without a lease there are no ids");
        // It happened all the same, as a commit in doubt may.
        let mut until = NOW + 5_000;
        assert!(make(&mut one, &mut until, 1, NOW).await > lost);
    }

    #[tokio::test(start_paused = true)]
    async fn ids_of_others_may_exist_and_those_of_nobody_do_not() {
        let (mut one, mut other, mut until) = (shards(), shards(), 0);
        let own = make(&mut one, &mut until, 1, NOW).await[0];
        let foreign = make(&mut other, &mut until, 1, NOW).await[0];
        let check = |shards: &Shards, id: i64| {
            let mut violations = Violations::default();
            shards.check_allocated("id", ObjectId::new(id).unwrap(), &mut violations);
            violations.check().is_ok()
        };
        assert!(check(&one, own.get()) && !check(&one, own.get() + 1), "its own lease is known exactly");
        assert_eq!(one.unknown(foreign), Some(SHARD));
        one.learn(&HashMap::from([(SHARD, until)]));
        assert!(one.unknown(foreign).is_none() && check(&one, foreign.get()));
        assert!(!check(
            &one,
            IdLayout::STANDARD
                .encode(tao_model::id::IdParts { time_ms: until, shard: SHARD, sequence: 0 })
                .unwrap()
                .get()
        ));
    }

    #[tokio::test]
    async fn only_shards_that_are_served_have_ids() {
        let mut shards = shards();
        assert!(!shards.is_stale(0) && shards.is_stale(1));
        assert_eq!(shards.allocate(Some(ShardId(2)), 1, NOW).await, Err(Error::WrongShard { shard: 2 }));
        assert!(matches!(shards.allocate(Some(ShardId(9_999)), 1, NOW).await, Err(Error::InvalidArgument { .. })));
        assert_eq!(shards.shown().lock().to_string(), "1");
        shards.update(1, &[row(1, false, 0)]);
        assert!(shards.allocate(None, 1, NOW).await.is_err());
        assert!(shards.shown().lock().is_empty() && !shards.is_served(SHARD));
    }
}
