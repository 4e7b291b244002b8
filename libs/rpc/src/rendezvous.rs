//! Rendezvous hashing: of several servers each key has one, and all who see the same servers agree on it. A server that goes moves
//! only its own keys, and one that comes takes only its share.

/// How much a server wants a key: the one that wants it most has it.
pub const fn weight(server: u64, key: u64) -> u64 {
    let mut x = server ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_model::StableHash;

    #[test]
    fn keys_are_spread_evenly_and_a_lost_server_moves_only_its_own() {
        let servers: Vec<u64> = (0..4).map(|n| StableHash::of(format!("leader-{n}:50052").as_bytes())).collect();
        let first = |servers: &[u64], key| *servers.iter().max_by_key(|s| weight(**s, key)).unwrap();
        let mut counts = std::collections::BTreeMap::<u64, u32>::new();
        for key in 0..1024 {
            let chosen = first(&servers, key);
            *counts.entry(chosen).or_default() += 1;
            let without: Vec<u64> = servers.iter().copied().filter(|s| *s != servers[0]).collect();
            if chosen != servers[0] {
                assert_eq!(first(&without, key), chosen);
            }
        }
        assert!(counts.len() == 4 && counts.values().all(|n| (190..330).contains(n)), "{counts:?}");
    }
}
