//! The policy folders of the domains, put together from `deploy/policies`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Writes a domain's policy folder: the scheme that all domains have, and the domain's own layers.
pub fn assemble(domain: &str, into: &Path) -> Result<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    copy(&all.join("scheme"), &into.join("scheme"))?;
    copy(&all.join(domain), into)?;
    Ok(into.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let entries = fs::read_dir(from).with_context(|| format!("can't read {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
