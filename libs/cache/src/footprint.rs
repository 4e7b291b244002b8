//! What an entry takes of a process's memory.

/// A map's node: key, position, value, and what eviction keeps beside it.
pub(crate) const NODE: usize = 64;
/// The slots of the maps: see [`crate::table`].
const SLOT: usize = 26;
/// The list of keys from which victims are drawn.
const KEY: usize = 16;

/// Bytes that an entry takes, if its value has so many in an allocation of its own. A quarter is for holes: what is evicted leaves room
/// that only entries of its size can use, and the sizes that are worth keeping are not those that came first.
pub(crate) const fn entry(value_bytes: usize) -> u64 {
    let allocated = size_class(NODE) + SLOT + KEY + size_class(value_bytes);
    (allocated + allocated / 4) as u64
}

/// Bytes that an allocation takes: mimalloc hands out multiples of 16 bytes, and beyond 64 bytes four sizes to a doubling. Other
/// allocators are close.
pub(crate) const fn size_class(bytes: usize) -> usize {
    let step = match bytes {
        0..=64 => 16,
        _ => 1 << ((bytes - 1).ilog2() - 2),
    };
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn sizes_are_rounded_up_a_little() {
        for (bytes, class) in
            [(0, 0), (1, 16), (16, 16), (17, 32), (64, 64), (65, 80), (128, 128), (129, 160), (257, 320)]
        {
            assert_eq!(size_class(bytes), class, "{bytes}");
        }
        for bytes in 65..20_000 {
            let class = size_class(bytes);
            assert!((bytes..=bytes + bytes / 4).contains(&class) && size_class(class) == class, "{bytes}");
        }
    }
}
