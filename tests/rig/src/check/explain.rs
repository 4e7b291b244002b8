//! What surrounds a violation, for people.

use std::fmt::Write as _;

use tao_model::Key;

use crate::check::{Lsn, Outcome, Read, Seen, SessionHistory, Step, Truth};

/// Steps before the one that is wrong, and changes around what it should show.
const AROUND: usize = 4;

impl Truth {
    /// The read, the steps of its session before it, and what the log did to its key about then.
    pub(crate) fn explain(&self, session: &SessionHistory, step: usize, read: &Read, bound: Lsn) -> String {
        let mut text = format!("  session {}, {}", session.id, self.describe(session, read));
        let same = |other: &Step| match other {
            Step::Read(r) => r.key == read.key,
            Step::Write(_) => true,
            Step::Failed(_) | Step::Odd(_) => false,
        };
        let before: Vec<_> = session.steps[..step].iter().filter(|s| same(s)).rev().take(AROUND).collect();
        for step in before.into_iter().rev() {
            match step {
                Step::Read(read) => {
                    let _ = write!(text, "\n    before: {}", self.describe(session, read));
                }
                Step::Write(write) => {
                    let outcome = match &write.outcome {
                        Outcome::Done(done) => format!("acknowledged at {:?}", done.covered),
                        Outcome::InDoubt => "in doubt".to_owned(),
                        Outcome::NotApplied => "not applied".to_owned(),
                        Outcome::Refused => "refused".to_owned(),
                    };
                    let _ = write!(
                        text,
                        "\n    before: {} to {} µs, {:?}: write {} {:?}, {outcome}",
                        write.start, write.end, write.process, write.w, write.asked
                    );
                }
                Step::Failed(_) | Step::Odd(_) => {}
            }
        }
        let changes = self.changes_of(read.key);
        let at = changes.partition_point(|(lsn, _)| *lsn < bound);
        for (lsn, what) in &changes[at.saturating_sub(AROUND)..(at + AROUND).min(changes.len())] {
            let _ = write!(text, "\n    the log at {lsn}: {what}");
        }
        text
    }

    fn describe(&self, session: &SessionHistory, read: &Read) -> String {
        let arena = &session.arena;
        let seen = match &read.seen {
            Seen::Object(hash) => format!("object {hash:016x}"),
            Seen::Count(count) => format!("count {count}"),
            Seen::Page(page) => format!("{:?} {:x?} ended {}", page.filter, arena.get(page.edges), page.ended),
            Seen::Among(among) => format!("of {:?} {:x?}", arena.get(among.ids), arena.get(among.edges)),
        };
        format!(
            "{} to {} µs, {:?}: read {:?} (shard {}, log {}) {:?} floored {} floor {} claim {}: {seen}",
            read.start,
            read.end,
            read.process,
            read.key,
            self.shape.shard(read.key.owner()),
            self.shape.log(read.key.owner()),
            read.level,
            read.floored,
            read.floor,
            read.claim
        )
    }

    fn changes_of(&self, key: Key) -> Vec<(Lsn, String)> {
        let log = self.log_of(key);
        match key {
            Key::Object(id) => {
                let versions = log.objects.get(&id).map(|o| o.versions.as_slice()).unwrap_or_default();
                versions.iter().map(|v| (v.lsn, format!("version {} {:016x}", v.version, v.hash))).collect()
            }
            Key::List(id1, atype) => {
                let versions = log.lists.get(&(id1, atype)).map(|l| l.versions.as_slice()).unwrap_or_default();
                let what = |put: &Option<super::list::Entry>| {
                    put.map_or("removed".to_owned(), |e| format!("put {:x} time {} w {}", e.hash, e.time, e.w))
                };
                versions.iter().map(|v| (v.lsn, format!("{} {}, count {}", v.id2, what(&v.put), v.count))).collect()
            }
        }
    }
}
