//! Switches that turn single coherence rules off, for tests that show that a broken rule would be noticed. Without the feature
//! `mutations`, which no program that is delivered has, every rule holds and the switches are not compiled.
//!
//! With it, `TAO_MUTATION=<name>` turns one rule off in a whole process, and [`without`] in one thread.

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $rule:ident = $name:literal,)+) => {
        /// What can be turned off. The doc comment says which rule of COHERENCE it is, and what happens without it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Rule {
            $($(#[doc = $doc])+ $rule,)+
        }

        impl Rule {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$rule,)+];

            /// As `TAO_MUTATION` names it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$rule => $name,)+
                }
            }
        }
    };
}

rules! {
    /// Positions: every change has one of its own. Off: all changes of a commit have the last one's.
    ChangePositions = "change-positions",
    /// Rule 1: `applied` is loaded before the entry. Off: after it.
    AppliedLoadedFirst = "applied-loaded-first",
    /// Rule 1: a reply's `as_of` is its sender's freshness. Off: the entry's own, which is refused for ever where it lags.
    FreshnessSent = "freshness-sent",
    /// Rule 2: a miss asks with the largest of token, memory and `w0`. Off: with the token's floor alone.
    MissFloor = "miss-floor",
    /// Rule 3: only a flight whose floor suffices is joined. Off: any.
    FlightFloor = "flight-floor",
    /// Rule 4: a fill is tested when it arrives. Off: against what was known when it was asked for, which it always meets.
    FillTestedOnArrival = "fill-tested-on-arrival",
    /// Rule 5: every change is remembered. Off: only when no entry is there.
    AlwaysRemembered = "always-remembered",
    /// Rule 5: a change that the entry has is skipped. Off: applied again, or over a newer entry.
    OldChangesSkipped = "old-changes-skipped",
    /// Rule 5: a list delta needs its predecessor. Off: applied to what is there.
    DeltaPredecessor = "delta-predecessor",
    /// Rule 5 and "Positions": a list delta needs a base of its own epoch. Off: it may land on what was undone.
    DeltaBaseEpoch = "delta-base-epoch",
    /// Rule 6: a piece after a gap is refused. Off: applied, and `applied` moves over the gap.
    Gapless = "gapless",
    /// Rule 6: a heartbeat moves nothing. Off: `applied` moves to its position.
    HeartbeatClaimsNothing = "heartbeat-claims-nothing",
    /// Rule 6: a write's answer doesn't move `applied`. Off: it does.
    AnswerClaimsNothing = "answer-claims-nothing",
    /// Rule 7: a reset drops all entries. Off: they stay.
    ResetDropsEntries = "reset-drops-entries",
    /// Rule 7: a reset keeps the memory. Off: it is cleared.
    ResetKeepsMemory = "reset-keeps-memory",
    /// Rule 7: a reset raises `w0`. Off: it stays.
    ResetRaisesW0 = "reset-raises-w0",
    /// Rule 7: a higher epoch is a reset. Off: its stream goes on where the other ended.
    EpochResets = "epoch-resets",
    /// Rules 7 and 14: a stream resumes only where the cache has been. Off: anywhere in its epoch.
    ResumesWhereKnown = "resumes-where-known",
    /// Rule 8: a value of Redis is tested like any other. Off: taken for as fresh as the stream.
    RedisTested = "redis-tested",
    /// Rule 8: only a tested value's position is raised. Off: any.
    RaiseTested = "raise-tested",
    /// Rule 9: a write's answer is applied before its caller is answered. Off: not at all.
    AnswerApplied = "answer-applied",
    /// Rule 10: a read's answer carries a token too. Off: only a write's.
    ReadTokens = "read-tokens",
    /// Rule 13: an intent stays until it is delivered. Off: some are dropped.
    IntentsKept = "intents-kept",
    /// A write is answered once it is committed. Off: before.
    AnsweredOnceCommitted = "answered-once-committed",
}

/// Whether a rule is turned off.
#[cfg(not(feature = "mutations"))]
#[inline]
pub const fn is_off(_: Rule) -> bool {
    false
}

#[cfg(feature = "mutations")]
pub use switch::{is_off, without};

#[cfg(feature = "mutations")]
mod switch {
    use std::cell::Cell;
    use std::sync::LazyLock;

    use super::Rule;

    /// A name that is none would let every test pass that wants to see it caught.
    static OF_PROCESS: LazyLock<Option<Rule>> = LazyLock::new(|| {
        let name = std::env::var("TAO_MUTATION").ok().filter(|name| !name.is_empty())?;
        let rule = Rule::ALL.iter().find(|rule| rule.name() == name);
        Some(*rule.unwrap_or_else(|| panic!("TAO_MUTATION={name} names no rule")))
    });

    thread_local! {
        static OF_THREAD: Cell<Option<Rule>> = Cell::new(*OF_PROCESS);
    }

    /// Whether a rule is turned off, in this thread.
    pub fn is_off(rule: Rule) -> bool {
        OF_THREAD.get() == Some(rule)
    }

    /// Runs something with this rule, and no other, turned off in this thread; with all in force when there is none.
    pub fn without<T>(rule: Option<Rule>, run: impl FnOnce() -> T) -> T {
        struct Back(Option<Rule>);
        impl Drop for Back {
            fn drop(&mut self) {
                OF_THREAD.set(self.0);
            }
        }
        let _back = Back(OF_THREAD.replace(rule));
        run()
    }
}
