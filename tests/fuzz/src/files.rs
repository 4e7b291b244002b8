//! What people write into files.

use tao_model::Schema;
use tao_topology::Topology;

#[allow(dead_code)] // The command uses more of it than its reader.
#[path = "../../../services/tao/src/load/edge_list.rs"]
mod edge_list;

/// The first byte says whether edges have a direction.
pub fn edges(raw: &[u8]) -> bool {
    let Some((flag, text)) = raw.split_first() else { return false };
    let Ok(list) = edge_list::read(text, flag % 2 == 1) else { return false };
    for (from, to, _) in &list.edges {
        assert!(from != to && (*from.max(to) as usize) < list.ids.len(), "an edge leads nowhere");
    }
    !list.edges.is_empty()
}

pub fn edge_seeds() -> Vec<Vec<u8>> {
    vec![b"\x00# from to\n1 2 1082040961\n3\t4\n5,6;7\n".to_vec(), b"\x01src dst\r\n1 1\n2 1\n1 2 nine\n".to_vec()]
}

pub fn schema(raw: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(raw) else { return false };
    let Ok(schema) = Schema::parse(text) else { return false };
    assert_eq!(Schema::parse(text).map(|s| s.fingerprint()), Ok(schema.fingerprint()));
    true
}

pub fn schema_seeds() -> Vec<Vec<u8>> {
    vec![tao_model::schema::SOCIAL.as_bytes().to_vec()]
}

pub fn topology(raw: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(raw) else { return false };
    let Ok(topology) = Topology::parse(text) else { return false };
    assert!(!topology.logs().is_empty());
    for shard in 0..topology.shards().unwrap_or(1).min(64) {
        assert!(topology.index_of(topology.log_of(tao_model::ShardId(shard))).is_some(), "a shard lives nowhere");
    }
    true
}

pub fn topology_seeds() -> Vec<Vec<u8>> {
    let text = "version = 3\ncluster = \"6c7f2f86-5a0e-4c0c-9d3b-0d9a3f1f4b11\"\nleaders = [\"l-0:50052\"]\n\n\
        [[logs]]\nid = 0\nshards = [\"0-7\"]\nservers = [\"s-0:50053\"]\n\n\
        [[logs]]\nid = 1\nshards = [\"8-14\", \"15\"]\nservers = [\"s-1:50053\"]\n";
    vec![text.as_bytes().to_vec()]
}

pub fn config(raw: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(raw) else { return false };
    match tao_runtime::config::parse::<tao_follower::config::Options>("tao.toml", text) {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.problems.is_empty(), "refused without a reason");
            false
        }
    }
}

pub fn config_seeds() -> Vec<Vec<u8>> {
    let text = "listen = \"127.0.0.1:50051\"\nleaders = [\"leader:50052\"]\ncache_size = \"1GiB\"\nmax_watches = 12\n";
    vec![text.as_bytes().to_vec(), b"leader = 7\nno_such_key = [1, 2]\n".to_vec()]
}
