//! The images that pods run: made here, and nothing is pulled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tao_harness::{built_program, repository};

use crate::run::run;

/// The tag of the image with the program that was built last.
pub const CURRENT: &str = "current";
/// The tag of the image with the program of the version before.
pub const PREVIOUS: &str = "previous";

/// Makes all of them, as archives in the folder. Outside of the namespaces, since Debian's packages come from outside.
pub fn make(folder: &Path, previous: Option<&Path>) -> Result<()> {
    fs::create_dir_all(folder)?;
    pause(folder)?;
    image(&["postgres", &archive(folder, "postgres")])?;
    image(&["redis", &archive(folder, "redis")])?;
    tao(folder, CURRENT, &built_program("tao")?)?;
    previous.map_or(Ok(()), |program| tao(folder, PREVIOUS, program))
}

/// The archives in the folder.
pub fn archives(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("there are no images in {}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

fn tao(folder: &Path, tag: &str, program: &Path) -> Result<()> {
    let name = format!("docker.io/library/tao:{tag}");
    image(&["tao", &program.to_string_lossy(), &archive(folder, tag), &name])
}

fn image(args: &[&str]) -> Result<()> {
    run(Command::new(repository().join("tests/tools/image.sh")).args(args)).map(drop)
}

fn archive(folder: &Path, name: &str) -> String {
    folder.join(format!("{name}.tar")).to_string_lossy().into_owned()
}

/// The image in which a pod's namespaces are held.
fn pause(folder: &Path) -> Result<()> {
    let context = folder.join("pause");
    fs::create_dir_all(&context)?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("pause");
    fs::copy(sources.join("Containerfile"), context.join("Containerfile"))?;
    let (source, program) = (sources.join("pause.c"), context.join("pause"));
    run(Command::new("gcc").args(["-Os", "-static", "-s", "-o"]).arg(&program).arg(&source))?;
    let storage = folder.join("storage");
    let buildah = || {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(&storage).arg("--runroot").arg(storage.join("run")).args(["--storage-driver", "vfs"]);
        command
    };
    let name = "localhost/pause:1";
    run(buildah().args(["bud", "--isolation", "chroot", "--tag", name]).arg(&context))?;
    run(buildah().args(["push", name, &format!("oci-archive:{}:{name}", archive(folder, "pause"))]))?;
    fs::remove_dir_all(&storage).context("cannot remove the images' storage")
}
