//! Where an edge list comes from: a file or standard input, plain or gzip.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::edge_list::{self, EdgeList};
use crate::commands::Failure;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 18;

/// Whether the input is standard input, which can't be read again and so not be resumed.
pub fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// Reads the list in `file`.
pub fn read(file: &Path, undirected: bool) -> Result<EdgeList, Failure> {
    let name = file.display();
    let source: Box<dyn Read> = if is_stdin(file) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(file).map_err(|error| Failure::other(format!("can't open {name}: {error}")))?)
    };
    let mut input = BufReader::with_capacity(BUFFER, source);
    read_plain_or_gzip(&mut input, undirected).map_err(|error| Failure::other(format!("can't read {name}: {error}")))
}

fn read_plain_or_gzip(input: &mut impl BufRead, undirected: bool) -> io::Result<EdgeList> {
    // Told by its first bytes, whatever its name.
    if !input.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        return edge_list::read(input, undirected);
    }
    edge_list::read(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(input)), undirected)
        .map_err(|error| io::Error::new(error.kind(), format!("not a whole gzip file: {error}")))
}

/// Where what is done is kept unless the caller says so: beside the input.
pub fn default_state(file: &Path) -> Option<PathBuf> {
    let name = file.file_name().filter(|_| !is_stdin(file))?;
    let mut name = name.to_owned();
    name.push(".tao-load");
    Some(file.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_told_by_its_first_bytes_and_may_have_several_members() {
        let text = "1 2 3\n2 3 4\n";
        let plain = read_plain_or_gzip(&mut text.as_bytes(), false).unwrap();
        let packed = [gzip("1 2 3\n"), gzip("2 3 4\n")].concat();
        let list = read_plain_or_gzip(&mut packed.as_slice(), false).unwrap();
        assert_eq!((list.ids, list.edges), (plain.ids, plain.edges));
        assert_eq!(list.fingerprint, plain.fingerprint, "packed or not, it is the same load");
    }

    #[test]
    fn a_gzip_file_that_was_cut_off_or_damaged_is_an_error() {
        let packed = gzip(&"1 2 3\n".repeat(1_000));
        for broken in [&packed[..packed.len() - 9], &packed[..12], &[0x1f, 0x8b, 0, 0][..]] {
            let error = read_plain_or_gzip(&mut &broken[..], false).unwrap_err();
            assert!(error.to_string().starts_with("not a whole gzip file"), "{error}");
        }
    }

    #[test]
    fn the_state_is_beside_the_input() {
        assert_eq!(default_state(Path::new("a/b.txt")), Some(PathBuf::from("a/b.txt.tao-load")));
        assert_eq!(default_state(Path::new("-")), None);
    }
}
