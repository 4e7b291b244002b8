//! Properties of ids, tokens and cursors. A failure prints its seed; proptest keeps it in `proptest-regressions`.

use proptest::prelude::*;
use tao_model::id::{EPOCH_MS, IdParts, NoId};
use tao_model::{
    ClusterId, Cursor, EdgeKey, Error, IdGenerator, IdLayout, LogId, ObjectId, Position, ShardId, Token, TypeId,
};

const CLUSTER: ClusterId = ClusterId([9; 16]);
const LOG: LogId = LogId(0);

fn layouts() -> impl Strategy<Value = IdLayout> {
    (38u8..=46, 1u8..=20).prop_filter_map("at least 4 bits of sequence", |(time, shard)| {
        let sequence = 64u8.checked_sub(time + shard)?;
        IdLayout::new(time, shard, sequence, 1 << shard.min(10)).ok()
    })
}

proptest! {
    #[test]
    fn ids_decode_to_what_they_were_made_of(layout in layouts(), ms in 1u64..1 << 36, shard in any::<u32>(), sequence in any::<u64>()) {
        let parts = IdParts {
            time_ms: EPOCH_MS + ms,
            shard: ShardId(shard % layout.shards()),
            sequence: sequence % layout.sequences(),
        };
        let id = layout.encode(parts).unwrap();
        prop_assert!(id.get() > 0);
        prop_assert_eq!(layout.decode(id), parts);
        prop_assert_eq!(layout.checked_shard(id), Ok(parts.shard));
    }

    /// The clock runs, stands and steps back at will; ids ascend all the same, and never more than the sequence's a millisecond.
    #[test]
    fn generators_ascend_whatever_the_clock_does(steps in prop::collection::vec(-5_000i64..5_000, 1..300), restart in any::<u8>()) {
        let layout = IdLayout::new(42, 18, 4, 1024).unwrap();
        let mut generator = IdGenerator::new(layout, ShardId(5), EPOCH_MS + 1_000_000);
        let (mut now, mut last) = (EPOCH_MS + 1_000_000, 0);
        for (n, step) in steps.into_iter().enumerate() {
            now = now.saturating_add_signed(step / if step > 2_500 { 1 } else { 1_000 });
            if n == usize::from(restart) {
                // A restart goes on from the lease, which lies at or above what was reached.
                generator = IdGenerator::new(layout, ShardId(5), generator.millisecond() + 1);
            }
            let id = loop {
                match generator.next(now) {
                    Ok(id) => break id,
                    Err(NoId::Wait(_)) => generator.waited(),
                    Err(NoId::EndOfTime) => panic!("end of time"),
                }
            };
            prop_assert!(id.get() > last, "{} after {last}", id.get());
            prop_assert!(generator.may_have_made(id));
            let next = ObjectId::new(id.get() + 1).unwrap();
            prop_assert!(layout.shard(next) != ShardId(5) || !generator.may_have_made(next));
            prop_assert_eq!(layout.shard(id), ShardId(5));
            last = id.get();
        }
    }

    #[test]
    fn tokens_survive_their_text_and_never_forget(
        seen in prop::collection::vec((0u32..2_000, 1u64..4, 0u64..1_000), 0..700),
        logs in 1u32..5,
        split in any::<prop::sample::Index>(),
    ) {
        // Whoever merges does not know which shard lives where, even when what it merges is too much for one token.
        let log_of = |shard: ShardId| LogId(shard.0 % logs);
        let (mut a, mut b) = (Token::new(CLUSTER), Token::new(CLUSTER));
        let half = if seen.is_empty() { 0 } else { split.index(seen.len()) };
        for (n, (shard, epoch, lsn)) in seen.iter().enumerate() {
            let token = if n < half { &mut a } else { &mut b };
            token.see(ShardId(*shard), Position::new(*epoch, *lsn), log_of);
        }
        a.merge(&b);
        let text = a.encode();
        prop_assert!(text.len() <= tao_model::limits::MAX_TOKEN);
        let read = Token::decode(&text, CLUSTER).unwrap();
        prop_assert_eq!(&read, &a);
        for (shard, epoch, lsn) in seen {
            prop_assert!(read.floor(ShardId(shard), log_of(ShardId(shard))) >= Position::new(epoch, lsn));
        }
    }

    #[test]
    fn strangers_bytes_are_errors(text in "[A-Za-z0-9_-]{0,300}|.{0,60}") {
        let id1 = ObjectId::new(1).unwrap();
        prop_assert!(Token::decode(&text, CLUSTER).is_err());
        prop_assert!(Cursor::decode(&text, id1, TypeId(1)).is_err());
    }

    #[test]
    fn cursors_go_on_with_their_own_list_only(id1 in 1i64.., atype in any::<u32>(), time in any::<u32>(), id2 in 1i64..) {
        let id = |n| ObjectId::new(n).unwrap();
        let cursor = Cursor { id1: id(id1), atype: TypeId(atype), after: EdgeKey { time, id2: id(id2) } };
        prop_assert_eq!(Cursor::decode(&cursor.encode(), id(id1), TypeId(atype)), Ok(cursor));
        let other = Cursor::decode(&cursor.encode(), id(id1), TypeId(atype.wrapping_add(1)));
        let is_refused = matches!(other, Err(Error::InvalidArgument { .. }));
        prop_assert!(is_refused);
    }
}

