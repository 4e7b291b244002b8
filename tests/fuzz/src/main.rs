//! Writes valid input for every target, as a fuzzer's corpus to begin with: `tao-fuzz FOLDER` makes `FOLDER/TARGET/seed-N`.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).context("usage: tao-fuzz FOLDER")?);
    for target in tao_fuzz::TARGETS {
        let corpus = folder.join(target.name);
        fs::create_dir_all(&corpus).with_context(|| format!("can't make {}", corpus.display()))?;
        for (n, seed) in (target.seeds)().iter().enumerate() {
            fs::write(corpus.join(format!("seed-{n}")), seed)?;
        }
        println!("{}", target.name);
    }
    Ok(())
}
