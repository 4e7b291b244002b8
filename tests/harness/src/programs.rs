//! Finding programs: those that are installed, and those that this workspace builds.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

/// The top folder of the repository that these tests were built in.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The path of a program that this workspace builds, such as `tao`, for a program or test of the workspace that runs it:
/// the one in the same target folder. (An integration test of the program's own package has `CARGO_BIN_EXE_…` instead.)
///
/// Cargo builds it only when it is told to, so an absent one, or one that is older than its sources, is an error that
/// gives the command: nothing must be tested or measured on yesterday's program.
pub fn built_program(name: &str) -> Result<PathBuf> {
    let here = env::current_exe().context("cannot tell where this program is")?;
    // From target/release/tao-bench or target/debug/deps/test-0123 to the folder with the programs.
    let in_deps = here.parent().and_then(Path::file_name).is_some_and(|folder| folder == "deps");
    let folder =
        here.ancestors().nth(if in_deps { 2 } else { 1 }).context("this program is outside of a target folder")?;
    let path = folder.join(name);
    let advice = "build it with `cargo build --bins`, and `--release` if this was";
    let age = changed(&path).with_context(|| format!("there is no {}: {advice}", path.display()))?;
    for source in sources(&path.with_extension("d")) {
        let newer = changed(&source).is_ok_and(|time| time > age);
        ensure!(!newer, "{} is older than {}: {advice}", path.display(), source.display());
    }
    Ok(path)
}

fn changed(file: &Path) -> io::Result<SystemTime> {
    fs::metadata(file)?.modified()
}

/// The source files in a list that cargo writes beside a program: `program: source source…`, blanks escaped.
fn sources(list: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(list).unwrap_or_default();
    let (_, sources) = text.trim_end().split_once(": ").unwrap_or_default();
    let escaped = sources.replace("\\ ", "\0");
    escaped.split_ascii_whitespace().map(|source| PathBuf::from(source.replace('\0', " "))).collect()
}

/// Looks a program up in PATH, then in these folders.
pub(crate) fn find(name: &str, more: &[PathBuf]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(more.iter().cloned()).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The file name of a program, for messages.
pub(crate) fn name_of(program: &Path) -> String {
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

/// Runs a command to its end and returns what it printed; an error has what it complained about.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = name_of(Path::new(command.get_program()));
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{name} failed ({}): {}{printed}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(printed.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_of_sources() {
        let folder = crate::TempDir::new().unwrap();
        let list = folder.join("tao.d");
        fs::write(&list, "/t/debug/tao: /w/a.rs /w/with\\ blank.rs\n").unwrap();
        assert_eq!(sources(&list), [Path::new("/w/a.rs"), Path::new("/w/with blank.rs")]);
        assert!(sources(&folder.join("absent")).is_empty());
    }

    #[test]
    fn a_program_that_was_not_built_is_named_with_the_command_that_builds_it() {
        let message = format!("{:#}", built_program("no-such-program").unwrap_err());
        assert!(message.contains("no-such-program: build it with `cargo build"), "{message}");
    }

    #[test]
    fn finds_programs_in_path() {
        assert!(find("sh", &[]).is_some());
        assert!(find("no-such-program", &[repository()]).is_none());
        assert!(find("Cargo.toml", &[repository()]).is_some());
    }
}