#[test]
fn a_token_keeps_single_shards_until_it_grows_too_large() {
    let mut token = Token::new(CLUSTER);
    let mut see = |range: std::ops::Range<u32>| {
        range.for_each(|n| token.see(ShardId(n), Position::new(1, u64::from(n) + 1), |_| LOG));
        token.clone()
    };
    let few = see(0..8);
    assert_eq!(few.floor(ShardId(3), LOG), Position::new(1, 4));
    assert_eq!(few.floor(ShardId(900), LOG), Position::ZERO);
    let many = see(8..100);
    assert!(many.floor(ShardId(900), LOG) >= Position::new(1, 90), "folded into the log");
    assert!(many.encode().len() < 200);
    assert_eq!(many.resume_point(LOG), Some(Position::new(1, 1)), "what was seen first stays where changes go on from");
}

#[test]
fn several_tokens_are_one() {
    let at = |shard, lsn| {
        let mut token = Token::new(CLUSTER);
        token.see(ShardId(shard), Position::new(1, lsn), |_| LOG);
        token
    };
    let mut both = at(1, 5);
    both.merge(&at(2, 7));
    let joined = format!("{},{}", at(1, 5).encode(), at(2, 7).encode());
    assert_eq!(Token::parse(&joined).unwrap(), both);
    let stranger = Token::new(tao_model::ClusterId([8; 16])).encode();
    assert_eq!(Token::parse(&format!("{joined},{stranger}")), Err(Error::TokenOtherCluster));
    assert!(Token::parse(&format!("{joined},")).is_err());
}

#[test]
fn the_standard_layout_is_positive_until_2093() {
    let parts = IdParts { time_ms: EPOCH_MS + (1 << 41) - 1, shard: ShardId(1023), sequence: 4095 };
    assert_eq!(IdLayout::STANDARD.encode(parts).unwrap().get(), i64::MAX);
    let beyond = IdParts { time_ms: EPOCH_MS + (1 << 41), ..parts };
    assert_eq!(IdLayout::STANDARD.encode(beyond), None);
}

#[test]
fn keys_spread_over_all_shards() {
    let mut hit = vec![0; 1024];
    (0..100_000).for_each(|n| hit[IdLayout::STANDARD.shard_of_key(&format!("user-{n}")).0 as usize] += 1);
    assert!(hit.iter().all(|n| (40..200).contains(n)), "{hit:?}");
}

#[test]
fn edges_are_ordered_newest_first() {
    let key = |time, id2| EdgeKey { time, id2: ObjectId::new(id2).unwrap() };
    let mut keys = [key(1, 5), key(2, 1), key(1, 9), key(2, 3)];
    keys.sort();
    assert_eq!(keys, [key(2, 3), key(2, 1), key(1, 9), key(1, 5)]);
}

#[test]
fn a_token_resumes_a_log_where_nothing_is_missed() {
    let at = |lsn| Position::new(1, lsn);
    let log_of = |shard: ShardId| LogId(shard.0 / 100);
    let mut token = Token::new(CLUSTER);
    assert_eq!(token.resume_point(LogId(0)), None);
    for (shard, lsn) in [(1, 10), (2, 5), (101, 3)] {
        token.see(ShardId(shard), at(lsn), log_of);
    }
    assert_eq!(token.resume_point(LogId(0)), Some(at(5)), "shard 2 has been seen up to there only");
    let mut hit = token.clone();
    hit.see_at(LogId(0), at(9));
    assert_eq!((hit.floor(ShardId(7), LogId(0)), hit.resume_point(LogId(0))), (at(9), Some(at(5))));
    assert_eq!(token.resume_point(LogId(1)), Some(at(3)));
    token.see_log(LogId(0), at(7));
    assert_eq!(token.resume_point(LogId(0)), Some(at(7)));
    assert_eq!(token.floor(ShardId(1), LogId(0)), at(10), "what was seen beyond it stays a floor");
    assert_eq!((token.floor(ShardId(2), LogId(0)), token.floor(ShardId(50), LogId(0))), (at(7), at(7)));
    token.see_log(LogId(0), at(6));
    assert_eq!(Token::decode(&token.encode(), CLUSTER).unwrap().resume_point(LogId(0)), Some(at(7)));
    let mut covered = token.clone();
    covered.see_log(LogId(0), at(10));
    assert!(covered.encode().len() < token.encode().len(), "shards that the log covers take no room");
}
