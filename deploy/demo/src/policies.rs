//! The example policies, put together for one domain.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Makes a domain's policy folder out of `deploy/policies`, as its README says: the domain's own layers and
/// the scheme that all domains share. What `into` held before is gone. Gives `into` back.
///
/// # Errors
/// There are no example policies for this domain, or a file can't be copied.
pub fn assemble(domain: &str, into: &Path) -> Result<PathBuf> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let own = examples.join(domain);
    if !own.join("country").is_dir() {
        bail!("{} has no policies for the domain {domain}", examples.display());
    }
    if into.exists() {
        fs::remove_dir_all(into).with_context(|| format!("can't empty {}", into.display()))?;
    }
    copy(&own, into)?;
    copy(&examples.join("scheme"), &into.join("scheme"))?;
    Ok(into.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("can't create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("can't read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("can't write {}", target.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_has_the_scheme_and_its_own_layers() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("policies");
        for (domain, other) in [("be", "hu"), ("hu", "be")] {
            assert_eq!(assemble(domain, &into).unwrap(), into);
            for path in ["scheme/sharing.cedar", &format!("country/{domain}/law.cedar"), "agency", "tests"] {
                assert!(into.join(path).exists(), "{path}");
            }
            assert!(!into.join("country").join(other).exists());
        }
        for unknown in ["fr", "scheme"] {
            assert!(assemble(unknown, &into).is_err());
        }
    }
}
