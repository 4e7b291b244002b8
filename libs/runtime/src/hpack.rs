//! As much of HPACK (RFC 7541) as it takes to leave requests undecoded: whether a header block may be skipped, and blocks that any
//! decoder reads whatever it has read before.

use http::HeaderMap;

/// `:status: 200`, an entry of the static table.
const STATUS_200: u8 = 0x88;
/// How a literal begins that is not to be remembered, with a name of its own.
const LITERAL: u8 = 0x00;

/// The header block of a response without a message: literals that leave the table of its connection as it is.
pub fn response_block(headers: &HeaderMap) -> Vec<u8> {
    let mut block = vec![STATUS_200];
    for (name, value) in headers {
        block.push(LITERAL);
        string(&mut block, name.as_str().as_bytes());
        string(&mut block, value.as_bytes());
    }
    block
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    // No Huffman code, hence no flag: a length that fits into seven bits, or goes on by as many.
    let mut left = text.len();
    if left < 127 {
        block.push(left as u8);
    } else {
        block.push(127);
        left -= 127;
        while left >= 128 {
            block.push(left as u8 | 128);
            left >>= 7;
        }
        block.push(left as u8);
    }
    block.extend_from_slice(text);
}

/// Whether whoever has not read a header block reads the next ones right all the same: it neither adds to the table of its connection
/// nor resizes it.
pub(crate) fn leaves_table(mut block: &[u8]) -> bool {
    while let Some(&first) = block.first() {
        let skipped = match first {
            // A place in the table.
            0x80.. => integer(&mut block, 7).is_some(),
            // A literal that is to be remembered, or a new size.
            0x20.. => false,
            // A literal that is not: the place of its name, or the name; and the value.
            _ => match integer(&mut block, 4) {
                Some(0) => skip_string(&mut block) && skip_string(&mut block),
                Some(_) => skip_string(&mut block),
                None => false,
            },
        };
        if !skipped {
            return false;
        }
    }
    true
}

fn skip_string(block: &mut &[u8]) -> bool {
    let Some(rest) = integer(block, 7).and_then(|length| block.get(length..)) else { return false };
    *block = rest;
    true
}

/// An integer whose first byte has so many bits of it (RFC 7541, section 5.1); none larger than any block.
fn integer(block: &mut &[u8], bits: u8) -> Option<usize> {
    let (&first, rest) = block.split_first()?;
    *block = rest;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(first) & most;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let (&next, rest) = block.split_first()?;
        *block = rest;
        value += usize::from(next & 127) << shift;
        if next < 128 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_adds_to_the_table_is_told_from_what_does_not() {
        // Those of RFC 7541, appendix C.
        let [remembered, name, not_remembered, never, indexed]: [&[u8]; 5] = [
            b"\x40\x0acustom-key\x0dcustom-header",
            b"\x44\x0c/sample/path",
            b"\x04\x0c/sample/path",
            b"\x10\x08password\x06secret",
            b"\x82",
        ];
        for (block, leaves) in
            [(remembered, false), (name, false), (not_remembered, true), (never, true), (indexed, true)]
        {
            assert_eq!(leaves_table(block), leaves, "{block:?}");
            assert_eq!(leaves_table(&[indexed, block].concat()), leaves);
        }
        assert!(leaves_table(b"") && !leaves_table(b"\x3f\xe1\x1f"));
        // Neither what is cut off nor what has no end is skipped.
        for cut in 1..not_remembered.len() {
            assert!(!leaves_table(&not_remembered[..cut]));
        }
        assert!(!leaves_table(b"\xff\xff\xff\xff\xff\xff\x01"));
    }

    #[test]
    fn a_made_block_is_read_back() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", "8".parse().unwrap());
        headers.insert("long", "x".repeat(400).parse().unwrap());
        let block = response_block(&headers);
        assert!(leaves_table(&block));
        let (mut rest, mut strings) = (&block[1..], Vec::new());
        while !rest.is_empty() {
            assert_eq!(integer(&mut rest, 4), Some(0));
            for _ in 0..2 {
                let length = integer(&mut rest, 7).unwrap();
                strings.push(std::str::from_utf8(&rest[..length]).unwrap());
                rest = &rest[length..];
            }
        }
        assert_eq!(strings, ["grpc-status", "8", "long", &"x".repeat(400)]);
    }
}
